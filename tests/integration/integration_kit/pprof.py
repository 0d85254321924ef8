"""Reads profile.proto with Google's own protobuf library, which knows nothing of how it was written.

Field numbers: https://github.com/google/pprof/blob/main/proto/profile.proto
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_INT64, _UINT64, _BOOL, _STRING, _MESSAGE = 3, 4, 8, 9, 11
_ONE, _MANY = 1, 3

_MESSAGES: dict[str, list[tuple[str, int, int | str, int]]] = {
    "ValueType": [("type", 1, _INT64, _ONE), ("unit", 2, _INT64, _ONE)],
    "Label": [("key", 1, _INT64, _ONE), ("str", 2, _INT64, _ONE), ("num", 3, _INT64, _ONE), ("num_unit", 4, _INT64, 1)],
    "Sample": [("location_id", 1, _UINT64, _MANY), ("value", 2, _INT64, _MANY), ("label", 3, "Label", _MANY)],
    "Line": [("function_id", 1, _UINT64, _ONE), ("line", 2, _INT64, _ONE)],
    "Mapping": [("id", 1, _UINT64, _ONE), ("filename", 5, _INT64, _ONE), ("build_id", 6, _INT64, _ONE)],
    "Location": [("id", 1, _UINT64, _ONE), ("mapping_id", 2, _UINT64, _ONE), ("line", 4, "Line", _MANY)],
    "Function": [("id", 1, _UINT64, _ONE), ("name", 2, _INT64, _ONE), ("filename", 4, _INT64, _ONE)],
    "Profile": [
        ("sample_type", 1, "ValueType", _MANY),
        ("sample", 2, "Sample", _MANY),
        ("mapping", 3, "Mapping", _MANY),
        ("location", 4, "Location", _MANY),
        ("function", 5, "Function", _MANY),
        ("string_table", 6, _STRING, _MANY),
        ("time_nanos", 9, _INT64, _ONE),
        ("duration_nanos", 10, _INT64, _ONE),
        ("comment", 13, _INT64, _MANY),
    ],
}


def _profile_class() -> type[Any]:
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package="read", syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind, label in fields:
            field = message.field.add(name=name, number=number, label=label)  # type: ignore[arg-type]
            if isinstance(kind, str):
                field.type = _MESSAGE  # type: ignore[assignment]
                field.type_name = f".read.{kind}"
            else:
                field.type = kind  # type: ignore[assignment]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("read.Profile"))


_Profile = _profile_class()


@dataclass(frozen=True, slots=True)
class ReadProfile:
    """One profile, as far as the tests ask for it."""

    sample_types: tuple[tuple[str, str], ...]
    time_ns: int
    duration_ns: int
    comments: tuple[str, ...]
    leaves: Counter[str]
    """Per function at the leaf of a stack: the last sample type's values."""
    threads: Counter[str]
    """The same per label `thread`."""
    processes: dict[int, Counter[str]]
    """The leaves per number label `pid`."""
    binaries: tuple[str, ...]
    """The file name of each mapping."""

    @property
    def started(self) -> datetime:
        return datetime.fromtimestamp(self.time_ns // 1_000_000_000, tz=UTC)

    @property
    def seconds(self) -> float:
        return self.duration_ns / 1e9

    @property
    def total(self) -> int:
        return self.leaves.total()

    @property
    def instance(self) -> str:
        return self._comment(r"instance: (\S+)")

    @property
    def capture_id(self) -> str:
        return self._comment(r"capture: ([0-9a-f]+) ")

    @property
    def partial(self) -> str | None:
        """Why it ended early; None when it did not."""
        return next((line.removeprefix("partial: ") for line in self.comments if line.startswith("partial: ")), None)

    def _comment(self, pattern: str) -> str:
        found = [match[1] for line in self.comments if (match := re.match(pattern, line))]
        assert len(found) == 1, self.comments
        return found[0]


def read_pprof(body: bytes) -> ReadProfile:
    """The profile in a gzipped file; any exception when it is none."""
    message = _Profile.FromString(gzip.decompress(body))
    text = list(message.string_table)
    assert text[0] == ""
    functions = {function.id: text[function.name] for function in message.function}
    locations = {location.id: functions[location.line[0].function_id] for location in message.location}
    leaves: Counter[str] = Counter()
    threads: Counter[str] = Counter()
    processes: dict[int, Counter[str]] = {}
    for sample in message.sample:
        assert len(sample.value) == len(message.sample_type)
        leaf = locations[sample.location_id[0]]
        leaves[leaf] += sample.value[-1]
        for label in sample.label:
            if text[label.key] == "pid":
                assert text[label.num_unit] == "id"
                processes.setdefault(label.num, Counter())[leaf] += sample.value[-1]
        threads.update({text[label.str]: sample.value[-1] for label in sample.label if text[label.key] == "thread"})
    return ReadProfile(
        sample_types=tuple((text[kind.type], text[kind.unit]) for kind in message.sample_type),
        time_ns=message.time_nanos,
        duration_ns=message.duration_nanos,
        comments=tuple(text[comment] for comment in message.comment),
        leaves=leaves,
        threads=threads,
        processes=processes,
        binaries=tuple(text[mapping.filename] for mapping in message.mapping),
    )
