"""The wire format of protobuf, as much of it as reading a profile takes.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


class WireError(ValueError):
    """The bytes are no protobuf message."""


def read_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one message in their order: the number, and a whole number or the bytes of what is inside."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise WireError("a field has the number 0")
        if wire_type == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == _LENGTH:
            size, at = _varint(data, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise WireError(f"field {number} has the unknown wire type {wire_type}")
        if at + size > len(data):
            raise WireError(f"field {number} ends {at + size - len(data)} bytes after the message")
        yield number, data[at : at + size]
        at += size


def read_integers(value: int | bytes) -> Iterator[int]:
    """The numbers of a repeated field, whether they came packed or one by one."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def signed(value: int) -> int:
    """An int64 from its varint, which is its two's complement."""
    return value - (1 << 64) if value >> 63 else value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("a number breaks off at the end of the message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise WireError("a number is longer than 10 bytes")
