"""The socket of a process whose profiling is off, with the loops that servers have."""

from __future__ import annotations

import asyncio
import selectors
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware import ProfilingMiddleware
from profiling_middleware.config import Settings
from profiling_middleware.middleware import door as door_module
from profiling_middleware.middleware.door import Door, may_be_asked
from profiling_middleware.middleware.gunicorn import post_worker_init
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler
from profiling_middleware.threads import OwnThread
from profiling_middleware.workers.meeting import Meeting

DEADLINE = 10.0


class Selecting:
    """A server that waits with a selector, as a test has it do so."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def watch(self, descriptor: int, on_readable: Callable[[], object]) -> None:
        self.selector.register(descriptor, selectors.EVENT_READ, on_readable)

    def unwatch(self, descriptor: int) -> None:
        self.selector.unregister(descriptor)

    def turn(self) -> None:
        """Waits until something is to be done, and does it."""
        ready = self.selector.select(DEADLINE)
        assert ready
        for key, _ in ready:
            key.data()

    @property
    def watched(self) -> int:
        return len(self.selector.get_map())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(environment="dev", service_name="watcher", spool_dir=tmp_path / "spool")


@pytest.fixture
def server() -> Iterator[Selecting]:
    server = Selecting()
    yield server
    server.selector.close()


@pytest.fixture
def welcomed() -> list[socket.socket]:
    return []


@pytest.fixture
def door(settings: Settings, server: Selecting, welcomed: list[socket.socket]) -> Iterator[Door]:
    door = Door(settings, server, welcomed.append)
    yield door
    door.close()
    for connection in welcomed:
        connection.close()


def come(settings: Settings, door: Door) -> socket.socket:
    meeting = Meeting(settings)
    connection = meeting.connect(door.instance)
    meeting.close()
    assert connection is not None
    return connection


def join_threads() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("profiling-"):
            thread.join(DEADLINE)


def test_who_has_a_question_is_welcomed(
    settings: Settings, door: Door, server: Selecting, welcomed: list[socket.socket]
) -> None:
    with come(settings, door) as visitor:
        server.turn()
        assert welcomed == []
        visitor.send(b"question")
        server.turn()
        join_threads()
        (connection,) = welcomed

        assert connection.recv(20) == b"question"
        assert server.watched == 1


def test_who_only_looks_whether_it_lives_is_not(
    settings: Settings, door: Door, server: Selecting, welcomed: list[socket.socket]
) -> None:
    meeting = Meeting(settings)
    (worker,) = meeting.workers(())
    meeting.close()
    server.turn()
    server.turn()

    assert (worker.instance, worker.enabled, worker.started_ns) == (door.instance, False, None)
    assert welcomed == []
    assert server.watched == 1
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-")] == []


def test_of_those_who_say_nothing_only_so_many_are_kept(
    settings: Settings, door: Door, server: Selecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "_MAX_WAITING", 1)
    with come(settings, door) as first, come(settings, door) as second:
        server.turn()
        server.turn()
        first.setblocking(True)

        assert first.recv(1) == b""
        assert server.watched == 2
        with pytest.raises(BlockingIOError):
            second.recv(1)


def test_one_that_is_let_go_in_the_moment_in_which_it_speaks_is_no_failure(
    settings: Settings, door: Door, server: Selecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The selector has told of both: of who comes and of who has spoken."""
    monkeypatch.setattr(door_module, "_MAX_WAITING", 1)
    with come(settings, door) as first:
        server.turn()
        first.send(b"question")
        with come(settings, door):
            ready = [key.data for key, _ in server.selector.select(DEADLINE)]
            assert len(ready) == 2
            for act in sorted(ready, key=lambda act: act != door._accept):
                act()
            assert server.watched == 2


def test_without_a_descriptor_it_closes_and_the_servers_loop_goes_on(
    settings: Settings, door: Door, server: Selecting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(meeting: Meeting, listening: socket.socket) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Meeting, "accept", refused)
    with come(settings, door):
        server.turn()

    assert server.watched == 0
    assert "other workers cannot reach this one any more: [Errno 24] Too many open files" in caplog.text


