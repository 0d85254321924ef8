"""The server's side of ASGI in the hand of a test: what it passes in, and everything that happens, in its order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Scope


class Transcript:
    """What both sides did, in order. Two runs of the same scenario are compared by it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def note(self, what: str, value: object = None) -> None:
        """One thing that happened."""
        self.events.append((what, value))


class Exchange:
    """One scope from the server's side."""

    def __init__(
        self,
        transcript: Transcript,
        scope: Scope,
        messages: Sequence[Message] = ({"type": "http.request", "body": b"", "more_body": False},),
        *,
        leave_after: int | None = None,
        break_after: int | None = None,
    ) -> None:
        """After `messages` the client waits; it leaves after so many sends, or the connection breaks there."""
        self.scope = scope
        self._transcript = transcript
        self._messages = deque(messages)
        self._leave_after = leave_after
        self._break_after = break_after
        self._sent = 0
        self._gone = asyncio.Event()

    async def run(self, app: ASGIApp) -> None:
        """Calls the application and notes how it ends."""
        before = dict(self.scope)
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            self._transcript.note("raised", _described(error))
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._transcript.note("returned")
        changed = {key for key in self.scope if key not in before or self.scope[key] is not before[key]}
        self._transcript.note("scope changed", sorted(changed - {"app", "router", "endpoint"}))

    async def receive(self) -> Message:
        """What the application gets of the client."""
        await asyncio.sleep(0)
        if self._messages:
            message = self._messages.popleft()
        else:
            await self._gone.wait()
            message = {"type": f"{self.scope['type']}.disconnect"}
        self._transcript.note("received", message["type"])
        return message

    async def send(self, message: Message) -> None:
        """What the application sends to the client."""
        self._transcript.note("sent", _copied(message))
        self._sent += 1
        await asyncio.sleep(0)
        if self._sent == self._leave_after:
            self._gone.set()
        if self._break_after is not None and self._sent >= self._break_after:
            raise OSError("the connection is broken")


def http(path: str = "/", method: str = "GET", **more: object) -> Scope:
    """An HTTP scope as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 40000),
        "state": {},
        "extensions": {},
        **more,
    }


def websocket(path: str = "/", **more: object) -> Scope:
    """A websocket scope."""
    scope = http(path, **{"subprotocols": ["chat", "other"], **more})
    del scope["method"]
    return {**scope, "type": "websocket", "scheme": "ws"}


def lifespan() -> Scope:
    """The scope of the application's life."""
    return {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}


def _copied(message: Message) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, list) else value for key, value in message.items()}


def _described(error: BaseException) -> object:
    if isinstance(error, BaseExceptionGroup):
        return type(error).__name__, [_described(each) for each in error.exceptions]
    return type(error).__name__, str(error).rpartition("\n")[2]
