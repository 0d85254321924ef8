"""Reads pprof profiles, and knows nothing of how they were written: the demo checks with it what has arrived.

Field numbers: https://github.com/google/pprof/blob/main/proto/profile.proto
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from sample_app.protobuf_wire import WireError, read_fields, read_integers, signed

_GZIP = b"\x1f\x8b"


class PprofError(ValueError):
    """The bytes are no profile that pprof would accept."""


@dataclass(frozen=True, slots=True)
class ValueType:
    type: str
    unit: str


@dataclass(frozen=True, slots=True)
class Frame:
    function: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Sample:
    stack: tuple[Frame, ...]
    """The leaf comes first."""
    values: tuple[int, ...]
    """One for each sample type."""
    labels: Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    sample_types: tuple[ValueType, ...]
    samples: tuple[Sample, ...]
    comments: tuple[str, ...]
    period_type: ValueType | None
    period: int
    time_ns: int
    duration_ns: int
    default_sample_type: str

    def column(self, name: str) -> int:
        """Where the values of the sample type of that name are. PprofError when there is none."""
        for index, sample_type in enumerate(self.sample_types):
            if sample_type.type == name:
                return index
        raise PprofError(f"no sample type {name!r}: there are {', '.join(t.type for t in self.sample_types)}")


def read_pprof(data: bytes) -> Profile:
    """The profile in a file, gzipped or not. Raises PprofError for anything that is malformed."""
    try:
        message = gzip.decompress(data) if data.startswith(_GZIP) else data
        return _Message.read(message).profile()
    except (WireError, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise PprofError(f"not a profile: {error}") from error


@dataclass
class _Message:
    """A Profile message before its references are resolved."""

    strings: list[str] = field(default_factory=list)
    sample_types: list[_Fields] = field(default_factory=list)
    samples: list[_Fields] = field(default_factory=list)
    locations: dict[int, _Fields] = field(default_factory=dict)
    functions: dict[int, _Fields] = field(default_factory=dict)
    period_type: _Fields | None = None
    comments: list[int] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)

    @classmethod
    def read(cls, data: bytes) -> _Message:
        message = cls()
        for number, value in read_fields(data):
            match number:
                case 1:
                    message.sample_types.append(_Fields(value))
                case 2:
                    message.samples.append(_Fields(value))
                case 4:
                    _add(message.locations, _Fields(value), "location")
                case 5:
                    _add(message.functions, _Fields(value), "function")
                case 6:
                    message.strings.append(_content(value).decode())
                case 11:
                    message.period_type = _Fields(value)
                case 13:
                    message.comments.extend(read_integers(value))
                case 9 | 10 | 12 | 14 if isinstance(value, int):
                    message.numbers[number] = signed(value)
        return message

    def profile(self) -> Profile:
        if not self.strings or self.strings[0] != "":
            raise PprofError("the string table does not begin with the empty string")
        if not self.sample_types:
            raise PprofError("there is no sample type")
        frames = {number: self._frames(location) for number, location in self.locations.items()}
        return Profile(
            sample_types=tuple(map(self._value_type, self.sample_types)),
            samples=tuple(self._sample(sample, frames) for sample in self.samples),
            comments=tuple(map(self._string, self.comments)),
            period_type=self._value_type(self.period_type) if self.period_type else None,
            period=self.numbers.get(12, 0),
            time_ns=self.numbers.get(9, 0),
            duration_ns=self.numbers.get(10, 0),
            default_sample_type=self._string(self.numbers.get(14, 0)),
        )

    def _string(self, index: int) -> str:
        if not 0 <= index < len(self.strings):
            raise PprofError(f"string {index} does not exist: there are {len(self.strings)}")
        return self.strings[index]

    def _value_type(self, fields: _Fields) -> ValueType:
        return ValueType(self._string(fields.integer(1)), self._string(fields.integer(2)))

    def _frames(self, location: _Fields) -> tuple[Frame, ...]:
        return tuple(self._frame(_Fields(line)) for line in location.all(4))

    def _frame(self, line: _Fields) -> Frame:
        function = self.functions.get(line.integer(1))
        if function is None:
            raise PprofError(f"function {line.integer(1)} does not exist")
        return Frame(self._string(function.integer(2)), self._string(function.integer(4)), signed(line.integer(2)))

    def _sample(self, sample: _Fields, frames: Mapping[int, tuple[Frame, ...]]) -> Sample:
        values = tuple(signed(value) for value in sample.integers(2))
        if len(values) != len(self.sample_types):
            raise PprofError(f"a sample has {len(values)} values for {len(self.sample_types)} sample types")
        stack: list[Frame] = []
        for number in sample.integers(1):
            if number not in frames:
                raise PprofError(f"location {number} does not exist")
            stack.extend(frames[number])
        return Sample(tuple(stack), values, dict(self._label(_Fields(label)) for label in sample.all(3)))

    def _label(self, label: _Fields) -> tuple[str, str | int]:
        text = label.integer(2)
        return self._string(label.integer(1)), self._string(text) if text else signed(label.integer(3))


class _Fields:
    """The fields of one inner message by their number."""

    def __init__(self, value: int | bytes) -> None:
        self._values: dict[int, list[int | bytes]] = {}
        for number, inner in read_fields(_content(value)):
            self._values.setdefault(number, []).append(inner)

    def all(self, number: int) -> list[int | bytes]:
        return self._values.get(number, [])

    def integers(self, number: int) -> list[int]:
        return [integer for value in self.all(number) for integer in read_integers(value)]

    def integer(self, number: int) -> int:
        values = self.integers(number)
        return values[-1] if values else 0


def _content(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise PprofError("there is a number where a message should be")
    return value


def _add(table: dict[int, _Fields], entry: _Fields, what: str) -> None:
    number = entry.integer(1)
    if number == 0 or number in table:
        raise PprofError(f"{what} {number} is {'doubled' if number else 'no valid number'}")
    table[number] = entry
