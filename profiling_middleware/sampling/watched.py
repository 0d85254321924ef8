"""The threads under observation: found when they appear, forgotten when they end."""

from __future__ import annotations

import threading
from types import FrameType

from profiling_middleware.model import Frame, Reason, Stack, Thread
from profiling_middleware.sampling.clocks import ThreadClocks, native_thread_ids, native_thread_name
from profiling_middleware.sampling.estimated import EstimatedClocks
from profiling_middleware.stacks import StackTable

_NATIVE_LIST_NS = 1_000_000_000
_NATIVE_FRAME = Frame("<thread without Python>", "", 0, 0)
_NEW_FRAME = Frame("<not seen yet>", "", 0, 0)


class WatchedThread:
    """A thread and what is known of it since the last look."""

    __slots__ = (
        "carried_ns", "cpu_ns", "ident", "locks_ns", "native_id", "ran_ns", "reason", "since_ns", "stack", "thread"
    )  # fmt: skip

    def __init__(self, ident: int | None, native_id: int, name: str, cpu_ns: int, now: int, stack: Stack) -> None:
        self.ident = ident
        """Python's number of it; None for a thread that Python knows nothing of."""
        self.native_id = native_id
        self.thread = Thread(name, native_id)
        self.cpu_ns = cpu_ns
        self.stack = stack
        self.since_ns = now
        """Until when its elapsed time has been handed out."""
        self.locks_ns = 0
        """What has been handed out of its waits for measured locks."""
        self.carried_ns = 0
        """CPU time that has no stack yet."""
        self.ran_ns = now
        self.reason = Reason.UNKNOWN
        """Why it waited when it was seen last."""


class WatchedThreads:
    """All threads of the process but the one that looks."""

    def __init__(self, clocks: ThreadClocks | EstimatedClocks, stacks: StackTable) -> None:
        self._clocks = clocks
        self._stacks = stacks
        self._by_native_id: dict[int, WatchedThread] = {}
        self._by_ident: dict[int, WatchedThread] = {}
        self._natives_listed_ns = 0

    def all(self) -> list[WatchedThread]:
        """Those known now; the list may be changed."""
        return list(self._by_native_id.values())

    def spent_ns(self, watched: WatchedThread) -> int | None:
        """CPU time since the last time this was asked, None when the thread has ended."""
        cpu = self._clocks.cpu_ns(watched.native_id)
        if cpu is None or cpu < watched.cpu_ns:
            return None
        spent = cpu - watched.cpu_ns
        watched.cpu_ns = cpu
        return spent

    def discover(self, frames: dict[int, FrameType], since: int) -> list[tuple[WatchedThread, int]]:
        """Watches the threads that are new among these, and returns them with what they ran since they were born."""
        own = threading.get_ident()
        new = [ident for ident in frames if ident not in self._by_ident and ident != own]
        found = [self._watch(ident, frames[ident], since) for ident in new]
        return [pair for pair in found if pair is not None]

    def find_natives(self, now: int) -> None:
        """Watches the threads that have no Python; looked for once a second, because the list costs a system call."""
        if self._natives_listed_ns and now - self._natives_listed_ns < _NATIVE_LIST_NS:
            return
        self._natives_listed_ns = now
        own = threading.get_native_id()
        for native_id in native_thread_ids():
            if native_id not in self._by_native_id and native_id != own:
                cpu = self._clocks.cpu_ns(native_id)
                if cpu is not None:
                    stack = self._stacks.intern((_NATIVE_FRAME,))
                    name = native_thread_name(native_id)
                    self._by_native_id[native_id] = WatchedThread(None, native_id, name, cpu, now, stack)

    def forget(self, watched: WatchedThread) -> None:
        """The thread has ended; another one may have its ident already."""
        if watched.ident is not None and self._by_ident.get(watched.ident) is watched:
            del self._by_ident[watched.ident]
        self._by_native_id.pop(watched.native_id, None)

    def clear(self) -> None:
        """Forgets all."""
        self._by_native_id.clear()
        self._by_ident.clear()
        self._natives_listed_ns = 0

    def _watch(self, ident: int, frame: FrameType, since: int) -> tuple[WatchedThread, int] | None:
        native_id = self._clocks.native_id(ident)
        cpu = self._clocks.cpu_ns(native_id) if native_id is not None else None
        if native_id is None or cpu is None:
            return None
        known = getattr(threading, "_active", {}).get(ident)
        name = known.name if known is not None else native_thread_name(native_id)
        stack = self._stacks.take(frame) or self._stacks.intern((_NEW_FRAME,))
        # It may have been watched as one without Python before it took its first step there.
        native = self._by_native_id.get(native_id)
        watched = WatchedThread(ident, native_id, name, cpu, since, stack)
        self._by_native_id[native_id] = self._by_ident[ident] = watched
        return watched, cpu - (native.cpu_ns if native is not None else 0)
