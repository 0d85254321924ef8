"""The few parts of the protobuf wire format that profiles need, written and read.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

_VARINT, _BYTES = 0, 2
_LONGEST_VARINT = 10
_SMALL = tuple(bytes((number,)) if number < 128 else bytes((number & 127 | 128, number >> 7)) for number in range(2048))


def varint(number: int) -> bytes:
    """Base-128, least significant group first. A negative int64 is written as its two's complement, ten bytes."""
    if 0 <= number < 2048:
        return _SMALL[number]
    if 0 < number < 1 << 21:  # most others
        low, middle, high = number & 127 | 128, number >> 7, number >> 14
        return bytes((low, middle & 127 | 128, high)) if high else bytes((low, middle))
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


def read_fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message. Raises ValueError for what is none, and for fixed-size fields."""
    position, end = 0, len(content)
    while position < end:
        tag, position = _read_varint(content, position)
        number, wire_type = tag >> 3, tag & 7
        value, position = _read_varint(content, position)
        if wire_type == _VARINT:
            yield number, value
        elif wire_type == _BYTES and value <= end - position:
            yield number, content[position : position + value]
            position += value
        else:
            raise ValueError(f"field {number} of wire type {wire_type} cannot be read")


def read_packed(content: bytes) -> Iterator[int]:
    """The numbers of a packed repeated field. Raises ValueError."""
    position, end = 0, len(content)
    while position < end:
        value, position = _read_varint(content, position)
        yield value


def as_signed(number: int) -> int:
    """An int64 that was read."""
    return number - (1 << 64) if number >> 63 else number


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, and where it ends."""
    number = shift = 0
    for byte in content[position : position + _LONGEST_VARINT]:
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    raise ValueError("a number has no end")
