"""Compares profiles with what the program can contain, and keeps what was wrong with an example."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from profiling_middleware.model import Frame, Label, Profile
from torture.truth import SPECIAL, Truth

_KNOWN = 5_000
_EXAMPLES = 8
_SHOWN = 40
_NUMBER = re.compile(r"(?<=[A-Za-z_<])\d+|\b\d+\b(?!$)")

Frames = tuple[Frame, ...]


class _Seen(NamedTuple):
    """What a stack says, worked out once."""

    good: bool
    work: str | None
    """What its thread has to be named after."""
    labelled: str | None
    """The function in it that says what the label must be."""
    parts: frozenset[str]


class Checker:
    """Counts what was seen and what was wrong. From any thread."""

    def __init__(self, truth: Truth, native_ids: Mapping[str, int]) -> None:
        self._truth = truth
        self._native_ids = native_ids
        self._lock = threading.Lock()
        self._known: dict[tuple[Frames, bool], _Seen] = {}
        self.profiles = self.samples = self.stacks = 0
        self.seen: Counter[str] = Counter()
        """Samples of each part of the workload, and of each special frame."""
        self.wrong: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.labelled: Counter[bool] = Counter()
        """Samples of labelled work: with its label, and without any."""

    def check(self, profile: Profile) -> None:
        """Checks all of a profile."""
        for sample in profile.samples:
            self.stack(sample.stack.frames, sample.labels)
        with self._lock:
            self.profiles += 1

    def stack(self, frames: Frames, labels: tuple[Label, ...]) -> None:
        """Checks one stack, leaf first, and what its labels say."""
        given = {label.key: label.value for label in labels}
        # A task's await chain begins with any coroutine, and goes on in whoever waits for the task.
        awaits = "wait" in given and bool(frames) and not self._truth.is_bottom(frames[-1])
        with self._lock:
            self.samples += 1
            seen = self._known.get((frames, awaits))
            if seen is None:
                seen = self._learn(frames, awaits=awaits)
            self.seen.update(seen.parts)
            if seen.good:
                self._check_thread(frames, seen.work, str(given.get("thread")), given.get("thread_id"))
            if seen.labelled is not None:
                work = given.get("work")
                self.labelled[work is not None] += 1
                if work not in (None, seen.labelled):
                    self._note(f"the label of {work}", frames, seen.labelled)

    def note(self, reason: str, example: str) -> None:
        """Something else that is wrong."""
        with self._lock:
            self._add(reason, f"    {example}")

    def report(self) -> str:
        """What was wrong, how often, with examples."""
        lines = [f"{count} x {kind}" for kind, count in self.wrong.most_common()]
        lines += [f"such as {self.examples[kind]}" for kind, _ in self.wrong.most_common(_EXAMPLES)]
        return "\n".join(lines)

    def fresh(self) -> Checker:
        """One that has seen nothing yet."""
        return Checker(self._truth, {})

    def _learn(self, frames: Frames, *, awaits: bool) -> _Seen:
        self.stacks += 1
        good = self._check_frames(frames, awaits=awaits)
        labelled = next((name for frame in frames if (name := _last(frame)).startswith("labelled_")), None)
        parts = frozenset(
            frame.function if frame.function in SPECIAL else self._truth.part_of(frame)
            for frame in frames
            if frame.function in SPECIAL or self._truth.is_ours(frame)
        )
        seen = _Seen(good, self._truth.work_of(frames) if good and not awaits else None, labelled, parts)
        if good:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[frames, awaits] = seen
        return seen

    def _check_frames(self, frames: Frames, *, awaits: bool) -> bool:
        good = True
        for frame in frames:
            good &= self._note(self._truth.wrong_frame(frame), frames, frame)
        if good and not awaits:
            for callee, caller in zip(frames, frames[1:], strict=False):
                good &= self._note(self._truth.wrong_pair(callee, caller), frames, callee, caller)
            good &= self._note(self._truth.wrong_stack(frames), frames, frames[-1])
        return good

    def _check_thread(self, frames: Frames, work: str | None, name: str, native_id: str | int | None) -> None:
        known = self._native_ids.get(name)
        if known is None or native_id is None:
            return  # not started here, or sums of all threads of that name
        if known != native_id:
            self._note("the number of another", frames, f"thread {name}")
        if work is not None and work != name.rpartition("-")[0]:
            self._note(f"a thread of {work}", frames, f"thread {name}")

    def _note(self, reason: str | None, frames: Frames, *of: Frame | str) -> bool:
        """Counts what is alike as one: numbers that only say which of many it was are left out."""
        if reason is None:
            return True
        names = [
            thing if isinstance(thing, str) else f"{thing.function}:{thing.line - thing.start_line:+d}" for thing in of
        ]
        stack = [f"    {frame.function} {frame.file}:{frame.line} ({frame.start_line})" for frame in frames[:_SHOWN]]
        self._add(f"{' called by '.join(names)}: {reason}", "\n".join(stack))
        return False

    def _add(self, text: str, example: str) -> None:
        kind = _NUMBER.sub("N", text)
        self.wrong[kind] += 1
        self.examples.setdefault(kind, f"{text}\n{example}")


def _last(frame: Frame) -> str:
    return frame.function.rpartition(".")[2]