def test_without_a_thread_there_is_no_answer_and_the_servers_loop_goes_on(
    settings: Settings, door: Door, server: Selecting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(OwnThread, "start", refused)
    with come(settings, door) as visitor:
        server.turn()
        visitor.send(b"question")
        server.turn()
        visitor.setblocking(True)

        with pytest.raises(ConnectionResetError):
            visitor.recv(1)
        assert server.watched == 1
    assert "another worker got no answer: can't start new thread" in caplog.text


def test_closed_it_leaves_nothing(settings: Settings, door: Door, server: Selecting, tmp_path: Path) -> None:
    with come(settings, door) as visitor:
        server.turn()
        door.close()
        door.close()
        visitor.setblocking(True)

        assert visitor.recv(1) == b""
    assert server.watched == 0
    assert list(tmp_path.glob("spool/*/*")) == []


@pytest.mark.parametrize(
    ("changes", "may"),
    [({}, False), ({"environment": "prod"}, False), ({"environment": "dev"}, True), ({"token": "tell-nobody"}, True)],
)
def test_where_nobody_may_ask_there_is_none(changes: dict[str, Any], may: bool) -> None:
    assert may_be_asked(Settings(**changes)) == may


def test_a_child_does_not_hold_it(run_python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    program = """
import os, selectors, sys
from pathlib import Path
from profiling_middleware import Settings
from profiling_middleware.middleware.door import Door

class Server:
    def watch(self, descriptor, on_readable): pass
    def unwatch(self, descriptor): pass

def sockets():
    links = []
    for name in os.listdir("/proc/self/fd"):
        if os.path.lexists(f"/proc/self/fd/{name}"):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum(link.startswith("socket:") or link.endswith(".workers") for link in links)

door = Door(Settings(environment="dev", spool_dir=Path(sys.argv[1])), Server(), print)
before = sockets()
child = os.fork()
if not child:
    os._exit(sockets())
print(before, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sockets())
door.close()
print(sockets())
"""
    ran = run_python(program, str(tmp_path / "spool"))

    assert (ran.stdout, ran.stderr) == ("2 0 2\n0\n", "")


# -- the middlewares --------------------------------------------------------------------------------------------------


async def live(app: Any, during: Callable[[], Any]) -> Any:
    """One life of an application, in whose middle `during` is run on a thread."""
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    life = asyncio.ensure_future(app({"type": "lifespan"}, received.get, sent.put))
    await received.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    answer = await asyncio.to_thread(during)
    await received.put({"type": "lifespan.shutdown"})
    assert (await sent.get())["type"] == "lifespan.shutdown.complete"
    await life
    return answer


async def application(scope: Any, receive: Any, send: Any) -> None:
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


@pytest.fixture
def other(settings: Settings) -> Iterator[Profiler]:
    """The profiler of what would be another process."""
    profiler = Profiler(settings)
    yield profiler
    profiler.stop()


def of_another(other: Profiler) -> str:
    """A capture that another worker takes of the one in this process."""
    THIS_PROCESS.aliases.clear()
    (worker,) = other._parts.workers.others()
    resident = THIS_PROCESS.resident
    THIS_PROCESS.resident = None  # both would live in one process
    assert resident is other or resident is None
    recording = other._parts.workers.ask(_question(), _request(), None, worker.pid)
    recording.result.result(DEADLINE)
    return recording.summary


def _question() -> Any:
    from profiling_middleware.workers.messages import Question

    return Question(kind="cpu", seconds=0.05)


def _request() -> Any:
    from profiling_middleware.pipeline import Request

    return Request(upload=False, own_key_only=True)


@pytest.mark.usefixtures("service_has_ended")
def test_under_asgi_it_is_reached_by_the_event_loop_and_without_a_thread(settings: Settings, other: Profiler) -> None:
    names: list[str] = []

    def during() -> str:
        names.extend(thread.name for thread in threading.enumerate())
        return of_another(other)

    assert asyncio.run(live(ProfilingMiddleware(application, settings=settings), during)) == "1 of 1"
    assert [name for name in names if name.startswith("profiling-")] == []
    assert other._parts.workers.others() == []


@pytest.mark.usefixtures("service_has_ended")
def test_others_see_whether_it_has_been_switched_on(tmp_path: Path) -> None:
    settings = Settings(environment="dev", service_name="watcher", spool_dir=tmp_path, store=(tmp_path / "s").as_uri())
    seen: list[tuple[bool, bool]] = []

    def look(meeting: Meeting) -> None:
        seen.extend((worker.enabled, worker.started_ns is not None) for worker in meeting.workers(()))

    def during() -> None:
        meeting = Meeting(settings)
        look(meeting)
        profiler = Profiler.shared(settings)
        profiler.enable()
        look(meeting)
        profiler.disable()
        look(meeting)
        meeting.close()

    asyncio.run(live(ProfilingMiddleware(application, settings=settings), during))
    assert seen == [(False, False), (True, True), (False, False)]
    assert sorted(path.name for path in tmp_path.rglob("*.json*")) == []


@pytest.mark.usefixtures("service_has_ended")
def test_with_profiling_on_there_is_no_door(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Door, "__init__", lambda *_: pytest.fail("a door was opened"))
    on = Settings(environment="dev", enabled=True, store="file:///nowhere")
    asyncio.run(live(ProfilingMiddleware(application, settings=on), lambda: None))


def test_what_fails_does_not_reach_the_application(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (tmp_path / "file").write_text("in the way")
    settings = Settings(environment="dev", spool_dir=tmp_path / "file")
    asyncio.run(live(ProfilingMiddleware(application, settings=settings), lambda: None))

    assert "other workers cannot reach this one" in caplog.text


@pytest.mark.usefixtures("service_has_ended")
def test_gunicorns_hook_opens_it_where_the_worker_has_a_selector(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROFILE_ENVIRONMENT", "dev")
    monkeypatch.setenv("PROFILE_SPOOL_DIR", str(tmp_path / "spool"))
    doors: list[Door] = []
    original = Door.__init__

    def noting(door: Door, *arguments: Any) -> None:
        original(door, *arguments)
        doors.append(door)

    monkeypatch.setattr(Door, "__init__", noting)
    with selectors.DefaultSelector() as selector:
        post_worker_init(type("ThreadWorker", (), {"poller": selector})())
        (key,) = selector.get_map().values()
        key.data(key.fileobj)  # as gunicorn calls it; nobody has come
        (door,) = doors
        assert {door.instance} == THIS_PROCESS.aliases
        door.close()
    assert set() == THIS_PROCESS.aliases


@pytest.mark.usefixtures("service_has_ended")
def test_gunicorns_hook_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILE_ENVIRONMENT", "dev")
    post_worker_init(object())

    assert set() == THIS_PROCESS.aliases
