"""Where the routes are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "/debug/pprof"


def is_admin_path(path: str) -> bool:
    """Whether a path within the application belongs to the routes."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def route_path(scope: Mapping[str, Any]) -> str:
    """The path within an ASGI application: servers and mounts put their prefix before it, and say so in root_path."""
    path: str = scope["path"]
    root = root_path(scope)
    return path[len(root) :] if root and path.startswith(root + "/") else path


def root_path(scope: Mapping[str, Any]) -> str:
    """What stands before an ASGI application on its server."""
    root = scope.get("root_path")
    return root if isinstance(root, str) else ""
