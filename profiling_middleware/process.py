"""What belongs to the process and not to a profiler: fork, SIGTERM, exit, and that there is one profiler only."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol, TypeVar

from profiling_middleware.imports import Imports
from profiling_middleware.threads import OwnThread

_T = TypeVar("_T")

# A child that hangs is worse than a fork that waits: longer than boto3 takes to be imported on a busy machine.
_IMPORT_SECONDS = 3.0


class OtherSettings(RuntimeError):  # noqa: N818 - it says what is the case
    """This process has, or is about to have, a profiler with other settings."""


class Resident(Protocol):
    """What lives in the process and is told of its fate."""

    def before_fork(self) -> None:
        """Lets own threads end, within a bound."""

    def after_fork_in_parent(self) -> None:
        """Goes on."""

    def after_fork_in_child(self) -> None:
        """Begins anew: no thread, lock, descriptor or client of the parent is used again."""

    def on_sigterm(self) -> None:
        """Called inside a signal handler: may take no lock."""

    def stop(self) -> None:
        """Ends, within a bound."""


class Mounted(Protocol):
    """A mounted middleware, whether profiling is on or off."""

    def follow(self, profiler: Any, /) -> None:
        """There is a profiler that is on: if it has the same settings, requests are labelled and traced for it."""


class Claimant(Protocol):
    """A mounted middleware that has profiling on."""

    @property
    def settings(self) -> object:
        """With which settings it wants the profiler."""

    def after_fork_in_child(self) -> None:
        """Begins anew what it had begun."""


class Process:
    """The resident of this process, if it has one, and the hooks that tell it of fork, SIGTERM and exit."""

    def __init__(self) -> None:
        self.resident: Resident | None = None
        self._claim: weakref.ref[Claimant] | None = None
        self._mounted: weakref.WeakSet[Mounted] = weakref.WeakSet()
        self.lock = threading.Lock()
        """Held while a resident moves in, or a middleware is mounted."""
        self.imports = Imports()
        self.aliases: set[str] = set()
        """Instances by which other workers know this process, beside its profiler's own."""
        self._only: dict[Callable[[], Any], Any] = {}
        self._hooked = False
        self._flushed = False
        self._forked = False
        self._pending_call: object = None
        self._holding: set[int] = set()
        """Threads that fork and have SIGTERM wait meanwhile."""

    @property
    def claimant(self) -> Claimant | None:
        """Who wants to have a profiler here, while it lives."""
        return self._claim() if self._claim is not None else None

    @property
    def mounted(self) -> list[Mounted]:
        """The middlewares that are mounted in this process."""
        with self.lock:
            return list(self._mounted)

    def only(self, make: Callable[[], _T]) -> _T:
        """The one that `make` has made for this process, when it was asked for first."""
        with self.lock:
            if make not in self._only:
                self._only[make] = make()
            made: _T = self._only[make]
            return made

    def mount(self, mounted: Mounted) -> None:
        """Remembers a middleware for as long as it lives."""
        with self.lock:
            self._mounted.add(mounted)

    def claim(self, claimant: Claimant) -> None:
        """Announces a profiler before there is one. Raises OtherSettings when one with other settings is announced."""
        present = self.claimant
        if present is not None and present.settings != claimant.settings:
            raise OtherSettings("this process has a Profiler with other settings: give every middleware the same ones")
        self._claim = weakref.ref(claimant)
        self._hook()

    def renounce(self) -> None:
        """Takes an announcement back."""
        self._claim = None

    def settle(self, resident: Resident) -> None:
        """Makes `resident` the one of this process. Raises RuntimeError when there is another one."""
        if self.resident is not None and self.resident is not resident:
            raise RuntimeError("another Profiler runs in this process: stop it first, or give both the same settings")
        self.resident = resident
        self._hook()

    def _hook(self) -> None:
        if not self._hooked:
            self._hooked = True
            # Cannot be taken back, so registered once, and it is asked each time who lives here.
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._begin_in_child,
            )
            atexit.register(lambda: self._tell("stop"))

    def leave(self, resident: Resident) -> None:
        """`resident` has stopped."""
        if self.resident is resident:
            self.resident = None
            self._unhook_sigterm()

    def notice_sigterm(self) -> None:
        """Tells the resident of SIGTERM from now on; the handler that was there still runs, after it.

        Servers send the shutdown event only once their requests have ended, and a request may be waiting for a
        capture. Python lets only the main thread set handlers: from elsewhere (a WSGI server's first request) it is
        asked to do so at its next step.
        """
        if threading.current_thread() is not threading.main_thread():
            self._ask_main_thread()
            return
        current = signal.getsignal(signal.SIGTERM)
        if current is None or current is signal.SIG_IGN or isinstance(current, _SigtermHandler):
            return  # not Python's to chain, deliberately ignored, or ours already
        if current is signal.SIG_DFL and self._forked:
            return
        with contextlib.suppress(ValueError):  # not the main interpreter
            signal.signal(signal.SIGTERM, _SigtermHandler(self, current))

    def _ask_main_thread(self) -> None:
        try:
            with self.imports.underway():
                import ctypes
        except ImportError:
            return  # without ctypes there is no way; the server's own time-out ends waiting requests
        with self.lock:
            # Made once and kept for ever: the main thread may call it when whoever asked has long gone.
            if self._pending_call is None:
                self._pending_call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._called_by_main_thread)
        # https://docs.python.org/3/c-api/init.html#c.Py_AddPendingCall; the main thread waits in C for a second at most
        # in the servers that need this.
        ctypes.pythonapi.Py_AddPendingCall(self._pending_call, None)

    def _called_by_main_thread(self, _: object) -> int:
        # What it raised would be raised wherever the main thread is.
        with contextlib.suppress(Exception):
            if self.resident is not None and threading.current_thread() is threading.main_thread():
                self.notice_sigterm()
        return 0

    def _unhook_sigterm(self) -> None:
        current = signal.getsignal(signal.SIGTERM)
        if isinstance(current, _SigtermHandler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, current.before)

    def die_of(self, number: int) -> None:
        """What the default handler does, but the last window goes out first. Called inside a signal handler."""
        if self.resident is None or self._flushed:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            # On another thread: the interrupted one may hold any lock.
            OwnThread(self._flush_and_die, "profiling-flush", (number,)).start()

    def _flush_and_die(self, number: int) -> None:
        try:
            self._tell("stop")
        finally:
            self._flushed = True
            os.kill(os.getpid(), number)

    def _before_fork(self) -> None:
        self._tell("before_fork")
        # After the threads were asked to end, so that one that imports does nothing else afterwards.
        self.imports.before_fork(_IMPORT_SECONDS)
        with contextlib.suppress(Exception):
            self._hold_sigterm()

    def _hold_sigterm(self) -> None:
        # A child that was to die of it at once has our handler until it has come to its own hook below, and what Python
        # has noted of a signal by then it forgets. Blocked, it waits there. Other threads of the parent still hear it.
        if self._dies_of_sigterm() and signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            self._holding.add(threading.get_ident())  # first: a handler that runs when the mask changes may raise
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def _let_sigterm_come(self) -> None:
        thread = threading.get_ident()
        if thread in self._holding:
            self._holding.discard(thread)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    @staticmethod
    def _dies_of_sigterm() -> bool:
        current = signal.getsignal(signal.SIGTERM)
        return isinstance(current, _SigtermHandler) and current.before is signal.SIG_DFL

    def _after_fork_in_parent(self) -> None:
        with contextlib.suppress(Exception):
            self._let_sigterm_come()
        with contextlib.suppress(Exception):
            self.imports.after_fork_in_parent()
        self._tell("after_fork_in_parent")

    def _begin_in_child(self) -> None:
        self.imports.after_fork_in_child()
        self._forked = True
        if self._dies_of_sigterm():
            # Whoever made this child may count on its dying at once. A handler in Python only runs once a system call
            # ends, and one that begins just after the signal came does not: multiprocessing.Pool would wait for ever.
            self._unhook_sigterm()
        with contextlib.suppress(Exception):
            self._let_sigterm_come()
        self._holding.clear()
        self.lock = threading.Lock()  # a thread that is not in the child may have held it
        with contextlib.suppress(Exception):
            if self.claimant is not None:
                self.claimant.after_fork_in_child()
        self._tell("after_fork_in_child")

    def _tell(self, event: str) -> None:
        # Whatever fails in here must not reach a fork or the exit of the application.
        resident = self.resident
        if resident is not None:
            with contextlib.suppress(Exception):
                getattr(resident, event)()


class _SigtermHandler:
    """Tells the resident, then runs the handler that was there before. One object a chaining, each with its own."""

    def __init__(self, process: Process, before: Callable[[int, FrameType | None], object] | int) -> None:
        self._process = process
        self.before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # It runs between any two steps of the main thread: it raises nothing, and the log may be locked by that thread.
        with contextlib.suppress(Exception):
            resident = self._process.resident
            if resident is not None:
                resident.on_sigterm()
        if callable(self.before):
            self.before(number, frame)
            return
        try:
            self._process.die_of(number)
        except Exception:  # no thread could be started: the signal counts, and the last window is lost
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


# Signals, fork hooks and exit are the process's: the one object that stands for it.
THIS_PROCESS = Process()
