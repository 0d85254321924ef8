"""The index page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from profiling_middleware.middleware.pages import index_page
from profiling_middleware.profiler import Status
from profiling_middleware.uploads import UploadCounts
from profiling_middleware.workers.meeting import Worker


class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_workers_are_listed() -> None:
    workers = [
        Worker(pid=7, instance="web-1-7-0a1b2c3d", enabled=True, started_ns=1_769_441_400_000_000_000),
        Worker(pid=8, instance="<b>", enabled=False, started_ns=None),
    ]
    page = Page(index_page(status(), ["cpu"], workers))

    assert "b" not in page.tags
    text = page.text[page.text.index("Workers on this host") :]
    assert text[1:13] == [
        *("Process id", "Instance", "Started", "Enabled"),
        *("7", "web-1-7-0a1b2c3d", "2026-01-26 15:30:00 UTC", "yes"),
        *("8", "<b>", "no", "no"),
    ]


def status(**changes: Any) -> Status:
    values: dict[str, Any] = {
        "instance": "web-1-7-0a1b2c3d",
        "enabled": True,
        "kinds": ("cpu", "wall"),
        "store": "s3://stl-debugging-prod",
        "next_window": 41.6,
        "uploads": UploadCounts(
            stored=3, stored_bytes=49_357, failures=2, dropped=1, last_key="the/last/key", last_failure="no network"
        ),
        "waiting": 4,
        "waiting_bytes": 2048,
        "failed_captures": 5,
        "missed_windows": 6,
    }
    return Status(**(values | changes))


def facts(page: str) -> dict[str, str]:
    rows = page.partition("<h1>This process</h1>")[2].split("<tr>")[1:]
    return {
        row.partition("<th>")[2].partition("</th>")[0]: row.partition("<td>")[2].partition("</td>")[0] for row in rows
    }


def test_the_page_says_how_the_profiler_is_doing() -> None:
    assert facts(index_page(status(), ["cpu", "wall"])) == {
        "Instance": "web-1-7-0a1b2c3d",
        "Periodic windows": "cpu, wall",
        "Next window": "in 42 s",
        "Missed windows": "6",
        "Store": "s3://stl-debugging-prod",
        "Stored": "3 captures, 48.2 KiB",
        "Last key": "the/last/key",
        "Waiting for the store": "4 captures, 2.0 KiB",
        "Failed uploads": "2",
        "Last failure": "no network",
        "Lost captures": "1",
        "Failed captures": "5",
    }


def test_the_page_of_a_profiler_that_is_off_says_what_would_switch_it_on() -> None:
    off = status(enabled=False, store="", next_window=None, uploads=UploadCounts(), waiting=0, waiting_bytes=0)

    shown = facts(index_page(off, ["cpu"]))

    assert shown["Periodic windows"] == "off (PROFILE_ENABLED)"
    assert shown["Next window"] == "none"
    assert shown["Store"] == "none (PROFILE_S3_BUCKET, PROFILE_STORE)"
    assert (shown["Last key"], shown["Last failure"]) == ("none", "none")


def test_every_kind_has_a_link_and_its_views() -> None:
    page = index_page(status(), ["cpu", "wall"])

    for kind in ("cpu", "wall"):
        for link in (f"{kind}?seconds=30", *(f"{kind}?seconds=5&amp;format={view}" for view in ("html", "text"))):
            assert f'href="{link}"' in page


def test_what_a_store_answers_cannot_become_part_of_the_page() -> None:
    nasty = "<script>alert(1)</script>"
    harmless = Page(index_page(status(), ["cpu"]))

    page = Page(index_page(status(uploads=UploadCounts(last_failure=nasty, last_key=nasty), store=nasty), ["cpu"]))

    assert page.tags == harmless.tags
    assert page.text.count(nasty) == 3
