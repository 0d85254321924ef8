"""A capture as a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.model import Artifact, CaptureInfo
from profiling_middleware.private_file import PrivateFile
from profiling_middleware.waiting.capture_file import Damaged, read_capture, size_of, write_capture

MakeArtifact = Callable[..., Artifact]


def written(path: Path, artifact: Artifact) -> Path:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    write_capture(descriptor, artifact)
    os.close(descriptor)
    return path


def read(path: Path) -> Artifact:
    return read_capture(os.open(path, os.O_RDWR))


def test_what_was_written_is_read(tmp_path: Path, make_artifact: MakeArtifact) -> None:
    artifact = make_artifact(1, size=1000)
    artifact = replace(artifact, info=replace(artifact.info, partial="the service stopped: ü"))

    again = read(written(tmp_path / "one", artifact))

    assert (again.info, again.key, again.own_key) == (artifact.info, artifact.key, artifact.own_key)
    assert again.read() == artifact.body
    assert len(again.body) == 1000


def test_its_size_is_known_before(tmp_path: Path, make_artifact: MakeArtifact) -> None:
    artifact = make_artifact(1, size=1000)

    assert written(tmp_path / "one", artifact).stat().st_size == size_of(artifact)


def test_a_body_in_a_file_is_written_too(tmp_path: Path, make_artifact: MakeArtifact) -> None:
    body = PrivateFile(tmp_path)
    body.append(os.urandom(700_000))
    artifact = replace(make_artifact(1), body=body)

    assert read(written(tmp_path / "one", artifact)).read() == body.read()


def test_the_body_closes_the_descriptor(tmp_path: Path, make_artifact: MakeArtifact) -> None:
    descriptor = os.open(written(tmp_path / "one", make_artifact(1)), os.O_RDWR)

    artifact = read_capture(descriptor)
    del artifact

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_cut_off_at_any_byte_it_is_no_capture(tmp_path: Path, make_artifact: MakeArtifact) -> None:
    path = written(tmp_path / "one", make_artifact(1, size=100))
    whole = path.read_bytes()

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        descriptor = os.open(path, os.O_RDWR)
        with pytest.raises(Damaged):
            read_capture(descriptor)
        os.close(descriptor)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_no_capture(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(Damaged):
            read_capture(descriptor)
    finally:
        os.close(descriptor)


def test_a_field_of_another_version_is_damage_and_no_error(
    tmp_path: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "one", make_artifact(1))
    monkeypatch.setattr(CaptureInfo, "__init__", lambda self, *, kind: None)

    descriptor = os.open(path, os.O_RDWR)
    with pytest.raises(Damaged):
        read_capture(descriptor)
    os.close(descriptor)
