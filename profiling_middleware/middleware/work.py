"""What a request's samples are labelled with: its method and its endpoint, never its path, which may name anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPMethod
from typing import Any

from profiling_middleware.labels import Labels
from profiling_middleware.short_names import short_name

_MAX_ENDPOINTS = 1_000
_METHODS = frozenset(method.value for method in HTTPMethod)


class Endpoints:
    """The labels of each endpoint and method, the same object each time; so many of them and no more."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, str], Labels] = {}
        self._templates: dict[int, tuple[object, str]] = {}

    def of_asgi(self, scope: Mapping[str, Any]) -> Labels | None:
        """The labels of a request or websocket, None while no router has written into its scope whom it chose."""
        chosen = scope.get("route") or scope.get("endpoint")
        if chosen is None:
            return None
        known = self._templates.get(id(chosen))
        template = known[1] if known is not None and known[0] is chosen else self._template(chosen, scope)
        method = scope.get("method", "")
        return self._labels.get((method, template)) or self._of(method, template)

    def of_wsgi(self, environ: Mapping[str, Any]) -> Labels | None:
        """The labels of a request, None while its framework has not said whom it chose."""
        # Flask, and all that is made of werkzeug.
        rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
        return self._of(environ.get("REQUEST_METHOD", ""), short_name(str(rule))) if rule is not None else None

    def _of(self, method: str, endpoint: str) -> Labels:
        known = self._labels.get((method, endpoint))
        if known is None and len(self._labels) >= _MAX_ENDPOINTS:
            method, endpoint = "", "<other endpoints>"
            known = self._labels.get((method, endpoint))
        if known is None:
            from profiling_middleware.model import Label  # what profiles are made of: not loaded while it is off

            # Clients may make up methods, and servers hand them on.
            pairs = ("endpoint", endpoint), ("method", method if method in _METHODS else "")
            known = self._labels[method, endpoint] = tuple(Label(name, value) for name, value in pairs if value)
        return known

    def _template(self, chosen: object, scope: Mapping[str, Any]) -> str:
        """The path that leads to a route or an endpoint, such as `/items/{id}`, or else its own path or name."""
        # The outermost router: scope["app"] is a mounted application by now, and scope["route"] a route in it.
        routes = getattr(scope.get("router") or scope.get("app"), "routes", ())
        path = _path_to(chosen, routes) or getattr(chosen, "path", None)
        name = path if isinstance(path, str) else f"{_name(chosen, '__module__')}.{_name(chosen, '__qualname__')}"
        name = short_name(name)
        if len(self._templates) < _MAX_ENDPOINTS:
            self._templates[id(chosen)] = chosen, name
        return name


def _name(thing: object, attribute: str) -> str:
    return str(getattr(thing, attribute, None) or getattr(type(thing), attribute, ""))


def _path_to(chosen: object, routes: Iterable[object]) -> str | None:
    for route in routes:
        path = getattr(route, "path", "")
        if route is chosen or getattr(route, "endpoint", None) is chosen:
            return str(path)
        below = _path_to(chosen, getattr(route, "routes", None) or ())
        if below is not None:
            return f"{path}{below}"
    return None
