"""Interned data of a Perfetto trace: texts and stacks are written once a chunk, and referred to by number.

Numbers and encoded entries are kept from chunk to chunk; each chunk has those again that it uses, so that it can be
read without the ones before. Source of the field numbers:
https://github.com/google/perfetto/blob/main/protos/perfetto/trace/interned_data/interned_data.proto and
https://github.com/google/perfetto/blob/main/protos/perfetto/trace/profiling/profile_common.proto
"""

from __future__ import annotations

import hashlib
import zlib

from profiling_middleware.encoders.protobuf import integer, message
from profiling_middleware.model import Frame, Stack

MOST_ENTRIES = 20_000

# InternedData
CATEGORIES, EVENT_NAMES, ANNOTATION_NAMES, _FUNCTION_NAMES, _FRAMES, _CALLSTACKS = 1, 2, 3, 5, 6, 7
_BUILD_IDS, _MAPPING_PATHS, _MAPPINGS, ANNOTATION_VALUES = 16, 17, 19, 29
# All entries
_IID, _TEXT = 1, 2
# Mapping
_BUILD_ID, _END, _PATH = 2, 5, 7
# Frame
_FUNCTION_NAME_ID, _MAPPING_ID, _REL_PC = 2, 3, 4
# Callstack
_FRAME_IDS = 2
# ModuleSymbols, AddressSymbols, Line
_MODULE_PATH, _MODULE_BUILD_ID, _ADDRESS_SYMBOLS = 1, 2, 3
_ADDRESS, _LINES = 1, 2
_LINE_FUNCTION, _LINE_FILE, _LINE_NUMBER = 1, 2, 3

_LINE_BITS = 20
_WHOLE_FILE = 1 << 62


class Texts:
    """The texts of one field of InternedData."""

    def __init__(self, field: int) -> None:
        self._field = field
        self._entries: dict[str, tuple[int, bytes]] = {}
        self._used: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def iid(self, text: str) -> int:
        """Its number, from now on part of this chunk."""
        entry = self._entries.get(text)
        if entry is None:
            number = len(self._entries) + 1
            content = integer(_IID, number) + message(_TEXT, text.encode("utf-8", "backslashreplace"))
            entry = self._entries[text] = number, message(self._field, content)
        self._used[text] = entry[1]
        return entry[0]

    def take(self) -> bytes:
        """The entries of this chunk; the next one begins."""
        entries = b"".join(self._used.values())
        self._used.clear()
        return entries

    def clear(self) -> None:
        """Numbers begin anew. Between two chunks."""
        self._entries.clear()


class Stacks:
    """Callstacks, and what they consist of.

    Perfetto knows functions only. It learns lines as a symboliser would tell them: each file is a mapping, each place
    in it an address, and ModuleSymbols say what is there.
    """

    def __init__(self) -> None:
        self._functions = Texts(_FUNCTION_NAMES)
        self._paths = Texts(_MAPPING_PATHS)
        self._build_ids = Texts(_BUILD_IDS)
        self._mappings: dict[str, tuple[int, bytes]] = {}
        self._frames: dict[Frame, tuple[int, bytes, bytes]] = {}
        self._stacks: dict[Stack, tuple[int, bytes]] = {}
        self._used_mappings: dict[str, bytes] = {}
        self._used_frames: dict[Frame, bytes] = {}
        self._used_stacks: dict[Stack, bytes] = {}
        self._symbols: dict[str, list[bytes]] = {}

    def __len__(self) -> int:
        return max(len(self._stacks), len(self._frames))

    def iid(self, stack: Stack) -> int:
        """Its number, from now on part of this chunk with all that it consists of."""
        known = self._stacks.get(stack)
        if known is not None and stack in self._used_stacks:
            return known[0]
        numbers = b"".join(integer(_FRAME_IDS, self._frame(frame)) for frame in reversed(stack.frames))
        if known is None:
            number = len(self._stacks) + 1
            known = self._stacks[stack] = number, message(_CALLSTACKS, integer(_IID, number) + numbers)
        self._used_stacks[stack] = known[1]
        return known[0]

    def take(self) -> tuple[bytes, list[bytes]]:
        """The entries of this chunk, and the content of its ModuleSymbols, one for each file; the next one begins."""
        entries = [self._functions.take(), self._paths.take(), self._build_ids.take()]
        for used in (self._used_mappings, self._used_frames, self._used_stacks):
            entries += used.values()
            used.clear()
        symbols = [
            message(_MODULE_PATH, _text(_as_read(path))) + message(_MODULE_BUILD_ID, _build_id(path)) + b"".join(lines)
            for path, lines in self._symbols.items()
        ]
        self._symbols.clear()
        return b"".join(entries), symbols

    def clear(self) -> None:
        """Numbers begin anew. Between two chunks."""
        for texts in (self._functions, self._paths, self._build_ids):
            texts.clear()
        self._mappings.clear()
        self._frames.clear()
        self._stacks.clear()

    def _frame(self, frame: Frame) -> int:
        known = self._frames.get(frame)
        if known is not None and frame in self._used_frames:
            return known[0]
        path = frame.file or "<no file>"
        function, mapping = self._functions.iid(frame.function), self._mapping(path)
        if known is None:
            number = len(self._frames) + 1
            content = integer(_IID, number) + integer(_FUNCTION_NAME_ID, function)
            address = _address(frame)
            content += integer(_MAPPING_ID, mapping) + integer(_REL_PC, address)
            line = message(_LINE_FUNCTION, _text(frame.function)) + message(_LINE_FILE, _text(path))
            line = message(_LINES, line + integer(_LINE_NUMBER, frame.line))
            known = number, message(_FRAMES, content), message(_ADDRESS_SYMBOLS, integer(_ADDRESS, address) + line)
            self._frames[frame] = known
        self._used_frames[frame] = known[1]
        if frame.line:
            self._symbols.setdefault(path, []).append(known[2])
        return known[0]

    def _mapping(self, path: str) -> int:
        known = self._mappings.get(path)
        build_id, path_id = self._build_ids.iid(_build_id(path).decode()), self._paths.iid(path)
        if known is None:
            number = len(self._mappings) + 1
            content = integer(_IID, number) + integer(_BUILD_ID, build_id)
            content += integer(_END, _WHOLE_FILE) + integer(_PATH, path_id)
            known = self._mappings[path] = number, message(_MAPPINGS, content)
        self._used_mappings[path] = known[1]
        return known[0]


def _text(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _as_read(path: str) -> str:
    """Of a mapping: trace_processor makes all paths absolute."""
    return path if path.startswith("/") else f"/{path}"


def _address(frame: Frame) -> int:
    # The same in every process, for the same reason as a build id.
    function = zlib.crc32(_text(f"{frame.function}:{frame.start_line}"))
    return function << _LINE_BITS | min(frame.line, (1 << _LINE_BITS) - 1)


def _build_id(path: str) -> bytes:
    # Of the path: in every process the same, so that the traces of two can be put one behind the other.
    return hashlib.sha256(_text(path)).hexdigest()[:20].encode()
