"""The work of the sample service, one function for each thing that a profile should be able to show."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator

BASKET_LINES = 3
PRICE_CANDIDATES = 200_000
REPORT_ROWS = 8_000
SUPPLIER_SECONDS = (0.01, 0.02, 0.03, 0.04, 0.05)


def quote_basket() -> float:
    """Price a basket: pure Python, a few calls deep, and by far the most CPU time of the service."""
    total = 0.0
    for line in range(BASKET_LINES):
        total += price_line(cost=10.0 + line)
    return total


def price_line(cost: float) -> float:
    """Price one line of a basket."""
    return best_price(cost, demand=1000.0)


def best_price(cost: float, demand: float) -> float:
    """The price with the highest profit, found by trying them all: what a CPU profile should point at."""
    best, best_profit, price = cost, 0.0, cost
    for _ in range(PRICE_CANDIDATES):
        price += 0.01
        profit = (price - cost) * (demand - price * 1.5)
        if profit > best_profit:
            best, best_profit = price, profit
    return best


def monthly_report() -> int:
    """Write a big JSON document and read it back; the number of its rows."""
    rows = [{"order": number, "customer": f"c{number % 97}", "cents": number * 7} for number in range(REPORT_ROWS)]
    return len(json.loads(json.dumps(rows)))


class CardTerminal:
    """Takes one payment at a time: whoever comes meanwhile waits for the lock."""

    def __init__(self, seconds: float = 0.01) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._payments = 0

    def pay(self) -> int:
        """Hold the terminal for as long as a payment takes; how many there have been."""
        with self._lock:
            time.sleep(self._seconds)
            self._payments += 1
            return self._payments


async def collect_offers() -> list[str]:
    """Ask all suppliers at once; their answers, as they were asked."""
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(ask_supplier(number, seconds), name=f"supplier-{number}")
            for number, seconds in enumerate(SUPPLIER_SECONDS)
        ]
    return [task.result() for task in asked]


async def ask_supplier(number: int, seconds: float) -> str:
    """One supplier, who takes a while."""
    await asyncio.sleep(seconds)
    return f"offer of supplier {number}"


def write_audit_log() -> int:
    """Block the caller with a wait and some arithmetic: harmless in a thread, a mistake on an event loop."""
    time.sleep(0.03)
    checksum = 0
    for number in range(50_000):
        checksum = (checksum * 31 + number) & 0xFFFF
    return checksum


def export_lines(count: int = 20) -> Iterator[str]:
    """The lines of a CSV export."""
    yield "order,cents\n"
    for number in range(count):
        yield f"{number},{number * 7}\n"
