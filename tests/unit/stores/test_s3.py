"""The S3 store's manners towards the process it works in; what it puts is seen against a real server elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware.stores import StoreError
from profiling_middleware.stores.s3 import S3Store


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A server that takes every put, as nginx does none over a mebibyte.

    Told is what the process's switch interval was while it had not yet answered.
    """
    intervals: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            # The body comes when the store waits for nothing but the answer.
            size = int(self.headers["Content-Length"])
            self.rfile.read(size)
            intervals.append(sys.getswitchinterval())
            self.send_response(413 if size > 1024 * 1024 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    yield intervals
    server.shutdown()
    server.server_close()
    thread.join()


def test_while_s3_is_waited_for_the_service_has_its_usual_switch_interval(answers: list[float], make_info: Any) -> None:
    """A put may hang for twenty seconds, and a short interval makes the service's own threads fight."""
    usual = sys.getswitchinterval()
    store = S3Store("stl-debugging-dev", None)
    prepared: list[float] = []
    client = store._ready_client()
    client.meta.events.register("before-sign.s3.PutObject", lambda **_: prepared.append(sys.getswitchinterval()))

    for number in range(2):
        store.put(f"profiles/watcher/cpu/{number}.pprof.gz", b"body", make_info())

    assert answers == [usual, usual]
    assert [interval < usual for interval in prepared] == [True, True], "while boto3 works, it gives way"


def test_a_put_that_fails_leaves_the_switch_interval_as_it_was(
    monkeypatch: pytest.MonkeyPatch, answers: list[float], make_info: Any
) -> None:
    usual = sys.getswitchinterval()
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")

    with pytest.raises(StoreError, match="credentials"):
        S3Store("stl-debugging-dev", None).put("profiles/watcher/cpu/0.pprof.gz", b"body", make_info())

    assert (answers, sys.getswitchinterval()) == ([], usual)


def test_credentials_that_come_later_are_found(
    monkeypatch: pytest.MonkeyPatch, answers: list[float], make_info: Any, tmp_path: Path
) -> None:
    """A role whose service does not answer yet, a secret that is mounted later."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    store = S3Store("stl-debugging-dev", None)
    with pytest.raises(StoreError, match="credentials"):
        store.put("profiles/watcher/cpu/0.pprof.gz", b"body", make_info())

    credentials.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    store.put("profiles/watcher/cpu/0.pprof.gz", b"body", make_info())

    assert len(answers) == 1


def test_a_body_that_is_too_large_is_that_captures_fault(answers: list[float], make_info: Any) -> None:
    store = S3Store("stl-debugging-dev", None)

    with pytest.raises(StoreError, match="client_max_body_size") as caught:
        store.put("profiles/watcher/trace/0.pftrace.gz", bytes(1024 * 1024 + 1), make_info())

    assert caught.value.of_capture


def test_what_the_store_imports_a_fork_can_wait_for(answers: list[float], run_python: Any) -> None:
    ran = run_python(
        """
import sys
from profiling_middleware.model import CaptureInfo
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.stores.s3 import S3Store

class Spy:
    guarded, other = [], []
    def find_spec(self, name, path=None, target=None):
        (self.guarded if THIS_PROCESS.imports._lock._is_owned() else self.other).append(name)

sys.meta_path.insert(0, Spy())
info = CaptureInfo(kind="cpu", service="s", instance="i", capture_id="c", started_ns=0, trigger="periodic")
S3Store("stl-debugging-dev", None).put("profiles/s/cpu/0.pprof.gz", b"body", info)
print("boto3" in Spy.guarded, Spy.other)
"""
    )
    assert (ran.stdout, ran.stderr) == ("True []\n", "")
