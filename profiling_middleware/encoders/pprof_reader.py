"""profile.proto, as `encoders/pprof.py` writes it, back to a Profile; what others write may be more than it knows."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

from profiling_middleware.encoders.protobuf import as_signed, read_fields, read_packed
from profiling_middleware.model import CaptureInfo, Frame, Label, Profile, ProfileSample, Stack, ValueType

# The numbers of fields are those of encoders/pprof.py.
_SAMPLE_TYPE, _SAMPLE, _LOCATION, _FUNCTION, _STRING_TABLE = 1, 2, 4, 5, 6
_DURATION_NANOS, _PERIOD_TYPE, _PERIOD, _COMMENT = 10, 11, 12, 13
_LOCATION_ID, _VALUE, _LABEL = 1, 2, 3

_Fields = dict[int, int | bytes]
_Numbers = tuple[int, ...]


def unzip_pprof(body: bytes, max_bytes: int) -> bytes:
    """The message in a gzipped profile. Raises ValueError for what is none, or is bigger than `max_bytes` unpacked."""
    unpacker = zlib.decompressobj(31)
    try:
        content = unpacker.decompress(body, max_bytes)
    except zlib.error as error:
        raise ValueError(f"it is not gzipped: {error}") from None
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"it is not one gzip member of at most {max_bytes} bytes unpacked")
    return content


def read_pprof(content: bytes, info: CaptureInfo) -> Profile:
    """The profile in an uncompressed message, as that of the capture `info`. Raises ValueError for what is none."""
    try:
        return _Reader(content).profile(info)
    except (LookupError, TypeError, AttributeError, UnicodeError) as error:
        raise ValueError(f"it is no profile ({type(error).__name__}: {error})") from None


class _Reader:
    """The tables of one message. LookupError is of what is not there, TypeError of what is something else."""

    def __init__(self, content: bytes) -> None:
        self._content: dict[int, list[int | bytes]] = {}
        for number, value in read_fields(content):
            self._content.setdefault(number, []).append(value)
        self._strings = [_bytes(text).decode() for text in self._content.get(_STRING_TABLE, ())]
        functions = map(_single, self._messages(_FUNCTION))
        self._functions = {_number(each, 1): each for each in functions}
        self._frames = {_number(each, 1): self._frame(each) for each in map(_single, self._messages(_LOCATION))}
        self._stacks: dict[_Numbers, Stack] = {}
        self._labels: dict[bytes, Label] = {}

    def profile(self, info: CaptureInfo) -> Profile:
        sample_types = tuple(self._value_type(each) for each in self._messages(_SAMPLE_TYPE))
        if not sample_types:
            raise ValueError("it has no sample types")
        samples = [self._sample(each) for each in self._messages(_SAMPLE)]
        if any(len(sample.values) != len(sample_types) for sample in samples):
            raise ValueError("a sample has not one value a sample type")
        header = {number: values[-1] for number, values in self._content.items()}
        return Profile(
            info=info,
            sample_types=sample_types,
            period_type=self._value_type(_bytes(header[_PERIOD_TYPE])),
            period=_number(header, _PERIOD),
            duration_ns=_number(header, _DURATION_NANOS),
            samples=samples,
            comments=tuple(self._text(as_signed(index)) for index in _numbers(self._content.get(_COMMENT, ()))),
        )

    def _messages(self, number: int) -> Iterator[bytes]:
        return map(_bytes, self._content.get(number, ()))

    def _text(self, index: int) -> str:
        if index < 0:
            raise LookupError(f"string {index}")
        return self._strings[index]

    def _value_type(self, content: bytes) -> ValueType:
        fields = _single(content)
        return ValueType(self._text(_number(fields, 1)), self._text(_number(fields, 2)))

    def _frame(self, location: _Fields) -> Frame:
        line = _single(_bytes(location[4]))
        function = self._functions[_number(line, 1)]
        name, file = self._text(_number(function, 2)), self._text(_number(function, 4))
        return Frame(name, file, _number(line, 2), _number(function, 5))

    def _sample(self, content: bytes) -> ProfileSample:
        parts: dict[int, list[int | bytes]] = {_LOCATION_ID: [], _VALUE: [], _LABEL: []}
        for number, value in read_fields(content):
            parts[number].append(value)
        values = tuple(map(as_signed, _numbers(parts[_VALUE])))
        labels = tuple(map(self._label, map(_bytes, parts[_LABEL])))
        return ProfileSample(self._stack(tuple(_numbers(parts[_LOCATION_ID]))), labels, values)

    def _stack(self, locations: _Numbers) -> Stack:
        stack = self._stacks.get(locations)
        if stack is None:
            stack = self._stacks[locations] = Stack(tuple(self._frames[number] for number in locations))
        return stack

    def _label(self, content: bytes) -> Label:
        label = self._labels.get(content)
        if label is None:
            fields = _single(content)
            key, unit = self._text(_number(fields, 1)), self._text(_number(fields, 4))
            value = self._text(_number(fields, 2)) if 2 in fields else _number(fields, 3)
            label = self._labels[content] = Label(key, value, unit)
        return label


def _single(content: bytes) -> _Fields:
    """The fields of a message that has each of them once at most."""
    return dict(read_fields(content))


def _number(fields: _Fields, number: int) -> int:
    """An integer, 0 when it is not there."""
    value = fields.get(number, 0)
    if not isinstance(value, int):
        raise TypeError(f"field {number} is no number")
    return as_signed(value)


def _numbers(values: Iterable[int | bytes]) -> Sequence[int]:
    """A repeated integer field, packed or not."""
    numbers: list[int] = []
    for value in values:
        numbers += (value,) if isinstance(value, int) else read_packed(value)
    return numbers


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{value} stands where a message or a string should")
    return value
