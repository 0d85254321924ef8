"""What requests for captures may take of a process, on a clock of the test's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from profiling_middleware.limits import CLIENTS, UPLOADS_AN_HOUR, LimitMet, Limits


@pytest.fixture
def limits(clock: Any) -> Limits:
    return Limits(clock)


def upload(limits: Limits) -> Any:
    return limits.admit(waits=False, uploads=True)


def test_so_many_clients_at_once_and_then_one_for_each_that_leaves(limits: Limits) -> None:
    places = [limits.admit(waits=True, uploads=False) for _ in range(CLIENTS)]
    with pytest.raises(LimitMet, match="8 captures on demand run already or are being read") as met:
        limits.admit(waits=True, uploads=False)
    places[5].leave()
    places[5].leave()
    limits.admit(waits=True, uploads=False)
    with pytest.raises(LimitMet):
        limits.admit(waits=True, uploads=False)

    assert met.value.retry_after == 10
    assert limits.met == {"captures at once": 2}


def test_whoever_does_not_wait_is_no_client(limits: Limits) -> None:
    for _ in range(CLIENTS + 1):
        limits.admit(waits=False, uploads=True)
    for _ in range(CLIENTS):
        limits.admit(waits=True, uploads=False)


def test_so_many_uploads_within_an_hour_whenever_that_begins(limits: Limits, clock: Any) -> None:
    """A window that slides: not so many at the end of one hour and as many at the beginning of the next."""
    for number in range(UPLOADS_AN_HOUR):
        clock.now = 1000.0 + number * 20  # 40 minutes
        upload(limits)
    with pytest.raises(LimitMet, match="120 captures on demand have gone to the store within an hour") as met:
        upload(limits)
    assert met.value.retry_after == 1000 + 3600 - clock.now

    clock.now = 1000 + 3599.9
    with pytest.raises(LimitMet):
        upload(limits)
    clock.now = 1000 + 3600
    upload(limits)
    with pytest.raises(LimitMet) as met:
        upload(limits)
    assert met.value.retry_after == 20
    clock.now = 1000 + 3600 + 119 * 20 + 3600
    for _ in range(UPLOADS_AN_HOUR):
        upload(limits)
    assert limits.met == {"uploads an hour": 3}


def test_what_is_not_stored_has_no_limit_an_hour(limits: Limits) -> None:
    for _ in range(UPLOADS_AN_HOUR):
        upload(limits)
    for _ in range(UPLOADS_AN_HOUR):
        limits.admit(waits=True, uploads=False).leave()


def test_a_request_that_is_refused_for_one_limit_counts_for_none(limits: Limits) -> None:
    places = [limits.admit(waits=True, uploads=False) for _ in range(CLIENTS)]
    with pytest.raises(LimitMet):
        limits.admit(waits=True, uploads=True)
    for place in places:
        place.leave()
    for _ in range(UPLOADS_AN_HOUR):
        upload(limits)
    for _ in range(CLIENTS):
        with pytest.raises(LimitMet):
            limits.admit(waits=True, uploads=True)
    limits.admit(waits=True, uploads=False)


def test_what_is_not_stored_after_all_makes_room_once(limits: Limits, clock: Any) -> None:
    places = [upload(limits) for _ in range(UPLOADS_AN_HOUR)]
    for _ in range(2):
        places[7].nothing_stored()
    upload(limits)
    with pytest.raises(LimitMet):
        upload(limits)

    clock.now += 3601
    upload(limits)
    places[8].nothing_stored()  # its hour has passed
    for _ in range(UPLOADS_AN_HOUR - 1):
        upload(limits)
    with pytest.raises(LimitMet):
        upload(limits)


def test_threads_that_ask_at_once_get_no_more(limits: Limits) -> None:
    def ask(_: int) -> bool:
        try:
            limits.admit(waits=True, uploads=True)
        except LimitMet:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(200))) == CLIENTS
    assert limits.met == {"captures at once": 200 - CLIENTS}
