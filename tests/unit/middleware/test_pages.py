"""The index page."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

from profiling_middleware.last_failures import Failure
from profiling_middleware.middleware.pages import index_page
from profiling_middleware.status import EngineStatus, Status, WaitingStatus
from profiling_middleware.upload_counts import StoredCapture, UploadCounts
from profiling_middleware.workers.meeting import Worker

MakeStatus = Callable[..., Status]


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


def test_the_workers_are_listed(make_status: MakeStatus) -> None:
    workers = [
        Worker(pid=7, instance="web-1-7-0a1b2c3d", enabled=True, started_ns=1_769_441_400_000_000_000),
        Worker(pid=8, instance="<b>", enabled=False, started_ns=None),
    ]
    page = Page(index_page(make_status(), ["cpu"], workers))

    assert "b" not in page.tags
    text = page.text[page.text.index("Workers on this host") :]
    assert text[1:13] == [
        *("Process id", "Instance", "Started", "Enabled"),
        *("7", "web-1-7-0a1b2c3d", "2026-01-26 15:30:00 UTC", "yes"),
        *("8", "<b>", "no", "no"),
    ]


def facts(page: str) -> dict[str, str]:
    rows = page.partition("<h1>This process</h1>")[2].partition("</table>")[0].split("<tr>")[1:]
    return {
        row.partition("<th>")[2].partition("</th>")[0]: row.partition("<td>")[2].partition("</td>")[0] for row in rows
    }


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of the table under a title, without its head."""
    table = page.partition(f"<h1>{title}</h1><table>")[2].partition("</table>")[0]
    return [re.findall("<td>(.*?)</td>", row) for row in table.split("<tr>")[2:]]


def test_the_page_says_how_the_profiler_is_doing(make_status: MakeStatus) -> None:
    assert facts(index_page(make_status(), ["cpu", "wall"])) == {
        "Instance": "web-1-7-0a1b2c3d",
        "Periodic windows": "cpu, wall, every 5m for 2m",
        "Next window": "in 42 s",
        "Missed windows": "6",
        "Captures being taken": "2",
        "Failed captures": "5",
        "Engine": "python, not native: the C extension was not built",
        "Sampling interval": "20 ms",
        "Own CPU of sampling": "0.40% of a core in the last minute, 1.00% allowed; 1.25 s altogether",
        "Limits met": "captures at once 2 times, uploads an hour 1 times",
        "Store": "s3://stl-debugging-prod",
        "Stored": "3 captures, 48.2 KiB",
        "Last key": "the/last/key",
        "Waiting for the store": "4 captures, 2.0 KiB",
        "They wait in": "/var/spool/checkout",
        "Spool": "cannot be used: No space left on device",
        "Failed uploads": "2",
        "Last failure": "no network",
        "Lost captures": "1",
    }


def test_the_page_lists_the_last_uploads_and_failures(make_status: MakeStatus) -> None:
    page = index_page(make_status(), ["cpu"])

    assert rows(page, "Last uploads") == [["2026-01-26T15:30:00.250Z", "cpu", "2.0 KiB", "the/last/key"]]
    assert rows(page, "Last failures") == [["2026-01-26T15:30:01.000Z", "upload", "2", "no network"]]


def test_the_page_of_a_profiler_that_is_off_says_what_would_switch_it_on() -> None:
    off = Status(service="checkout", instance="i", enabled=False, kinds=("cpu",), interval=300, duration=120, store="")

    page = index_page(off, ["cpu"])

    shown = facts(page)
    assert shown["Periodic windows"] == "off (PROFILE_ENABLED)"
    assert shown["Next window"] == "none"
    assert shown["Store"] == "none (PROFILE_S3_BUCKET, PROFILE_STORE)"
    assert (shown["Last key"], shown["Last failure"], shown["Spool"]) == ("none", "none", "no trouble")
    assert (shown["Engine"], shown["Sampling interval"]) == ("none yet: the first capture chooses it", "none")
    assert shown["Own CPU of sampling"].startswith("not sampling now, 1.00% allowed")
    assert "<h1>Last uploads</h1><p>None.</p><h1>Last failures</h1><p>None.</p>" in page


def test_the_native_engine_needs_no_explanation(make_status: MakeStatus) -> None:
    page = index_page(make_status(engine=EngineStatus(name="native", interval=0.01)), ["cpu"])

    assert facts(page)["Engine"] == "native"


def test_every_kind_has_a_link_and_its_views(make_status: MakeStatus) -> None:
    page = index_page(make_status(), ["cpu", "wall"])

    for kind in ("cpu", "wall"):
        for link in (f"{kind}?seconds=30", *(f"{kind}?seconds=5&amp;format={view}" for view in ("html", "text"))):
            assert f'href="{link}"' in page


def test_what_a_store_answers_cannot_become_part_of_the_page(make_status: MakeStatus) -> None:
    nasty = "<script>alert(1)</script>"
    harmless = Page(index_page(make_status(), ["cpu"]))
    stored = StoredCapture(key=nasty, kind=nasty, size=1, stored_ns=0)
    changes: dict[str, Any] = {
        "store": nasty,
        "uploads": UploadCounts(last_stored=(stored,)),
        "last_failures": (Failure(what=nasty, reason=nasty, times=1, last_ns=0),),
        "waiting": WaitingStatus(place=nasty, spool_trouble=nasty),
        "engine": EngineStatus(name=nasty, why_not_native=nasty),
    }

    page = Page(index_page(make_status(**changes), ["cpu"]))

    assert page.tags == harmless.tags
    assert "".join(page.text).count(nasty) == 11
