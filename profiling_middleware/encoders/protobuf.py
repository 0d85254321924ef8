"""The few parts of the protobuf wire format that profiles need.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterable

_VARINT, _BYTES = 0, 2
_SMALL = tuple(bytes((number,)) for number in range(128))


def varint(number: int) -> bytes:
    """Base-128, least significant group first. A negative int64 is written as its two's complement, ten bytes."""
    if 0 <= number < 128:
        return _SMALL[number]
    if 0 <= number < 1 << 14:
        return bytes((number & 127 | 128, number >> 7))
    number &= 0xFFFF_FFFF_FFFF_FFFF
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def integer(field: int, number: int) -> bytes:
    """An integer, enum or bool field; nothing for 0, which is the default."""
    return varint(field << 3 | _VARINT) + varint(number) if number else b""


def message(field: int, content: bytes) -> bytes:
    """A string, bytes or embedded message field, written even when empty (an entry of a repeated field counts)."""
    return varint(field << 3 | _BYTES) + varint(len(content)) + content


def packed(field: int, numbers: Iterable[int]) -> bytes:
    """A packed repeated integer field."""
    content = b"".join(map(varint, numbers))
    return message(field, content) if content else b""
