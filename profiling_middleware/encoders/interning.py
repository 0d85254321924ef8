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
from profiling_middleware.uncollected import uncollected

# A kilobyte each, and in a full trace every task has a name of its own.
MOST_ENTRIES = 4_000
# A stack as a text has some kilobytes, and is there twice.
MOST_BYTES = 2 * 1024 * 1024

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
        self.size = 0
        """Of all entries, in bytes."""

    def __len__(self) -> int:
        return len(self._entries)

    def iid(self, text: str) -> int:
        """Its number, from now on part of this chunk."""
        entry = self._entries.get(text)
        if entry is None:
            number = len(self._entries) + 1
            content = integer(_IID, number) + message(_TEXT, _text(text))
            entry = self._entries[text] = uncollected((number, message(self._field, content)))
            self.size += len(content)
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
        self.size = 0


class _Entry:
    """What a chunk has of something that it uses, after what that refers to."""

    __slots__ = ("chunk", "content", "number", "parts", "symbol")

    def __init__(self, number: int, content: bytes, parts: tuple[_Entry, ...] = (), symbol: bytes = b"") -> None:
        self.number, self.content, self.parts = number, content, parts
        self.symbol = symbol
        """Of a frame: its line, for ModuleSymbols."""
        self.chunk = 0
        """The last one that has it."""


class Stacks:
    """Callstacks, and what they consist of.

    Perfetto knows functions only. It learns lines as a symboliser would tell them: each file is a mapping, each place
    in it an address, and ModuleSymbols say what is there.
    """

    def __init__(self) -> None:
        self._functions: dict[str, _Entry] = {}
        self._paths: dict[str, _Entry] = {}
        self._build_ids: dict[str, _Entry] = {}
        self._mappings: dict[str, _Entry] = {}
        self._frames: dict[Frame, _Entry] = {}
        self._stacks: dict[Stack, _Entry] = {}
        self._chunk = 1
        self._used: list[bytes] = []
        self._used_symbols: dict[_Entry, list[bytes]] = {}
        """By mapping."""
        self._modules: dict[_Entry, bytes] = {}
        """What ModuleSymbols say of a mapping."""

    def __len__(self) -> int:
        return max(len(self._stacks), len(self._frames))

    def iid(self, stack: Stack) -> int:
        """Its number, from now on part of this chunk with all that it consists of."""
        entry = self._stacks.get(stack)
        if entry is None:
            frames = tuple(self._frame(frame) for frame in reversed(stack.frames))
            number = len(self._stacks) + 1
            content = integer(_IID, number) + b"".join(integer(_FRAME_IDS, frame.number) for frame in frames)
            entry = self._stacks[stack] = _entry(number, message(_CALLSTACKS, content), frames)
        if entry.chunk != self._chunk:
            self._use(entry)
        return entry.number

    def take(self) -> tuple[bytes, list[bytes]]:
        """The entries of this chunk, and the content of its ModuleSymbols, one for each file; the next one begins."""
        entries = b"".join(self._used)
        symbols = [self._modules[mapping] + b"".join(lines) for mapping, lines in self._used_symbols.items()]
        self._used.clear()
        self._used_symbols.clear()
        self._chunk += 1
        return entries, symbols

    def clear(self) -> None:
        """Numbers begin anew. Between two chunks."""
        for table in (self._functions, self._paths, self._build_ids, self._mappings, self._frames, self._stacks):
            table.clear()
        self._modules.clear()

    def _use(self, entry: _Entry) -> None:
        chunk = entry.chunk = self._chunk
        for part in entry.parts:
            if part.chunk != chunk:
                self._use(part)
        self._used.append(entry.content)
        if entry.symbol:
            self._used_symbols.setdefault(entry.parts[-1], []).append(entry.symbol)

    def _frame(self, frame: Frame) -> _Entry:
        entry = self._frames.get(frame)
        if entry is None:
            path = frame.file or "<no file>"
            function, mapping = _text_entry(self._functions, _FUNCTION_NAMES, frame.function), self._mapping(path)
            number, address = len(self._frames) + 1, _address(frame)
            content = integer(_IID, number) + integer(_FUNCTION_NAME_ID, function.number)
            content += integer(_MAPPING_ID, mapping.number) + integer(_REL_PC, address)
            line = message(_LINE_FUNCTION, _text(frame.function)) + message(_LINE_FILE, _text(path))
            line = message(_LINES, line + integer(_LINE_NUMBER, frame.line))
            symbol = message(_ADDRESS_SYMBOLS, integer(_ADDRESS, address) + line) if frame.line else b""
            entry = self._frames[frame] = _entry(number, message(_FRAMES, content), (function, mapping), symbol)
        return entry

    def _mapping(self, path: str) -> _Entry:
        entry = self._mappings.get(path)
        if entry is None:
            build_id = _build_id(path)
            parts = _text_entry(self._build_ids, _BUILD_IDS, build_id), _text_entry(self._paths, _MAPPING_PATHS, path)
            number = len(self._mappings) + 1
            content = integer(_IID, number) + integer(_BUILD_ID, parts[0].number)
            content += integer(_END, _WHOLE_FILE) + integer(_PATH, parts[1].number)
            entry = self._mappings[path] = _entry(number, message(_MAPPINGS, content), parts)
            module = message(_MODULE_PATH, _text(_as_read(path))) + message(_MODULE_BUILD_ID, build_id.encode())
            self._modules[entry] = module
        return entry


def _entry(number: int, content: bytes, parts: tuple[_Entry, ...] = (), symbol: bytes = b"") -> _Entry:
    """It stays for as long as traces are written."""
    return uncollected(_Entry(number, content, uncollected(parts), symbol))


def _text_entry(known: dict[str, _Entry], field: int, text: str) -> _Entry:
    entry = known.get(text)
    if entry is None:
        content = integer(_IID, len(known) + 1) + message(_TEXT, _text(text))
        entry = known[text] = _entry(len(known) + 1, message(field, content))
    return entry


def _text(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _as_read(path: str) -> str:
    """Of a mapping: trace_processor makes all paths absolute."""
    return path if path.startswith("/") else f"/{path}"


def _address(frame: Frame) -> int:
    # The same in every process, for the same reason as a build id.
    function = zlib.crc32(_text(f"{frame.function}:{frame.start_line}"))
    return function << _LINE_BITS | min(frame.line, (1 << _LINE_BITS) - 1)


def _build_id(path: str) -> str:
    # Of the path: in every process the same, so that the traces of two can be put one behind the other.
    return hashlib.sha256(_text(path)).hexdigest()[:20]
