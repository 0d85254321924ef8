"""Samples of what the extension hands out: whose labels they get, and how long a request is kept for that."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable
from itertools import chain

import pytest

from profiling_middleware.model import Label, Sample
from profiling_middleware.sampling.accounts import Accounts

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux's clocks")

KEY, STACK, SLEEP, RUNNING = 7, 0, 1, 2
RUNNING_FRAME = 5
LABELS = (Label("endpoint", "/cart"),)
MS = 1_000_000


class Request:
    """A subject whose labels are known once a router has seen it."""

    routed = False


def resolve(request: Request) -> tuple[Label, ...] | None:
    return LABELS if request.routed else None


@pytest.fixture
def accounts() -> Accounts:
    """One that knows this thread and some stacks."""
    accounts = Accounts()
    frames = [("pay", "/srv/shop.py", 12, 10), ("sleep", "/srv/shop.py", 22, 20), (RUNNING_FRAME, None, 0, 0)]
    accounts.learn_stacks([(0,), (1,), (2,)], frames, begins_anew=False)
    accounts.learn_threads([(KEY, threading.get_ident(), threading.get_native_id())])
    return accounts


def taken(accounts: Accounts, *raw: tuple[object, ...], final: bool = False) -> list[Sample]:
    """The samples that come of these."""
    return list(chain.from_iterable(accounts.samples(list(chain.from_iterable(raw)), final=final)))


def worked(
    accounts: Accounts, request: object, *, ask: Callable[..., object] = resolve, age_ns: int = 0
) -> list[Sample]:
    """Ten milliseconds of work for a request; the samples that come of it."""
    raw = (time.monotonic_ns() - age_ns, KEY, STACK, 10 * MS, 0, 0, 0, 0, 0, ask, request)
    return taken(accounts, raw)


def test_a_sample_waits_for_its_labels(accounts: Accounts) -> None:
    request = Request()
    assert worked(accounts, request) == []
    request.routed = True

    (sample,) = taken(accounts)
    assert (sample.labels, sample.cpu_ns) == (LABELS, 10 * MS)
    assert taken(accounts, final=True) == []


def test_a_sample_that_is_wanted_now_has_no_labels_yet(accounts: Accounts) -> None:
    assert worked(accounts, Request()) == []

    (sample,) = taken(accounts, final=True)
    assert sample.labels == ()


def test_a_request_that_nobody_routes_is_not_waited_for_for_ever(accounts: Accounts) -> None:
    (sample,) = worked(accounts, Request(), age_ns=2_000 * MS)

    assert sample.labels == ()


@pytest.mark.parametrize("routed", [True, False], ids=["routed", "not routed"])
def test_a_request_is_not_kept_once_its_labels_are_known(accounts: Accounts, routed: bool) -> None:
    """A thread may rest for hours where it worked last: what it worked for must not live as long."""
    request = Request()
    request.routed = routed
    kept = weakref.ref(request)
    raw = (time.monotonic_ns(), KEY, STACK, 10 * MS, 0, 5 * MS, 0, 0, 0, resolve, request)
    taken(accounts, raw, final=True)
    del request, raw

    assert kept() is None


def test_what_a_thread_used_after_its_last_sample_is_its_requests(accounts: Accounts) -> None:
    request = Request()
    request.routed = True
    worked(accounts, request)
    request.routed = False  # it is over, and its scope may say anything

    rest = accounts.rest_of(KEY, 3 * MS, time.monotonic_ns())

    assert (rest.labels, rest.cpu_ns) == (LABELS, 3 * MS)
    assert [frame.function for frame in rest.stack.frames] == ["pay"]


def test_a_thread_that_ended_leaves_its_rest_where_it_worked_last(accounts: Accounts) -> None:
    request = Request()
    request.routed = True
    worked(accounts, request)
    accounts.forget_thread(KEY)

    tail, lost = accounts.rest_of_the_ended(13 * MS, 10 * MS, time.monotonic_ns())

    assert (tail.cpu_ns, tail.labels, tail.stack.frames[0].function) == (10 * MS, LABELS, "pay")
    assert (lost.cpu_ns, lost.stack.frames[0].function) == (3 * MS, "<thread ended between two looks>")
    assert accounts.not_placed_ns == 3 * MS


def test_a_router_that_fails_ends_nothing(accounts: Accounts) -> None:
    def fails(request: object) -> None:
        raise ZeroDivisionError

    (sample,) = worked(accounts, object(), ask=fails)

    assert (sample.labels, sample.cpu_ns) == ((), 10 * MS)


def spent(samples: list[Sample]) -> list[tuple[str, int, int]]:
    """Function, CPU and elapsed milliseconds of each."""
    return [(sample.stack.frames[0].function, sample.cpu_ns // MS, sample.wall_ns // MS) for sample in samples]


def seen(cpu: int = 0, waited_before: int = 0, waited: int = 0, *, stack: int) -> tuple[object, ...]:
    """What the extension says of this thread; milliseconds."""
    return time.monotonic_ns(), KEY, stack, cpu * MS, waited_before * MS, waited * MS, 0, 0, 0, None, None


def test_samples_come_some_at_a_time(accounts: Accounts) -> None:
    """Each once: hundreds that are there together would wake the garbage collector."""
    raw = [seen(cpu=number, stack=STACK) for number in range(1, 1001)]
    portions = list(accounts.samples(list(chain.from_iterable(raw)), final=False))
    assert max(map(len, portions)) < 100
    assert [cpu for _, cpu, _ in spent(list(chain.from_iterable(portions)))] == list(range(1, 1001))


def test_who_works_is_there_for_as_long(accounts: Accounts) -> None:
    samples = taken(accounts, seen(cpu=10, stack=STACK))

    assert spent(samples) == [("pay", 10, 10)]


def test_who_waits_has_waited_where_it_was_seen(accounts: Accounts) -> None:
    raw = [
        seen(waited=5, stack=SLEEP),
        seen(cpu=10, stack=STACK),  # noted by itself: it has not been seen there by who looks
        seen(waited_before=40, waited=3, stack=SLEEP),
    ]
    samples = taken(accounts, *raw)

    assert spent(samples) == [("sleep", 0, 5), ("pay", 10, 10), ("sleep", 0, 40), ("sleep", 0, 3)]


def test_who_runs_when_it_is_looked_at_has_waited_where_it_works(accounts: Accounts) -> None:
    raw = [seen(cpu=10, stack=STACK), seen(waited=5, stack=RUNNING), seen(waited_before=7, waited=1, stack=SLEEP)]
    samples = taken(accounts, *raw)

    assert spent(samples) == [("pay", 10, 10), ("pay", 0, 5), ("pay", 0, 7), ("sleep", 0, 1)]


def test_who_runs_and_has_noted_nothing_yet_is_said_to_run(accounts: Accounts) -> None:
    samples = taken(accounts, seen(waited=5, stack=RUNNING))

    assert spent(samples) == [("<running>", 0, 5)]


def test_who_let_a_wait_go_on_is_known_also_when_it_has_ended_first() -> None:
    accounts = Accounts()
    accounts.learn_threads([(KEY, threading.get_ident(), threading.get_native_id())])
    accounts.forget_thread(KEY)

    (wait,) = accounts.lock_waits([(KEY + 1, -1, KEY, 1, 2_000_000, None, None)])

    assert wait.holder is not None
    assert wait.holder.name == threading.current_thread().name


def test_of_those_that_have_ended_the_last_are_known() -> None:
    accounts = Accounts()
    for key in range(1, 2_000):
        accounts.learn_threads([(key, threading.get_ident(), threading.get_native_id())])
        accounts.forget_thread(key)

    old, new = accounts.lock_waits([(5_000, -1, holder, 1, 2_000_000, None, None) for holder in (1, 1_999)])

    assert old.holder is None
    assert new.holder is not None
