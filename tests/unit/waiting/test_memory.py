"""What the spool cannot take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from profiling_middleware.model import Artifact
from profiling_middleware.private_file import PrivateFile
from profiling_middleware.waiting.memory import MAX_BYTES, Memory

MakeArtifact = Callable[..., Artifact]


@pytest.fixture
def memory() -> Memory:
    return Memory(max_bytes=100, max_file_bytes=300)


def in_file(artifact: Artifact, directory: Path) -> Artifact:
    body = PrivateFile(directory)
    body.append(artifact.read())
    return replace(artifact, body=body)


def test_sixteen_mebibytes_may_wait() -> None:
    assert MAX_BYTES == 16 * 1024 * 1024


def test_the_oldest_by_time_makes_room(memory: Memory, make_artifact: MakeArtifact) -> None:
    newest, oldest, middle = (make_artifact(number, size=40) for number in (3, 1, 2))
    assert memory.add(newest) == memory.add(oldest) == []

    assert memory.add(middle) == [oldest]


def test_exactly_full_is_not_too_full(memory: Memory, make_artifact: MakeArtifact) -> None:
    memory.add(make_artifact(1, size=50))

    assert memory.add(make_artifact(2, size=50)) == []


def test_one_too_big_is_dropped_itself(memory: Memory, make_artifact: MakeArtifact) -> None:
    memory.add(make_artifact(1, size=50))
    big = make_artifact(2, size=101)

    assert memory.add(big) == [big]
    assert memory.add(make_artifact(3, size=50)) == []


def test_what_found_no_room_on_disk_counts_where_it_is(
    memory: Memory, make_artifact: MakeArtifact, tmp_path: Path
) -> None:
    def ending_in_memory(number: int, size: int, rest: int) -> Artifact:
        artifact = in_file(make_artifact(number, size=size), tmp_path)
        assert isinstance(artifact.body, PrivateFile)
        artifact.body.end_with(b"x" * rest)
        return artifact

    too_big = ending_in_memory(1, 10, 101)
    assert memory.add(too_big) == [too_big]
    first, second = ending_in_memory(1, 150, 60), ending_in_memory(2, 150, 40)
    assert memory.add(first) == memory.add(second) == []
    assert memory.add(make_artifact(3, size=1)) == [first]
    assert memory.add(ending_in_memory(4, 150, 1)) == []
    assert memory.add(ending_in_memory(5, 1, 0)) == [second]


def test_what_is_being_put_stays_until_it_is_put_back(memory: Memory, make_artifact: MakeArtifact) -> None:
    going, second = make_artifact(1, size=50), make_artifact(2, size=50)
    memory.add(going)
    memory.add(second)

    assert memory.add(make_artifact(3, size=50), going.info.capture_id) == []
    assert memory.add(make_artifact(4, size=50), going.info.capture_id) == [second]
    assert memory.trim() == [going]


def test_files_have_a_bound_of_their_own(memory: Memory, make_artifact: MakeArtifact, tmp_path: Path) -> None:
    first, second = (in_file(make_artifact(number, size=200), tmp_path) for number in (1, 2))
    small = make_artifact(0, size=100)
    assert memory.add(small) == memory.add(first) == []

    assert memory.add(second) == [first]


def test_what_is_removed_makes_room(memory: Memory, make_artifact: MakeArtifact) -> None:
    first = make_artifact(1, size=100)
    memory.add(first)

    memory.remove(first.info.capture_id)

    assert memory.add(make_artifact(2, size=100)) == []
