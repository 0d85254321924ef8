"""Frames between workers, and what is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.workers.messages import MAX_FRAME_BYTES, Garbage, Inbox, Question, to_frame, words


@pytest.mark.parametrize(
    "question",
    [
        Question(kind="cpu", seconds=2.5),
        Question(kind="block", seconds=None),
        Question(kind="trace", seconds=None, full=False, last=10),
    ],
)
def test_a_question_comes_back_as_it_was(question: Question) -> None:
    inbox = Inbox()
    inbox.feed(question.frame())

    assert Question.of(inbox.frame() or {}) == question
    assert inbox.frame() is None


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)), st.data())
def test_frames_come_back_however_they_are_cut(messages: list[dict[str, int | str]], data: st.DataObject) -> None:
    stream = b"".join(map(to_frame, messages)) + b"\0"
    inbox, received = Inbox(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        inbox.feed(stream[:size])
        stream = stream[size:]
        while (message := inbox.frame()) is not None:
            received.append(message)

    assert received == messages
    assert inbox.raw(10) == b"\0"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 4000], ids=["empty", "cut", "list", "number", "bytes", "deep"]
)
def test_what_is_no_object_is_garbage(content: bytes) -> None:
    inbox = Inbox()
    inbox.feed(len(content).to_bytes(4, "big") + content)

    with pytest.raises(Garbage):
        inbox.frame()


def test_a_long_frame_is_refused_before_it_is_there() -> None:
    inbox = Inbox()
    inbox.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))

    with pytest.raises(Garbage, match="4097 bytes"):
        inbox.frame()
    with pytest.raises(Garbage):
        to_frame({"words": "x" * MAX_FRAME_BYTES})


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": None},
        {"kind": 7},
        {"kind": None},
        {"full": 1},
        {"seconds": "1"},
        {"seconds": True},
        {"last": []},
    ],
    ids=str,
)
def test_a_question_of_another_form_is_garbage(change: dict[str, object]) -> None:
    message = json.loads(Question(kind="cpu", seconds=1.0).frame()[4:])

    with pytest.raises(Garbage):
        Question.of({**message, **change})


def test_what_others_say_fits_into_a_header() -> None:
    assert words("two\r\nlines \u00e9") == "two lines  "
    assert len(words("x" * 1000)) == 200
