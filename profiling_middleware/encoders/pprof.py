"""Profile to profile.proto, as `go tool pprof` reads it.

Source of the field numbers: https://github.com/google/pprof/blob/main/proto/profile.proto
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

from profiling_middleware.encoders.protobuf import integer, message, packed
from profiling_middleware.model import Frame, Label, Profile, ProfileSample, ValueType

# Profile
_SAMPLE_TYPE, _SAMPLE, _MAPPING, _LOCATION, _FUNCTION, _STRING_TABLE = 1, 2, 3, 4, 5, 6
_TIME_NANOS, _DURATION_NANOS, _PERIOD_TYPE, _PERIOD, _COMMENT, _DEFAULT_SAMPLE_TYPE = 9, 10, 11, 12, 13, 14
# ValueType
_TYPE, _UNIT = 1, 2
# Sample
_LOCATION_ID, _VALUE, _LABEL = 1, 2, 3
# Label
_KEY, _STR, _NUM, _NUM_UNIT = 1, 2, 3, 4
# Mapping, Location, Function: the id is field 1 of each
_ID = 1
_MAPPING_FILENAME, _BUILD_ID, _HAS_FUNCTIONS, _HAS_FILENAMES, _HAS_LINE_NUMBERS = 5, 6, 7, 8, 9
_MAPPING_ID, _LINE = 2, 4
_LINE_FUNCTION_ID, _LINE_LINE = 1, 2
_NAME, _FILENAME, _START_LINE = 2, 4, 5


def encode_pprof(profile: Profile) -> Iterator[bytes]:
    """The chunks of one uncompressed Profile message: a sample, then what is new in it, and the tables at the end.

    The bytes depend on nothing but the profile, apart from the last comment, which says what the encoding cost.
    """
    return _Encoder().encode(profile)


class _Encoder:
    """The tables of one profile: strings, functions and locations are written once and referred to by number."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str, int], int] = {}
        self._locations: dict[Frame, int] = {}
        self._labels: dict[Label, bytes] = {}
        self._new: list[bytes] = []

    def encode(self, profile: Profile) -> Iterator[bytes]:
        started = time.thread_time_ns()
        for sample_type in profile.sample_types:
            yield message(_SAMPLE_TYPE, self._value_type(sample_type))
        yield self._mapping(profile.info.service)
        for sample in profile.samples:
            yield message(_SAMPLE, self._sample(sample))
            yield from self._new
            self._new.clear()
        yield message(_PERIOD_TYPE, self._value_type(profile.period_type))
        yield integer(_PERIOD, profile.period)
        yield integer(_TIME_NANOS, profile.info.started_ns)
        yield integer(_DURATION_NANOS, profile.duration_ns)
        yield integer(_DEFAULT_SAMPLE_TYPE, self._string(profile.sample_types[-1].type))
        cost = f"cost of encoding: {(time.thread_time_ns() - started) / 1e6:.1f} ms CPU"
        yield packed(_COMMENT, [self._string(comment) for comment in (*profile.comments, cost)])
        for text in self._strings:
            yield message(_STRING_TABLE, text.encode("utf-8", "backslashreplace"))

    def _value_type(self, value_type: ValueType) -> bytes:
        return integer(_TYPE, self._string(value_type.type)) + integer(_UNIT, self._string(value_type.unit))

    def _mapping(self, service: str) -> bytes:
        # One mapping that claims to be symbolised, the same in every process of the service: without it pprof
        # misses a main binary, asks the network for symbols, or does not merge profiles of two processes.
        build_id = hashlib.sha256(service.encode()).hexdigest()[:40]
        flags = b"".join(integer(flag, 1) for flag in (_HAS_FUNCTIONS, _HAS_FILENAMES, _HAS_LINE_NUMBERS))
        names = integer(_MAPPING_FILENAME, self._string(service)) + integer(_BUILD_ID, self._string(build_id))
        return message(_MAPPING, integer(_ID, 1) + names + flags)

    def _sample(self, sample: ProfileSample) -> bytes:
        locations = packed(_LOCATION_ID, map(self._location, sample.stack.frames))
        return locations + packed(_VALUE, sample.values) + b"".join(map(self._label, sample.labels))

    def _label(self, label: Label) -> bytes:
        encoded = self._labels.get(label)
        if encoded is None:
            content = integer(_KEY, self._string(label.key))
            if isinstance(label.value, str):
                # Without a text it would be a number.
                content += integer(_STR, self._string(label.value or "<unnamed>"))
            else:
                content += integer(_NUM, label.value) + integer(_NUM_UNIT, self._string(label.unit))
            encoded = self._labels[label] = message(_LABEL, content)
        return encoded

    def _location(self, frame: Frame) -> int:
        number = self._locations.get(frame)
        if number is None:
            number = self._locations[frame] = len(self._locations) + 1
            line = integer(_LINE_FUNCTION_ID, self._function(frame)) + integer(_LINE_LINE, frame.line)
            content = integer(_ID, number) + integer(_MAPPING_ID, 1) + message(_LINE, line)
            self._new.append(message(_LOCATION, content))
        return number

    def _function(self, frame: Frame) -> int:
        key = (frame.function, frame.file, frame.start_line)
        number = self._functions.get(key)
        if number is None:
            number = self._functions[key] = len(self._functions) + 1
            name = self._string(frame.function)
            # No system name: pprof would take it for C++ and cut what stands in angle brackets.
            content = integer(_ID, number) + integer(_NAME, name)
            content += integer(_FILENAME, self._string(frame.file)) + integer(_START_LINE, frame.start_line)
            self._new.append(message(_FUNCTION, content))
        return number

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))
