"""Profiles for people, rendered by the real pyinstrument."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from profiling_middleware.encoders.views import VIEWS, render_view
from profiling_middleware.model import Frame, Label, Profile, ProfileSample, Stack

MakeProfile = Callable[..., Profile]
Node = dict[str, Any]

MAIN, TOTAL = Frame("app.main", "/srv/app.py", 90, 80), Frame("shop.cart.Cart.total", "/srv/shop.py", 12, 10)


class Tags(HTMLParser):
    """The tags of a page in their order, as a browser finds them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"/{tag}")


def session_of(page: bytes) -> Any:
    """The data that a page hands to its own script."""
    found = re.search(r"const sessionData = (.*);\n\s*pyinstrumentHTMLRenderer", page.decode(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def nodes(tree: Node) -> Iterator[Node]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node["children"]


def one_stack(make_profile: MakeProfile, *frames: Frame, thread: str = "MainThread") -> Profile:
    return make_profile(samples=[ProfileSample(Stack(frames), (Label("thread", thread),), (3, 30_000_000))])


# -- html ---------------------------------------------------------------------------------------------------------


def test_the_times_of_the_page_add_up_from_leaf_to_root(make_profile: MakeProfile) -> None:
    tree = session_of(render_view(make_profile(), "html"))["frame_tree"]

    assert tree["time"] == pytest.approx(0.04)
    for node in nodes(tree):
        if node["children"]:
            assert node["time"] == pytest.approx(sum(child["time"] for child in node["children"]))


def test_the_page_shows_service_then_thread_then_the_stack_from_its_root(make_profile: MakeProfile) -> None:
    tree = session_of(render_view(make_profile(), "html"))["frame_tree"]

    thread = tree["children"][0]
    main = thread["children"][0]
    total = main["children"][0]
    assert [node["identifier"].split("\x00")[0] for node in (tree, thread, main, total)] == [
        "watcher cpu",
        "thread MainThread",
        "app.main",
        "shop.cart.Cart.total",
    ]
    assert [node["time"] for node in (tree, thread, main, total)] == pytest.approx([0.04, 0.03, 0.03, 0.03])


def test_the_page_knows_file_first_line_and_current_line_of_a_function(make_profile: MakeProfile) -> None:
    tree = session_of(render_view(make_profile(), "html"))["frame_tree"]

    total = tree["children"][0]["children"][0]["children"][0]
    assert total["identifier"] == "shop.cart.Cart.total\x00/srv/shop.py\x0010"
    assert total["attributes"] == pytest.approx({"l12": 0.03})


def test_the_page_says_what_was_captured_when_and_how_long(make_profile: MakeProfile) -> None:
    session = session_of(render_view(make_profile(), "html"))["session"]

    assert session["target_description"] == "cpu of watcher, 2026-01-26 15:30:00 UTC"
    assert (session["start_time"], session["duration"], session["sample_count"]) == (1_769_441_400.0, 120.0, 4)
    assert session["cpu_time"] == pytest.approx(0.04)


def test_a_page_loads_nothing_from_elsewhere(make_profile: MakeProfile) -> None:
    assert Tags(render_view(make_profile(), "html").decode()).links == []


@pytest.mark.parametrize(
    "name",
    [
        "</script><script>alert(1)</script>",
        "</SCRIPT ><img src=x onerror=alert(1)>",
        "<!--<script>",
        "<!-- <script> </script> -->",
        "</style></body></html>",
        '"});alert(1);//',
        "\\u003c/script>",
        "\u2028alert(1)",
    ],
)
def test_no_name_breaks_out_of_the_page(make_profile: MakeProfile, name: str) -> None:
    harmless = Tags(render_view(one_stack(make_profile, Frame("f", "/f.py", 1, 1)), "html").decode())

    page = render_view(one_stack(make_profile, Frame(name, name, 1, 1), thread=name), "html")

    assert Tags(page.decode()).found == harmless.found
    assert b"<!--" not in page[page.index(b"const sessionData") :]
    assert session_of(page)["frame_tree"]["time"] == pytest.approx(0.03)


# -- text ---------------------------------------------------------------------------------------------------------


def test_the_text_shows_time_function_file_and_line(make_profile: MakeProfile) -> None:
    text = [" ".join(line.split()) for line in render_view(make_profile(), "text").decode().splitlines()]

    begin = text.index("0.04 watcher cpu")
    assert text[begin : begin + 6] == [
        "0.04 watcher cpu",
        "\u251c\u2500 0.03 thread MainThread",
        "\u2502 \u2514\u2500 0.03 app.main /srv/app.py:80",
        "\u2502 \u2514\u2500 0.03 shop.cart.Cart.total /srv/shop.py:10",
        "\u2514\u2500 0.01 thread worker-1",
        "\u2514\u2500 0.01 app.main /srv/app.py:80",
    ]


def test_the_text_begins_with_the_comments(make_profile: MakeProfile) -> None:
    profile = make_profile(comments=("engine: python", "dropped: 7"))

    assert render_view(profile, "text").decode().startswith("engine: python\ndropped: 7\n")


def test_the_text_is_without_colours(make_profile: MakeProfile) -> None:
    assert b"\x1b" not in render_view(make_profile(), "text")


def test_the_same_function_called_at_two_places_is_one_line_of_the_text(make_profile: MakeProfile) -> None:
    stacks = [Stack((TOTAL._replace(line=line), MAIN._replace(line=line))) for line in (11, 12, 13)]
    samples = [ProfileSample(stack, (Label("thread", "t"),), (1, 10_000_000)) for stack in stacks]

    text = render_view(make_profile(samples=samples), "text").decode()

    assert text.count("shop.cart.Cart.total") == 1
    assert "0.03 shop.cart.Cart.total" in re.sub(" +", " ", text)


# -- speedscope ---------------------------------------------------------------------------------------------------


def speedscope_times(profile: Profile) -> dict[str, float]:
    """Total seconds of every frame name, read as speedscope reads an evented profile."""
    file = json.loads(render_view(profile, "speedscope"))
    assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    (evented,) = file["profiles"]
    assert (evented["type"], evented["unit"]) == ("evented", "seconds")
    totals: dict[str, float] = {}
    opened: list[tuple[int, float]] = []
    before = evented["startValue"]
    for event in evented["events"]:
        assert event["at"] >= before
        before = event["at"]
        if event["type"] == "O":
            opened.append((event["frame"], event["at"]))
        else:
            number, since = opened.pop()
            assert number == event["frame"]
            name = file["shared"]["frames"][number]["name"]
            totals[name] = totals.get(name, 0.0) + event["at"] - since
    assert opened == []
    assert before <= evented["endValue"]
    return totals


def test_the_times_of_speedscope_add_up(make_profile: MakeProfile) -> None:
    assert speedscope_times(make_profile()) == pytest.approx(
        {
            "watcher cpu": 0.04,
            "thread MainThread": 0.03,
            "thread worker-1": 0.01,
            "app.main": 0.04,
            "shop.cart.Cart.total": 0.03,
        }
    )


def test_speedscope_knows_file_and_line_of_a_function(make_profile: MakeProfile) -> None:
    frames = json.loads(render_view(make_profile(), "speedscope"))["shared"]["frames"]

    assert {"name": "shop.cart.Cart.total", "file": "/srv/shop.py", "line": 10} in frames


# -- all of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_an_empty_profile_can_be_viewed(make_profile: MakeProfile, view: str) -> None:
    assert render_view(make_profile(samples=[]), view) != b""


def test_the_text_of_an_empty_profile_says_that_it_is_empty(make_profile: MakeProfile) -> None:
    assert render_view(make_profile(samples=[], comments=("a",)), "text") == b"a\nnothing was sampled\n"


@pytest.mark.parametrize("view", VIEWS)
def test_the_deepest_stack_can_be_viewed(make_profile: MakeProfile, view: str) -> None:
    deep = (*(Frame(f"app.f{depth}", "/srv/app.py", depth + 1, 1) for depth in range(512)), Frame("<root>", "", 0, 0))

    assert b"app.f0" in render_view(one_stack(make_profile, *deep), view)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "frame",
    [
        Frame("a\x00b\x01c", "/srv/a\x00b\x01c.py", 3, 1),
        Frame("\udcff", "/srv/\udcff.py", 3, 1),
        Frame("", "", 0, 0),
        Frame("[self]", "", 0, 0),
        Frame("[await]", "", 0, 0),
        Frame("\u30ab\u30fc\u30c8", "/srv/\u00e4.py", 3, 1),
        Frame("importlib._bootstrap.f", "<frozen importlib._bootstrap>", 3, 1),
        Frame("f", "/srv/pyinstrument/__main__.py", 3, 1),
        Frame("f", "/srv/a.py", -1, -1),
    ],
    ids=lambda frame: ascii(frame.function),
)
def test_any_name_can_be_viewed_as_root_and_as_leaf(make_profile: MakeProfile, frame: Frame, view: str) -> None:
    render_view(one_stack(make_profile, frame, MAIN, thread=frame.function), view).decode()
    render_view(one_stack(make_profile, MAIN, frame, thread=frame.function), view).decode()


def test_what_separates_the_parts_of_a_frame_is_left_out_of_its_names(make_profile: MakeProfile) -> None:
    frame = Frame("a\x00b\x01c", "/srv/a\x00b\x01c.py", 30, 7)

    frames = json.loads(render_view(one_stack(make_profile, frame), "speedscope"))["shared"]["frames"]

    assert {"name": "abc", "file": "/srv/abc.py", "line": 7} in frames


def test_a_sample_without_a_thread_is_shown_all_the_same(make_profile: MakeProfile) -> None:
    profile = make_profile(samples=[ProfileSample(Stack((MAIN,)), (), (1, 10_000_000))])

    assert speedscope_times(profile) == pytest.approx({"watcher cpu": 0.01, "thread": 0.01, "app.main": 0.01})


def test_more_stacks_than_anybody_reads_are_summed_and_no_time_is_lost(make_profile: MakeProfile) -> None:
    thread = (Label("thread", "t"),)
    samples = [
        ProfileSample(Stack((Frame(f"f{n}", "a.py", 1, 1), MAIN)), thread, (1, n * 1000)) for n in range(1, 4001)
    ]

    tree = session_of(render_view(make_profile(samples=samples), "html"))["frame_tree"]

    shown = [node for node in nodes(tree) if not node["children"]]
    names = {node["identifier"].split("\x00")[0] for node in nodes(tree)}
    assert len(shown) < 2500
    assert tree["time"] == pytest.approx(sum(range(1, 4001)) / 1e6)
    assert "<stacks too small to show>" in names
    assert {"f4000", "f3999"} < names  # the largest are those that stay
    assert "f1" not in names


def test_a_view_that_does_not_exist_is_refused(make_profile: MakeProfile) -> None:
    with pytest.raises(KeyError, match="flamegraph"):
        render_view(make_profile(), "flamegraph")


def test_every_view_has_its_media_type() -> None:
    assert dict(VIEWS) == {
        "html": "text/html; charset=utf-8",
        "speedscope": "application/json",
        "text": "text/plain; charset=utf-8",
    }
