"""Workers of one service in one process, with captures that end when a test says so."""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.encoders.pprof import encode_pprof
from profiling_middleware.keys import own_key
from profiling_middleware.model import Artifact, Body, CaptureInfo, Profile
from profiling_middleware.pipeline import Pipeline, Request, Result
from profiling_middleware.recording import CaptureCancelled, Recording
from profiling_middleware.workers.here import Workers
from profiling_middleware.workers.host_recording import HostRecording
from profiling_middleware.workers.messages import Question

DEADLINE = 10.0
UNTIL_TOLD = Question(kind="cpu", seconds=1.0)
REQUEST = Request(upload=False, own_key_only=True)


@dataclass
class ManualRecording:
    """A capture of one worker that ends when it is told to."""

    info: CaptureInfo
    body: Body
    result: Future[Result] = field(default_factory=Future)
    ended_early: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def end(self, partial: str | None = None) -> None:
        info = replace(self.info, partial=partial)
        key = own_key(info)
        self.result.set_result(Result(artifact=Artifact(info=info, key=key, own_key=key, body=self.body)))

    def end_early(self, reason: str) -> None:
        self.ended_early.append(reason)
        self.end(reason)

    def cancel(self) -> None:
        self.cancelled.set()
        self.result.set_exception(CaptureCancelled())


class OneWorker:
    """One worker and what it was asked for."""

    def __init__(self, pid: int, settings: Settings, make_body: Callable[[CaptureInfo], Body]) -> None:
        self.pid, self.instance = pid, f"web-{pid}-0a1b2c3d"
        self.questions: list[Question] = []
        self.recordings: list[ManualRecording] = []
        self.refusal: Exception | None = None
        self._changed = threading.Condition()
        self._settings, self._make_body = settings, make_body
        self.pipeline = Pipeline(None, settings.logger)
        self.workers = Workers(settings, self.instance, self.pipeline, self._take)

    def record(self) -> ManualRecording:
        """Begins a capture of its own."""
        info = CaptureInfo(
            kind="cpu",
            service="watcher",
            instance=self.instance,
            capture_id=f"{self.pid:016x}",
            started_ns=1_769_441_400_000_000_000 + self.pid,
            trigger="on demand",
        )
        return ManualRecording(info, self._make_body(info))

    def ask(
        self, own: ManualRecording | None, pid: int | None = None, question: Question = UNTIL_TOLD
    ) -> HostRecording:
        return self.workers.ask(question, REQUEST, cast(Recording | None, own), pid)

    def asked(self, count: int = 1) -> ManualRecording:
        """The capture that another one has asked it for."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.recordings) >= count, DEADLINE)
        return self.recordings[count - 1]

    def _take(self, question: Question) -> Recording:
        with self._changed:
            self.questions.append(question)
            if self.refusal is not None:
                raise self.refusal
            self.recordings.append(self.record())
            self._changed.notify_all()
        return cast(Recording, self.recordings[-1])


@pytest.fixture
def settings(tmp_path: Path, logger: logging.Logger) -> Settings:
    return Settings(service_name="watcher", spool_dir=tmp_path / "spool", logger=logger)


@pytest.fixture
def bodies(make_profile: Callable[..., Profile]) -> Callable[[CaptureInfo], Body]:
    return lambda info: gzip.compress(b"".join(encode_pprof(make_profile(info=info))), 0)


MakeWorker = Callable[..., OneWorker]


@pytest.fixture
def make_worker(settings: Settings, bodies: Callable[[CaptureInfo], Body]) -> Iterator[MakeWorker]:
    """A worker with a made-up process id, which listens and can be asked when this returns."""
    made: list[OneWorker] = []

    def make(pid: int, *, listens: bool = True, settings: Settings = settings, **changes: Any) -> OneWorker:
        worker = OneWorker(pid, replace(settings, **changes), bodies)
        made.append(worker)
        if listens:
            worker.workers.listen(enabled=True)
            wait_until(lambda: worker.workers.since_ns is not None)
        return worker

    yield make
    for worker in made:
        worker.workers.leave()
        worker.workers.finish(0.0)


def wait_until(true: Callable[[], object]) -> None:
    """Returns once it is true."""
    pause = threading.Event()
    for _ in range(int(DEADLINE / 0.002)):
        if true():
            return
        pause.wait(0.002)
    raise AssertionError("it did not become true")
