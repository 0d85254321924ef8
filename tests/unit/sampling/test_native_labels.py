"""What the extension knows of labels: which of them are alive, and what each is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any

import pytest

from profiling_middleware.labels import CURRENT


@pytest.fixture
def native(need_native: Callable[[], None]) -> Iterator[Any]:
    """The extension, which knows where labels are."""
    need_native()
    from profiling_middleware.sampling import _native

    _native.watch(CURRENT)
    yield _native
    _native.clear()


def context_of(native: Any, subject: int) -> Context:
    """One that works for this subject."""
    context = Context()
    context.run(CURRENT.set, native.Label(str, subject))
    return context


def test_each_of_many_labels_is_told_from_the_others_also_when_some_have_gone(native: Any) -> None:
    contexts = {subject: context_of(native, subject) for subject in range(1_000)}
    for subject in range(0, 1_000, 3):
        del contexts[subject]
    contexts |= {subject: context_of(native, subject) for subject in range(1_000, 3_000)}
    assert {subject: context.run(native.own_label) for subject, context in contexts.items()} == {
        subject: subject for subject in contexts
    }


def test_a_context_that_works_for_nobody_has_no_label(native: Any) -> None:
    assert Context().run(native.own_label) is None
