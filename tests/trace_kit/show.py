"""Perfetto's UI with a trace in it, served from this machine, and a picture of it: scripts/show-trace --help."""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from trace_kit.perfetto import MissingToolError, program, ui_folder
from trace_kit.trace_processor import PROBLEMS, NotATraceError, TraceProcessor

_BEFORE_TRACE = "/trace/"
_SCREENSHOT = Path(__file__).with_name("screenshot.js")


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, trace: Path, *arguments: Any, **options: Any) -> None:
        self._trace = trace
        super().__init__(*arguments, **options)

    def translate_path(self, path: str) -> str:
        return str(self._trace) if path.startswith(_BEFORE_TRACE) else super().translate_path(path)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serve(trace: Path, port: int = 0) -> Iterator[str]:
    """Perfetto's UI and the trace, on 127.0.0.1 only; yields where."""
    handler = functools.partial(_Handler, trace, directory=str(ui_folder()))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def address(
    base: str,
    trace: Path,
    *,
    expand: Sequence[str] = (".",),
    pin: Sequence[str] = (),
    seen: tuple[int, int] | None = None,
) -> str:
    """Opens the trace in the UI at `base`; `expand` and `pin` are regular expressions for tracks.

    `seen` is the first and the last time stamp to be shown, both within the trace; without it all of it is.
    """
    commands = [{"id": "dev.perfetto.ExpandTracksByRegex", "args": [name]} for name in expand]
    commands += [{"id": "dev.perfetto.PinTracksByRegex", "args": [name]} for name in pin]
    arguments = {
        "url": f"{base}{_BEFORE_TRACE}{quote(trace.name)}",
        "hideSidebar": "true",
        "startupCommands": json.dumps(commands),
    }
    if seen is not None:
        arguments |= {"visStart": str(seen[0]), "visEnd": str(seen[1])}
    return f"{base}/#!/?{urlencode(arguments)}"


def bounds(trace: Path) -> tuple[int, int]:
    """The first and the last time stamp of a trace, whose problems it tells; NotATraceError if it does not load."""
    (found,), problems = TraceProcessor().query(trace, "select start_ts, end_ts from trace_bounds", PROBLEMS)
    for problem in problems:
        print("{severity}: {name} ({value})".format_map(problem), file=sys.stderr)
    return found["start_ts"], found["end_ts"]


def take_picture(url: str, png: Path, size: str = "1600x1000", javascript: str = "") -> None:
    """What the UI shows there, once it has loaded the trace and `javascript` has run; CalledProcessError if nothing."""
    node, chromium = program(("node", "nodejs"), "nodejs"), program(("chromium", "google-chrome"), "chromium")
    subprocess.run([node, _SCREENSHOT, chromium, url, png, *size.split("x"), javascript], check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Without a picture's name it serves until Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        _show(options)
    except (MissingToolError, NotATraceError) as error:
        sys.exit(f"{options.trace}: {error}")
    except subprocess.CalledProcessError:
        sys.exit("there is no picture")  # screenshot.js has said why
    except KeyboardInterrupt:
        print()


def _show(options: argparse.Namespace) -> None:
    start, end = bounds(options.trace)
    seen = _within(options.between, start, end) if options.between else None
    with serve(options.trace, options.port) as base:
        url = address(base, options.trace, expand=options.expand or ["."], pin=options.pin, seen=seen)
        if options.png is None:
            print(url, flush=True)
            threading.Event().wait()
        else:
            take_picture(url, options.png, options.size, options.javascript)


def _within(seconds: Sequence[float], start: int, end: int) -> tuple[int, int]:
    first, last = (min(start + round(each * 1e9), end) for each in seconds)
    return first, last


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/show-trace",
        description="Serves Perfetto's UI with TRACE in it on 127.0.0.1 and prints its URL, or takes a picture of it.",
    )
    parser.add_argument("trace", metavar="TRACE", type=_existing_file, help="plain or gzipped")
    parser.add_argument("png", metavar="PNG", nargs="?", type=Path, help="take a picture with headless Chromium")
    parser.add_argument("--expand", metavar="REGEX", action="append", help="open only the groups and tracks so named")
    parser.add_argument(
        "--pin", metavar="REGEX", action="append", default=[], help="pin the tracks so named to the top"
    )
    parser.add_argument(
        "--between", metavar=("FROM", "TO"), nargs=2, type=float, help="show these seconds of the trace"
    )
    parser.add_argument("--javascript", default="", help="evaluate this in the page before the picture is taken")
    parser.add_argument("--size", default="1600x1000", help="the picture's, in pixels (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="any that is free")
    return parser


def _existing_file(name: str) -> Path:
    if not Path(name).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {name}")
    return Path(name)


if __name__ == "__main__":
    main()
