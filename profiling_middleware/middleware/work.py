"""What a request's samples are labelled with: its method and its endpoint, never its path, which may name anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from profiling_middleware.labels import Labels
from profiling_middleware.model import Label

_MAX_ENDPOINTS = 1_000
_OTHER = "<other endpoints>"


class Endpoints:
    """The labels of each endpoint and method, the same object each time; so many of them and no more."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, str], Labels] = {}
        self._templates: dict[int, tuple[object, str]] = {}

    def of_asgi(self, scope: Mapping[str, Any]) -> Labels | None:
        """The labels of a request or websocket, None while no router has written into its scope whom it chose."""
        path = getattr(scope.get("route"), "path", None)
        endpoint = scope.get("endpoint")
        if isinstance(path, str):
            return self._of(scope.get("method", ""), path)
        if endpoint is None:
            return None
        # The outermost application's routes: scope["router"] may be that of a mounted one.
        routes = getattr(scope.get("app") or scope.get("router"), "routes", ())
        return self._of(scope.get("method", ""), self._template(endpoint, routes))

    def of_wsgi(self, environ: Mapping[str, Any]) -> Labels | None:
        """The labels of a request, None while its framework has not said whom it chose."""
        # Flask, and all that is made of werkzeug.
        rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
        return self._of(environ.get("REQUEST_METHOD", ""), str(rule)) if rule is not None else None

    def _of(self, method: str, endpoint: str) -> Labels:
        known = self._labels.get((method, endpoint))
        if known is None:
            if len(self._labels) >= _MAX_ENDPOINTS:
                endpoint = _OTHER
            pairs = ("endpoint", endpoint), ("method", method)
            known = tuple(Label(name, value) for name, value in pairs if value)
            self._labels[method, endpoint] = known
        return known

    def _template(self, endpoint: object, routes: Iterable[object]) -> str:
        """The path of the route that leads to `endpoint`, such as `/items/{id}`, or else the endpoint's own name."""
        known = self._templates.get(id(endpoint))
        if known is not None and known[0] is endpoint:
            return known[1]
        path = _path_to(endpoint, routes)
        name = path if path is not None else f"{_name(endpoint, '__module__')}.{_name(endpoint, '__qualname__')}"
        if len(self._templates) < _MAX_ENDPOINTS:
            self._templates[id(endpoint)] = endpoint, name
        return name


def _name(thing: object, attribute: str) -> str:
    return str(getattr(thing, attribute, None) or getattr(type(thing), attribute, ""))


def _path_to(endpoint: object, routes: Iterable[object]) -> str | None:
    for route in routes:
        path = getattr(route, "path", "")
        if getattr(route, "endpoint", None) is endpoint:
            return str(path)
        below = _path_to(endpoint, getattr(route, "routes", None) or ())
        if below is not None:
            return f"{path}{below}"
    return None
