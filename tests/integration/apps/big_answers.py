"""Services whose captures are bigger than any buffer on the way to their clients, who have two seconds to read them."""

from __future__ import annotations

import asyncio

from profiled_asgi import app as asgi
from profiled_wsgi import app as wsgi
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from profiling_middleware import limits
from profiling_middleware.middleware.admin import Pending
from profiling_middleware.middleware.messages import AdminResponse
from profiling_middleware.private_file import PrivateFile

__all__ = ["asgi", "wsgi"]

limits.READ_SECONDS = 2.0
BIG = PrivateFile()
for _ in range(24):
    BIG.append(b"x" * 1024 * 1024)


def _big(pending: Pending) -> AdminResponse:
    return AdminResponse(200, BIG, "application/octet-stream")


async def busy(request: Request) -> JSONResponse:
    """How many tasks there are."""
    return JSONResponse({"tasks": len(asyncio.all_tasks())})


Pending.response = _big  # type: ignore[method-assign]
assert isinstance(asgi, Starlette)
asgi.router.routes.append(Route("/busy", busy))
