"""The sample service: each endpoint answers, and profiling is a middleware away."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from profiling_middleware import Settings
from sample_app import work
from sample_app.app import ROUTES, create_app
from sample_app.load import DEFAULT_MIX

pytestmark = pytest.mark.server

TOKEN = "only-for-this-test"


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The service behind a real server, in a thread of this process; its URL."""
    config = uvicorn.Config(create_app(settings), log_level="error", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            deadline = time.monotonic() + 30
            while not server.started and thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert server.started
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Settings(token=TOKEN)) as url:
        yield url


def get(url: str, headers: dict[str, str] | None = None) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=30) as response:
        text: str = response.read().decode()
        return text


def get_json(url: str) -> Any:
    return json.loads(get(url))


def test_the_index_lists_every_route(url: str) -> None:
    page = get(f"{url}/")

    assert all(f'<a href="{route.path}">' in page for route in ROUTES)
    assert "/debug/pprof/" in page


def test_hot_finds_the_best_prices(url: str) -> None:
    # Each line's profit is highest half-way between its cost and the price at which nobody buys.
    costs = [10.0 + line for line in range(work.BASKET_LINES)]
    expected = sum((cost + 1000 / 1.5) / 2 for cost in costs)

    assert get_json(f"{url}/hot")["total"] == pytest.approx(expected, abs=0.1)


def test_report_reads_back_what_it_wrote(url: str) -> None:
    assert get_json(f"{url}/report") == {"rows": work.REPORT_ROWS}


def test_orders_are_summed_by_customer(url: str) -> None:
    totals = get_json(f"{url}/orders")["cents"]

    assert len(totals) == 50
    assert sum(totals.values()) == sum(number * 7 % 1000 for number in range(5_000))


def test_checkout_counts_payments(url: str) -> None:
    first, second = (get_json(f"{url}/checkout")["payment"] for _ in range(2))

    assert second == first + 1


def test_fanout_brings_all_offers_in_order(url: str) -> None:
    assert get_json(f"{url}/fanout") == {"offers": [f"offer of supplier {number}" for number in range(5)]}


def test_upstream_answers(url: str) -> None:
    assert get_json(f"{url}/upstream") == {"stock": "in stock"}


def test_mistake_answers_all_the_same(url: str) -> None:
    assert get_json(f"{url}/mistake") == {"checksum": work.write_audit_log()}


def test_stream_sends_every_line(url: str) -> None:
    lines = get(f"{url}/stream").splitlines()

    assert lines[:2] == ["order,cents", "0,0"]
    assert len(lines) == 21


def test_health_answers(url: str) -> None:
    assert get(f"{url}/health") == "ok"


def test_the_default_load_asks_for_what_there_is() -> None:
    assert set(DEFAULT_MIX) <= {route.path for route in ROUTES}


def test_the_profiler_answers_on_its_own_routes(url: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        get(f"{url}/debug/pprof/cmdline")
    refused.value.close()

    assert get(f"{url}/debug/pprof/cmdline", {"Authorization": f"Bearer {TOKEN}"})


def test_the_terminal_takes_one_payment_at_a_time() -> None:
    terminal = work.CardTerminal(seconds=0)
    payments: list[int] = []
    threads = [threading.Thread(target=lambda: payments.append(terminal.pay())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(payments) == list(range(1, 9))
