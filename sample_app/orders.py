"""The order book: a small SQLite database, a connection for each question."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

CUSTOMERS = 50
ORDERS = 5_000


class OrderBook:
    """Orders in a SQLite file. Blocking, so an event loop asks it through a thread pool."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Create the table and put the orders in."""
        rows = ((number, number % CUSTOMERS, number * 7 % 1000) for number in range(ORDERS))
        with closing(sqlite3.connect(self._path)) as database, database:
            database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, cents INTEGER)")
            database.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)

    def totals(self) -> dict[int, int]:
        """What each customer has spent, in cents."""
        with closing(sqlite3.connect(self._path)) as database:
            return dict(database.execute("SELECT customer, sum(cents) FROM orders GROUP BY customer"))
