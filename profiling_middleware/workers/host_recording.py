"""One capture of several workers at once, as whoever asked for it sees it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from profiling_middleware.model import CaptureInfo, Profile, Trace
from profiling_middleware.pipeline import Pipeline, Request, Result
from profiling_middleware.recording import CaptureCancelled, Recording
from profiling_middleware.workers.call import Call
from profiling_middleware.workers.meeting import Meeting, Unreachable
from profiling_middleware.workers.merge import Part, merge_profiles, merge_traces, read_part
from profiling_middleware.workers.messages import Question, words
from profiling_middleware.workers.reactor import Reactor

_SHOWN = 20


class NoAnswer(Exception):  # noqa: N818 - it says what is the case
    """None of the workers that were asked had anything; the message says which and why."""


class HostRecording:
    """As a `Recording`: `result` gets the bytes; end it early, or cancel it, from any thread.

    A worker that ends meanwhile, or does not answer in time, costs its part only; `summary` names it.
    """

    def __init__(
        self,
        info: CaptureInfo,
        question: Question,
        request: Request,
        *,
        own: Recording | None,
        pid: int | None,
        reactor: Reactor,
        pipeline: Pipeline,
        open_meeting: Callable[[], Meeting],
        max_bytes: int,
        directory: Path | None,
        own_names: Collection[str],
        note: str,
        on_end: Callable[[HostRecording], object],
    ) -> None:
        """`own` is this process's part, if it has one; with `pid` that process is asked alone.

        `own_names` are the instances that this process is known by, and `note` belongs into the summary. `on_end` is
        told when all parts are there and handed to the pipeline, or never will be.
        """
        self.info, self.request = info, request
        self.result: Future[Result] = Future()
        self.result.set_running_or_notify_cancel()
        self._question, self._own, self._pid = question, own, pid
        self._reactor, self._pipeline, self._open_meeting = reactor, pipeline, open_meeting
        self._max_bytes, self._directory, self._on_end = max_bytes, directory, on_end
        self._own_names, self._note = own_names, note
        self._calls: list[Call] = []
        self._parts: list[Part] = []
        self._missing: dict[int, str] = {}
        self._begun = self._ended = False
        self._hurries: str | None = None
        self._lock = threading.Lock()

    @property
    def summary(self) -> str:
        """Whose parts are in it, such as `3 of 4 (missing: pid 123: ended)`; fit for a header."""
        with self._lock:
            parts, missing = list(self._parts), dict(self._missing)
        remarks = [f"missing: pid {pid}: {why}" for pid, why in sorted(missing.items())]
        remarks += [f"partial: pid {part.pid}: {part.partial}" for part in parts if part.partial]
        remarks += [self._note] if self._note else []
        more = [f"and {len(remarks) - _SHOWN} more"] if len(remarks) > _SHOWN else []
        listed = "; ".join((*remarks[:_SHOWN], *more))
        return f"{len(parts)} of {len(parts) + len(missing)}" + (f" ({listed})" if listed else "")

    def begin(self) -> None:
        """Asks all at once; this process's part has begun already."""
        self._reactor.call_soon(self._ask)
        if self._own is not None:
            self._own.result.add_done_callback(lambda _: self._reactor.call_soon(self._take_own))

    def end_early(self, reason: str) -> None:
        """Keeps what there is, marked partial with `reason`."""
        if self._own is not None:
            self._own.end_early(reason)
        self._reactor.call_soon(lambda: self._hurry(reason))

    def cancel(self) -> None:
        """Keeps nothing: nobody waits for it any more."""
        if self._own is not None:
            self._own.cancel()
        self._reactor.call_soon(self._cancel)

    def give_up(self) -> None:
        """Makes do with the parts that are there. On the reactor's thread."""
        self._begun = True
        for call in self._hung_up():
            self._lose(call.pid, "had not answered when this one stopped")
        self._finish()

    # -- on the reactor's thread -------------------------------------------------------------------------------

    def _ask(self) -> None:
        try:
            meeting = self._open_meeting()
        except OSError as error:
            self._begun = True
            self._lose(self._pid or 0, f"the workers' directory cannot be used: {error}")
            self._finish_if_complete()
            return
        try:
            for instance, pid in meeting.others(self._own_names).items():
                if self._pid in (None, pid):
                    self._call(meeting, instance, pid)
        finally:
            meeting.close()
        self._begun = True
        if self._hurries is not None:
            self._hurry(self._hurries)
        self._finish_if_complete()

    def _call(self, meeting: Meeting, instance: str, pid: int) -> None:
        try:
            connection = meeting.connect(instance)
        except Unreachable as error:
            self._lose(pid, str(error))
            return
        if connection is None:
            if pid == self._pid:
                self._lose(pid, "ended")
            return
        call = Call(
            self._reactor,
            connection,
            pid,
            instance,
            self._question,
            max_bytes=self._max_bytes,
            directory=self._directory,
            on_end=self._take,
        )
        self._calls.append(call)
        self._reactor.add(call)
        call.begin()

    def _take(self, call: Call, outcome: Part | str) -> None:
        self._calls.remove(call)
        if isinstance(outcome, Part):
            with self._lock:
                self._parts.append(outcome)
        else:
            self._lose(call.pid, outcome)
        self._finish_if_complete()

    def _take_own(self) -> None:
        own = self._own
        if own is None or self._ended:
            return
        self._own, pid = None, os.getpid()
        failure = own.result.exception(0)
        if failure is not None:
            self._lose(pid, f"failed ({type(failure).__name__})")
        else:
            artifact = own.result.result(0).artifact
            partial = words(artifact.info.partial or "")
            with self._lock:
                self._parts.insert(0, Part(pid=pid, instance=own.info.instance, body=artifact.body, partial=partial))
        self._finish_if_complete()

    def _hurry(self, reason: str) -> None:
        self._hurries = reason
        for call in list(self._calls):
            call.end_early(reason)

    def _cancel(self) -> None:
        if not self._ended:
            self._ended = True
            self._hung_up()
            self.result.set_exception(CaptureCancelled())
            self._on_end(self)

    def _hung_up(self) -> Iterable[Call]:
        calls, self._calls = self._calls, []
        for call in calls:
            self._reactor.remove(call)
        return calls

    def _lose(self, pid: int, why: str) -> None:
        with self._lock:
            self._missing[pid] = why

    def _finish_if_complete(self) -> None:
        if self._begun and not self._calls and self._own is None:
            self._finish()

    def _finish(self) -> None:
        if self._ended:
            return
        self._ended = True
        if not self._parts:
            self.result.set_exception(NoAnswer(f"no worker has answered: {self.summary}"))
        else:
            self._pipeline.submit_made(self.info, self._merged, self.request, self.result)
        self._on_end(self)

    # -- on the pipeline's thread ------------------------------------------------------------------------------

    def _merged(self) -> Profile | Trace:
        """Raises NoAnswer when no part can be read."""
        info = replace(self.info, partial=self._hurries)
        if info.kind == "trace":
            return merge_traces(info, self._parts, self._directory)
        profiles: list[tuple[int, Profile]] = []
        for part in list(self._parts):
            try:
                profile = read_part(part, info)
                if profiles and profile.sample_types != profiles[0][1].sample_types:
                    raise ValueError("counts something else")
            except (ValueError, OSError) as error:
                with self._lock, suppress(ValueError):
                    self._parts.remove(part)
                self._lose(part.pid, words(error))
            else:
                profiles.append((part.pid, profile))
        if not profiles:
            raise NoAnswer(f"no worker has answered: {self.summary}")
        return merge_profiles(info, profiles, [f"workers: {self.summary}"])
