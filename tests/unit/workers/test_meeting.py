"""Where workers find one another."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.private_directory import NotPrivate
from profiling_middleware.workers.credentials import is_same_user, peer_uid
from profiling_middleware.workers.meeting import Meeting, Unreachable, Worker, meeting_name

ME = Worker(pid=7, instance="web-7-0a1b2c3d", enabled=True, started_ns=5)
OTHER = "web-8-0a1b2c3d"


@pytest.fixture
def meeting(settings: Settings) -> Iterator[Meeting]:
    meeting = Meeting(settings)
    yield meeting
    meeting.close()


@pytest.fixture
def listening(meeting: Meeting) -> Iterator[socket.socket]:
    with meeting.listen(ME) as listening:
        yield listening


def names(settings: Settings) -> list[str]:
    assert settings.spool_dir is not None
    return sorted(path.name for path in settings.spool_dir.glob("*/*"))


def test_who_listens_is_found_and_reached(meeting: Meeting, listening: socket.socket) -> None:
    assert meeting.workers({OTHER}) == [ME]
    assert meeting.others({ME.instance}) == {}
    while (probe := meeting.accept(listening)) is not None:
        probe.close()
    connection = meeting.connect(ME.instance)
    assert connection is not None
    accepted = meeting.accept(listening)
    assert accepted is not None
    accepted.send(b"here")

    assert connection.recv(10) == b"here"
    connection.close()
    accepted.close()


def test_it_is_the_users_alone(meeting: Meeting, listening: socket.socket, settings: Settings) -> None:
    assert settings.spool_dir is not None
    (directory,) = settings.spool_dir.iterdir()

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not listening.get_inheritable()
    meeting.close()
    directory.chmod(0o755)
    with pytest.raises(NotPrivate):
        Meeting(settings)


def test_what_a_dead_worker_has_left_is_removed(meeting: Meeting, listening: socket.socket, settings: Settings) -> None:
    assert names(settings) == [f"{ME.instance}.json", f"{ME.instance}.sock"]
    listening.close()

    assert meeting.others({OTHER}) == {ME.instance: ME.pid}
    assert meeting.workers({OTHER}) == []
    assert names(settings) == []
    assert meeting.connect(ME.instance) is None


def test_who_leaves_leaves_nothing(meeting: Meeting, listening: socket.socket, settings: Settings) -> None:
    meeting.stay(ME.instance)
    meeting.leave(ME.instance)
    meeting.leave(ME.instance)

    assert names(settings) == []
    with pytest.raises(FileNotFoundError):
        meeting.stay(ME.instance)


def test_names_of_other_things_are_nobodys(
    meeting: Meeting, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.spool_dir is not None
    (directory,) = settings.spool_dir.iterdir()
    monkeypatch.chdir(directory)
    Path("web-9-0a1b2c3d.sock").write_text("no socket")
    for name in ("other.sock", "web-9-0a1b2c3d.new", "web-x-0a1b2c3d.sock"):
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(name)

    assert meeting.others({OTHER}) == {}


@pytest.mark.parametrize("card", [b"", b"[]", b"{", b'{"enabled": 1, "started_ns": "x"}'])
def test_a_card_that_cannot_be_read_says_nothing(
    meeting: Meeting, listening: socket.socket, settings: Settings, card: bytes
) -> None:
    assert settings.spool_dir is not None
    (path,) = settings.spool_dir.glob("*/*.json")
    path.write_bytes(card)

    assert meeting.workers({OTHER}) == [replace(ME, enabled=False, started_ns=None)]


def test_another_user_is_neither_answered_nor_asked(settings: Settings, listening: socket.socket) -> None:
    wary = Meeting(settings, same_user=lambda connection: False)
    with pytest.raises(Unreachable, match="another user"):
        wary.connect(ME.instance)
    with pytest.raises(Unreachable, match="another user"):
        wary.connect(ME.instance)
    assert wary.accept(listening) is None
    assert wary.workers({OTHER}) == []
    wary.close()


def test_the_kernel_says_who_is_at_the_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair()
    assert peer_uid(one) == os.geteuid()
    assert is_same_user(one)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert not is_same_user(other)
    one.close()
    other.close()


def test_one_that_accepts_nothing_is_unreachable_and_not_dead(
    meeting: Meeting, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiling_middleware.workers.meeting._BACKLOG", 0)
    with meeting.listen(ME):
        first = meeting.connect(ME.instance)
        with pytest.raises(Unreachable, match="accepts no connections"):
            meeting.connect(ME.instance)
        assert first is not None
        first.close()
        assert names(settings) == [f"{ME.instance}.json", f"{ME.instance}.sock"]


def test_a_path_may_be_longer_than_the_address_of_a_socket(settings: Settings, tmp_path: Path) -> None:
    deep = Meeting(replace(settings, spool_dir=tmp_path / ("d" * 120)))
    with deep.listen(ME):
        assert deep.workers({OTHER}) == [ME]
    deep.close()


def test_services_that_differ_in_what_matters_do_not_meet(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "tell-nobody"
    others = [
        replace(settings, service_name="other"),
        replace(settings, token=token),
        replace(settings, environment="dev"),
        replace(settings, store="file:///elsewhere"),
        replace(settings, bucket="elsewhere"),
    ]
    found = {meeting_name(each) for each in (settings, *others)}

    assert len(found) == 6
    assert not any(token in name for name in found)
    assert meeting_name(replace(settings, enabled=True)) == meeting_name(settings)


def test_a_service_without_a_name_is_that_of_its_directory(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = meeting_name(Settings()), meeting_name(settings)
    monkeypatch.chdir(tmp_path)
    there = meeting_name(Settings()), meeting_name(settings)

    assert here[0] != there[0]
    assert here[1] == there[1]
