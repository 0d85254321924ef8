"""The few parts of the protobuf wire format that profiles need.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

_VARINT, _BYTES = 0, 2
_SMALL = tuple(bytes((number,)) if number < 128 else bytes((number & 127 | 128, number >> 7)) for number in range(2048))


def varint(number: int) -> bytes:
    """Base-128, least significant group first. A negative int64 is written as its two's complement, ten bytes."""
    if 0 <= number < 2048:
        return _SMALL[number]
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


def tagged(field: int) -> Callable[[bytes], bytes]:
    """As `message` of this field, for who writes many."""
    tag = varint(field << 3 | _BYTES)

    def write(content: bytes) -> bytes:
        size = len(content)
        return tag + (_SMALL[size] if size < 2048 else varint(size)) + content

    return write


def packed(field: int, numbers: Iterable[int]) -> bytes:
    """A packed repeated integer field."""
    content = b"".join(map(varint, numbers))
    return message(field, content) if content else b""
