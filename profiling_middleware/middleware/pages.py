"""The index page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from profiling_middleware.status import EngineStatus, Status
from profiling_middleware.units import format_duration, format_size, format_time
from profiling_middleware.workers.meeting import Worker

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 50rem; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } table { border-collapse: collapse } td, th { padding: .2rem 1rem .2rem 0; text-align: left }
th { font-weight: 600 } code { background: #f2f2f2; padding: .1rem .3rem; border-radius: 3px }
"""
_TITLES = {
    "cpu": "where the processor works",
    "wall": "where threads spend their time, running or waiting",
    "block": "where threads and tasks waited, and why",
    "mutex": "whose release ended waits for locks",
    "trace": "what happens, moment by moment, for ui.perfetto.dev",
}
_LAST_SECONDS = 10


def index_page(status: Status, kinds: Sequence[str], workers: Sequence[Worker] = ()) -> str:
    """The page at /debug/pprof/: what can be captured, and how the profiler is doing."""
    captures = "".join(_capture_row(kind) for kind in kinds)
    facts = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in _facts(status))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>/debug/pprof/</title>"
        f"<style>{_STYLE}</style><h1>/debug/pprof/</h1>"
        f"<table><tr><th>Profile</th><th>Shows</th><th>View</th></tr>{captures}"
        "<tr><td><a href=cmdline>cmdline</a></td><td>the command line of this process</td><td></td></tr></table>"
        "<p><code>curl -o cpu.pprof.gz '…/debug/pprof/cpu?seconds=30'</code>, then <code>go tool pprof -http=: "
        "cpu.pprof.gz</code>. Parameters: <code>seconds</code>, <code>format</code> (pprof, html, speedscope, text), "
        "<code>upload=0</code> keeps it out of the store, <code>wait=0</code> answers at once with its key.</p>"
        f"{_workers(workers)}"
        f"<h1>This process</h1><table>{facts}</table>{_uploads(status)}{_failures(status)}"
        "<p>The same for programs: <a href='?format=json'>JSON</a>, <a href=metrics>Prometheus</a>. "
        "<code>curl -X POST …/debug/pprof/enable</code> and <code>…/disable</code>, with PROFILE_TOKEN, switch "
        "profiling in the process that answers.</p></html>"
    )


def _workers(workers: Sequence[Worker]) -> str:
    rows = "".join(
        f'<tr><td><a href="cpu?seconds=30&amp;pid={worker.pid}">{worker.pid}</a></td><td>{escape(worker.instance)}</td>'
        f"<td>{_moment(worker.started_ns)}</td><td>{'yes' if worker.enabled else 'no'}</td></tr>"
        for worker in workers
    )
    return (
        "<h1>Workers on this host</h1><table><tr><th>Process id</th><th>Instance</th><th>Started</th><th>Enabled</th>"
        f"</tr>{rows}</table><p><code>workers=all</code> captures on all of them at once, <code>pid=N</code> on one. "
        "Those that are not listed cannot be reached: their profiling is off (PROFILE_ENABLED).</p>"
    )


def _moment(time_ns: int | None) -> str:
    if time_ns is None:
        return "no"
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"


def _capture_row(kind: str) -> str:
    if kind == "trace":
        seconds, views = 5, f'<a href="trace?last={_LAST_SECONDS}">the last {_LAST_SECONDS} s</a>'
    else:
        seconds, views = (
            30,
            " ".join(
                f'<a href="{kind}?seconds=5&amp;format={view}">{view}</a>' for view in ("html", "text", "speedscope")
            ),
        )
    return (
        f'<tr><td><a href="{kind}?seconds={seconds}">{kind}</a></td><td>{escape(_TITLES.get(kind, ""))}</td>'
        f"<td>{views}</td></tr>"
    )


def _facts(status: Status) -> list[tuple[str, str]]:
    counts, waiting = status.uploads, status.waiting
    return [
        ("Instance", status.instance),
        ("Periodic windows", _windows(status)),
        ("Next window", "none" if status.next_window is None else f"in {status.next_window:.0f} s"),
        ("Missed windows", str(status.missed_windows)),
        ("Captures being taken", str(status.running_captures)),
        ("Failed captures", str(status.failed_captures)),
        ("Engine", _engine(status.engine)),
        ("Sampling interval", _interval(status.engine)),
        ("Own CPU of sampling", _cost(status.engine)),
        ("Store", status.store or "none (PROFILE_S3_BUCKET, PROFILE_STORE)"),
        ("Stored", f"{counts.stored} captures, {format_size(counts.stored_bytes)}"),
        ("Last key", counts.last_key or "none"),
        ("Waiting for the store", f"{waiting.captures} captures, {format_size(waiting.size)}"),
        ("They wait in", waiting.place),
        ("Spool", f"cannot be used: {waiting.spool_trouble}" if waiting.spool_trouble else "no trouble"),
        ("Failed uploads", str(counts.failures)),
        ("Last failure", status.last_failures[0].reason if status.last_failures else "none"),
        ("Lost captures", str(counts.dropped)),
        ("Limits met", ", ".join(f"{name} {count} times" for name, count in status.limits_met.items()) or "none"),
    ]


def _windows(status: Status) -> str:
    if not status.enabled:
        return "off (PROFILE_ENABLED)"
    times = f"every {format_duration(status.interval)} for {format_duration(status.duration)}"
    return f"{', '.join(status.kinds)}, {times}"


def _engine(engine: EngineStatus) -> str:
    if engine.name is None:
        return "none yet: the first capture chooses it"
    return engine.name if engine.why_not_native is None else f"{engine.name}, not native: {engine.why_not_native}"


def _interval(engine: EngineStatus) -> str:
    return "none" if engine.interval is None else f"{engine.interval * 1000:.3g} ms"


def _cost(engine: EngineStatus) -> str:
    share = "not sampling now" if engine.cpu_share is None else f"{engine.cpu_share:.2%} of a core in the last minute"
    return f"{share}, {engine.max_share:.2%} allowed; {engine.cpu_seconds:.3g} s altogether"


def _uploads(status: Status) -> str:
    rows = [
        (format_time(stored.stored_ns), stored.kind, format_size(stored.size), stored.key)
        for stored in status.uploads.last_stored
    ]
    return _table("Last uploads", ("Time", "Kind", "Size", "Key"), rows)


def _failures(status: Status) -> str:
    rows = [
        (format_time(failure.last_ns), failure.what, str(failure.times), failure.reason)
        for failure in status.last_failures
    ]
    return _table("Last failures", ("Last time", "What", "Times", "Reason"), rows)


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"<h1>{title}</h1><p>None.</p>"
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h1>{title}</h1><table><tr>{head}</tr>{body}</table>"
