"""This process among the workers of its service on this host."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial

from profiling_middleware.config import Settings
from profiling_middleware.keys import new_capture_id
from profiling_middleware.model import CaptureInfo
from profiling_middleware.pipeline import Pipeline, Request
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.recorder import MAX_ON_DEMAND
from profiling_middleware.recording import Recording, TooManyCaptures
from profiling_middleware.workers.host_recording import HostRecording
from profiling_middleware.workers.listener import Listener, Take, Visits
from profiling_middleware.workers.meeting import Meeting, Worker
from profiling_middleware.workers.messages import Question
from profiling_middleware.workers.reactor import Reactor

_LEAVE_SECONDS = 0.5
_UNHEARD = "those that do not listen are not in it: PROFILE_ENABLED"


class NoSuchWorker(Exception):  # noqa: N818 - it says what is the case
    """No worker of the service has this process id; the message names those that there are."""


class Workers:
    """Listens, so that others reach this process, and asks others. Nothing is open and no thread runs before either."""

    def __init__(self, settings: Settings, instance: str, pipeline: Pipeline, take: Take) -> None:
        """`take` begins the capture that another worker wants."""
        self._settings, self._instance, self._pipeline, self._take = settings, instance, pipeline, take
        self._reactor = Reactor(settings.logger)
        self._visits = Visits(self._reactor, self._take_for_another, settings.logger)
        self._listener: Listener | None = None
        self._asking: list[HostRecording] = []
        self._changed = threading.Condition()
        self._wanted = self._ends = False

    def listen(self, *, enabled: bool) -> None:
        """From now on others can reach this process; `enabled` is whether it captures periodically."""
        if THIS_PROCESS.aliases:  # they reach it by its door, and would find it twice
            self._tell_by_door(enabled=enabled)
            return
        self._wanted = True
        me = Worker(pid=os.getpid(), instance=self._instance, enabled=enabled, started_ns=time.time_ns())
        self._reactor.call_soon(partial(self._listen, me))

    def stop_listening(self) -> None:
        """Nobody reaches this process any more until it listens again; who has is answered still."""
        if THIS_PROCESS.aliases:
            self._tell_by_door(enabled=False)
        self._wanted = False
        self._reactor.call_soon(self._stop_listening)

    @property
    def since_ns(self) -> int | None:
        """Since when it listens, in nanoseconds since 1970; None when it does not."""
        return self._listener.since_ns if self._listener is not None and not self._ends else None

    def welcome(self, connection: socket.socket) -> None:
        """Answers another worker that has come in another way."""
        self._reactor.call_soon(lambda: self._visits.begin(connection))

    def others(self) -> list[Worker]:
        """The other workers that listen, by process id. Raises OSError."""
        meeting = self._open_meeting()
        try:
            return meeting.workers(self._own_names)
        finally:
            meeting.close()

    def ask(self, question: Question, request: Request, own: Recording | None, pid: int | None) -> HostRecording:
        """Asks all others, or the one of `pid`, for what `own`, the part of this process, is as well.

        Raises NoSuchWorker and TooManyCaptures.
        """
        if pid is not None and own is None:
            self._check(pid)
        info = self._info(question.kind) if own is None else replace(own.info, capture_id=new_capture_id())
        recording = HostRecording(
            info,
            question,
            request,
            own=own,
            pid=pid,
            reactor=self._reactor,
            pipeline=self._pipeline,
            open_meeting=self._open_meeting,
            max_bytes=self._settings.spool_max_bytes,
            directory=self._settings.spool_dir,
            own_names=self._own_names,
            note=_UNHEARD if pid is None and not (self._wanted or THIS_PROCESS.aliases) else "",
            on_end=self._forget,
        )
        with self._changed:
            if len(self._asking) >= MAX_ON_DEMAND:
                raise TooManyCaptures(f"{MAX_ON_DEMAND} captures of several workers are running")
            self._asking.append(recording)
        recording.begin()
        return recording

    def end_all(self, reason: str) -> None:
        """Ends what this process has asked others for, marked partial. From any thread."""
        for recording in list(self._asking):
            recording.end_early(reason)

    def leave(self) -> None:
        """Nobody reaches this process any more; who has is answered still."""
        self._ends = True
        left = threading.Event()

        def leave() -> None:
            if self._listener is not None:
                self._listener.leave()
            left.set()

        if self._wanted:
            self._reactor.call_soon(leave)
            left.wait(_LEAVE_SECONDS)

    def finish(self, timeout: float) -> bool:
        """Waits until others have what they asked for, and what was asked of them is in the pipeline.

        After `timeout` seconds it makes do with what there is. Whether anything was asked of others.
        """
        asked = bool(self._asking)
        deadline = time.monotonic() + timeout
        with self._changed:
            self._changed.wait_for(lambda: not self._asking, max(0.0, deadline - time.monotonic()))
        for recording in list(self._asking):
            self._reactor.call_soon(recording.give_up)
        answered = self._visits.wait_until_over(max(0.0, deadline - time.monotonic()))
        if asked or self._wanted or not answered:
            self._reactor.close()
        return asked

    def pause(self, timeout: float) -> None:
        """Before a fork; see `Reactor.pause`."""
        self._reactor.pause(timeout)

    def resume(self) -> None:
        """After a fork, in the parent."""
        self._reactor.resume()

    def abandon(self) -> None:
        """In a forked child: closes its copies of the parent's sockets; the files stay, they are the parent's."""
        self._reactor.abandon()

    def _tell_by_door(self, *, enabled: bool) -> None:
        since_ns = time.time_ns() if enabled else None
        with suppress(OSError):  # it is only what others are shown
            meeting = self._open_meeting()
            try:
                for instance in THIS_PROCESS.aliases:
                    meeting.tell(Worker(pid=os.getpid(), instance=instance, enabled=enabled, started_ns=since_ns))
            finally:
                meeting.close()

    def _listen(self, me: Worker) -> None:
        if self._listener is not None or self._ends:
            return
        try:
            self._listener = Listener(self._reactor, self._open_meeting(), me, self._visits)
        except OSError as error:
            self._settings.logger.warning("profiling: other workers cannot reach this one: %s", error)
        else:
            self._reactor.add(self._listener)
            # Finds, by the way, those that have been killed, and removes what they left: else that would grow.
            with suppress(OSError):
                self.others()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.leave()

    def _take_for_another(self, question: Question) -> Recording:
        if self._ends:
            raise RuntimeError("stops")
        return self._take(question)

    def _open_meeting(self) -> Meeting:
        return Meeting(self._settings)

    @property
    def _own_names(self) -> Collection[str]:
        return {self._instance, *THIS_PROCESS.aliases}

    def _check(self, pid: int) -> None:
        there = [worker.pid for worker in self.others()]
        if pid not in there:
            pids = ", ".join(map(str, sorted((*there, os.getpid()))))
            raise NoSuchWorker(f"no worker of this service that can be reached has pid {pid}: there are {pids}")

    def _info(self, kind: str) -> CaptureInfo:
        return CaptureInfo(
            kind=kind,
            service=self._settings.service_name,
            instance=self._instance,
            capture_id=new_capture_id(),
            started_ns=time.time_ns(),
            trigger="on demand",
        )

    def _forget(self, recording: HostRecording) -> None:
        with self._changed:
            self._asking.remove(recording)
            self._changed.notify_all()
