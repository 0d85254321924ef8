"""Switching profiling on and off in a running process: only with a token, and never by a page in a browser."""

from __future__ import annotations

from profiling_middleware.config import Settings
from profiling_middleware.middleware.messages import AdminRequest, AdminResponse, error
from profiling_middleware.middleware.state import state_response
from profiling_middleware.profiler import Profiler

SWITCHES = ("enable", "disable")


def switch_refusal(request: AdminRequest, settings: Settings) -> AdminResponse | None:
    """The answer to one who may use the routes, but not this one; None for one who may."""
    if settings.token is None:
        return error(403, "profiling: refused: this needs a token, also on this machine: set PROFILE_TOKEN and send it")
    # A browser sends the password it once was told along with what a page of another site asks for.
    if request.all("origin") or any(site.strip().lower() != "none" for site in request.all("sec-fetch-site")):
        return error(403, "profiling: refused: the request comes from a page; use curl, or what sends no Origin")
    return None


def switch(profiler: Profiler, name: str) -> AdminResponse:
    """Does what the route called `name` says, and answers with the new state. May take a while."""
    if name == "enable":
        profiler.enable()
    else:
        profiler.disable()
    acted_on = f"only the process that answers, {profiler.instance}: other workers stay as they are"
    return state_response(profiler.status, acted_on=acted_on)
