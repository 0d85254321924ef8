"""profile.proto for the real protobuf package, written down here independently of the package's own encoder.

Source: https://github.com/google/pprof/blob/main/proto/profile.proto
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_MESSAGES: dict[str, list[tuple[int, str, str]]] = {
    "Profile": [
        (1, "sample_type", "repeated ValueType"),
        (2, "sample", "repeated Sample"),
        (3, "mapping", "repeated Mapping"),
        (4, "location", "repeated Location"),
        (5, "function", "repeated Function"),
        (6, "string_table", "repeated string"),
        (7, "drop_frames", "int64"),
        (8, "keep_frames", "int64"),
        (9, "time_nanos", "int64"),
        (10, "duration_nanos", "int64"),
        (11, "period_type", "ValueType"),
        (12, "period", "int64"),
        (13, "comment", "repeated int64"),
        (14, "default_sample_type", "int64"),
    ],
    "ValueType": [(1, "type", "int64"), (2, "unit", "int64")],
    "Sample": [(1, "location_id", "repeated uint64"), (2, "value", "repeated int64"), (3, "label", "repeated Label")],
    "Label": [(1, "key", "int64"), (2, "str", "int64"), (3, "num", "int64"), (4, "num_unit", "int64")],
    "Mapping": [
        (1, "id", "uint64"),
        (2, "memory_start", "uint64"),
        (3, "memory_limit", "uint64"),
        (4, "file_offset", "uint64"),
        (5, "filename", "int64"),
        (6, "build_id", "int64"),
        (7, "has_functions", "bool"),
        (8, "has_filenames", "bool"),
        (9, "has_line_numbers", "bool"),
        (10, "has_inline_frames", "bool"),
    ],
    "Location": [
        (1, "id", "uint64"),
        (2, "mapping_id", "uint64"),
        (3, "address", "uint64"),
        (4, "line", "repeated Line"),
        (5, "is_folded", "bool"),
    ],
    "Line": [(1, "function_id", "uint64"), (2, "line", "int64")],
    "Function": [
        (1, "id", "uint64"),
        (2, "name", "int64"),
        (3, "system_name", "int64"),
        (4, "filename", "int64"),
        (5, "start_line", "int64"),
    ],
}


@pytest.fixture(scope="session")
def profile_message() -> type[Any]:
    """The class of a Profile message."""
    field = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "int64": field.TYPE_INT64,
        "uint64": field.TYPE_UINT64,
        "bool": field.TYPE_BOOL,
        "string": field.TYPE_STRING,
    }
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package="perftools.profiles", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field_name, kind in fields:
            repeated, _, type_name = kind.rpartition(" ")
            added = message.field.add(name=field_name, number=number)
            added.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if type_name in scalars:
                added.type = scalars[type_name]
            else:
                added.type, added.type_name = field.TYPE_MESSAGE, f".perftools.profiles.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("perftools.profiles.Profile"))


class Decoded:
    """A message with its string indices and ids resolved, so that it can be compared with what went in."""

    def __init__(self, message: Any) -> None:
        self.message = message
        self.strings = list(message.string_table)
        self._functions = {function.id: function for function in message.function}
        self._locations = {location.id: location for location in message.location}

    def text(self, index: int) -> str:
        return self.strings[index]

    def value_type(self, value_type: Any) -> tuple[str, str]:
        return self.text(value_type.type), self.text(value_type.unit)

    @property
    def sample_types(self) -> list[tuple[str, str]]:
        return [self.value_type(each) for each in self.message.sample_type]

    @property
    def comments(self) -> list[str]:
        return [self.text(index) for index in self.message.comment]

    def stack(self, sample: Any) -> tuple[tuple[str, str, int, int], ...]:
        """(function, file, line, start line) in the order of the sample's location ids."""
        frames = []
        for location_id in sample.location_id:
            (line,) = self._locations[location_id].line
            function = self._functions[line.function_id]
            frames.append((self.text(function.name), self.text(function.filename), line.line, function.start_line))
        return tuple(frames)

    def labels(self, sample: Any) -> list[tuple[str, str | int, str]]:
        labels: list[tuple[str, str | int, str]] = []
        for label in sample.label:
            value = self.text(label.str) if label.str else label.num
            labels.append((self.text(label.key), value, self.text(label.num_unit)))
        return labels

    @property
    def samples(self) -> list[tuple[Any, Any, tuple[int, ...]]]:
        return [(self.stack(each), self.labels(each), tuple(each.value)) for each in self.message.sample]


@pytest.fixture
def decode(profile_message: type[Any]) -> Callable[[bytes], Decoded]:
    """Parses an uncompressed message; unknown fields fail."""

    def parse(content: bytes) -> Decoded:
        message = profile_message.FromString(content)
        known = profile_message.FromString(content)
        known.DiscardUnknownFields()
        assert known.ByteSize() == message.ByteSize(), "there are fields that profile.proto does not know"
        return Decoded(message)

    return parse


@pytest.fixture
def gunzip_deterministic() -> Callable[[bytes], bytes]:
    """Unpacks one gzip member and checks that nothing follows it."""

    def unpack(body: bytes) -> bytes:
        unpacker = zlib.decompressobj(31)
        content = unpacker.decompress(body) + unpacker.flush()
        assert unpacker.eof
        assert unpacker.unused_data == b""
        return content

    return unpack
