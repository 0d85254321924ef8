"""Profiles for people and browsers: pyinstrument renders a session that is built of our samples.

pyinstrument is imported when the first view is asked for, never before. The layout of a frame record and of an
identifier is pyinstrument's own: https://github.com/joerick/pyinstrument (frame_info.py, session.py).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from profiling_middleware.model import Frame, Label, Profile, ProfileSample
from profiling_middleware.process import THIS_PROCESS

if TYPE_CHECKING:
    from pyinstrument.renderers.base import Renderer
    from pyinstrument.session import Session

VIEWS: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "speedscope": "application/json",
    "text": "text/plain; charset=utf-8",
}
"""The views and their media types."""

# Rendering costs up to a millisecond of CPU a record, and nobody reads the smaller ones.
_MAX_RECORDS = 2_000
_OTHERS = "<stacks too small to show>"


def render_view(profile: Profile, view: str) -> bytes:
    """The profile as `html` (one self-contained page), `speedscope` (its JSON) or `text`. KeyError for other names."""
    with THIS_PROCESS.imports.underway():
        import pyinstrument.renderers
        import pyinstrument.session  # noqa: F401 - both for the functions below
    session = _session(profile)
    header = "\n".join(profile.comments)
    if view == "text":
        body = _renderer(view).render(session) if profile.samples else "nothing was sampled\n"
        return f"{header}\n{body}".encode("utf-8", "replace")
    return _renderer(view).render(session).encode("utf-8", "replace")


def _renderer(view: str) -> Renderer:
    from pyinstrument import renderers

    if view == "html":
        return renderers.HTMLRenderer()
    if view == "speedscope":
        return renderers.SpeedscopeRenderer(show_all=True)
    if view == "text":
        return renderers.ConsoleRenderer(unicode=True, color=False, show_all=True)
    raise KeyError(view)


def _session(profile: Profile) -> Session:
    from pyinstrument.session import Session

    info = profile.info
    root = _identifier(Frame(f"{info.service} {info.kind}", "", 0, 0))
    seconds: dict[tuple[str, ...], float] = defaultdict(float)
    samples = sorted(profile.samples, key=lambda sample: sample.values[-1], reverse=True)
    for sample in samples:
        seconds[_record(root, sample, shown=len(seconds) < _MAX_RECORDS)] += sample.values[-1] / 1e9
    return Session(
        frame_records=[(list(record), value) for record, value in seconds.items()] or [([root], 0.0)],
        start_time=info.started_ns / 1e9,
        duration=profile.duration_ns / 1e9,
        min_interval=profile.period / 1e9,
        max_interval=profile.period / 1e9,
        sample_count=sum(sample.values[0] for sample in profile.samples),
        # An empty one raises IndexError in pyinstrument 5.
        start_call_stack=[root],
        target_description=f"{info.kind} of {info.service}, {info.started:%Y-%m-%d %H:%M:%S} UTC",
        cpu_time=sum(seconds.values()) if info.kind == "cpu" else 0.0,
        sys_path=[],
        sys_prefixes=Session.current_sys_prefixes(),
    )


def _record(root: str, sample: ProfileSample, *, shown: bool) -> tuple[str, ...]:
    thread = _identifier(Frame(_thread_name(sample.labels), "", 0, 0))
    if not shown:
        return (root, thread, _identifier(Frame(_OTHERS, "", 0, 0)))
    return (root, thread, *(_identifier(frame) for frame in reversed(sample.stack.frames)))


def _thread_name(labels: tuple[Label, ...]) -> str:
    names = [label.value for label in labels if label.key == "thread" and isinstance(label.value, str)]
    pids = [f" of process {label.value}" for label in labels if label.key == "pid"]
    return f"thread {''.join(names[:1])}".rstrip() + "".join(pids[:1])


def _identifier(frame: Frame) -> str:
    line = f"\x01l{frame.line}" if frame.line else ""
    return f"{_harmless(frame.function)}\x00{_harmless(frame.file)}\x00{frame.start_line}{line}"


def _harmless(name: str) -> str:
    # pyinstrument separates by these two, and puts names into a <script> element without escaping them.
    return re.sub("<(?=[/!])", "\u2039", name.replace("\x00", "").replace("\x01", ""))
