"""What a request's samples are labelled with: its method and its endpoint, never its path, which may name anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
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

    def labels(self, method: str, endpoint: str) -> Labels:
        """`endpoint` is empty where the framework does not say."""
        key = method, endpoint
        known = self._labels.get(key)
        if known is None:
            if len(self._labels) >= _MAX_ENDPOINTS:
                key = method, endpoint = "", _OTHER
            pairs = ("endpoint", endpoint), ("method", method)
            known = self._labels[key] = tuple(Label(name, value) for name, value in pairs if value)
        return known

    def template(self, endpoint: object, routes: Iterable[object]) -> str:
        """The path of the route that leads to `endpoint`, such as `/items/{id}`, or else the endpoint's own name."""
        known = self._templates.get(id(endpoint))
        if known is not None and known[0] is endpoint:
            return known[1]
        path = _path_to(endpoint, routes)
        name = (
            path if path is not None else f"{_attribute(endpoint, '__module__')}.{_attribute(endpoint, '__qualname__')}"
        )
        if len(self._templates) < _MAX_ENDPOINTS:
            self._templates[id(endpoint)] = endpoint, name
        return name


def _attribute(thing: object, name: str) -> str:
    return str(getattr(thing, name, None) or getattr(type(thing), name, ""))


def _path_to(endpoint: object, routes: Iterable[object]) -> str | None:
    for route in routes:
        path = getattr(route, "path", "")
        if getattr(route, "endpoint", None) is endpoint:
            return str(path)
        below = _path_to(endpoint, getattr(route, "routes", None) or ())
        if below is not None:
            return f"{path}{below}"
    return None


class AsgiWork:
    """One request or websocket. Routers write into its scope whom they chose."""

    __slots__ = ("_endpoints", "_known", "_method", "_scope")

    def __init__(self, endpoints: Endpoints, scope: MutableMapping[str, Any]) -> None:
        self._endpoints = endpoints
        self._method: str = scope.get("method", "")
        self._scope: MutableMapping[str, Any] | None = scope
        self._known: Labels | None = None

    def labels(self) -> Labels | None:
        scope = self._scope
        if self._known is None and scope is not None:
            route, endpoint = scope.get("route"), scope.get("endpoint")
            path = getattr(route, "path", None)
            if isinstance(path, str):
                self._known = self._endpoints.labels(self._method, path)
            elif endpoint is not None:
                # The outermost application's routes: scope["router"] may be that of a mounted one.
                routes = getattr(scope.get("app") or scope.get("router"), "routes", ())
                self._known = self._endpoints.labels(self._method, self._endpoints.template(endpoint, routes))
        return self._known

    def end(self) -> None:
        """The request is over. A task it has left behind still works for it, but need not keep all of it alive."""
        if self.labels() is None:
            self._known = self._endpoints.labels(self._method, "")
        self._scope = None


class WsgiWork:
    """One request. What its framework has chosen stands in the environ, where it says so."""

    __slots__ = ("_endpoints", "_environ", "_known", "_method")

    def __init__(self, endpoints: Endpoints, environ: Mapping[str, Any]) -> None:
        self._endpoints = endpoints
        self._method: str = environ.get("REQUEST_METHOD", "")
        self._environ: Mapping[str, Any] | None = environ
        self._known: Labels | None = None

    def labels(self) -> Labels | None:
        environ = self._environ
        if self._known is None and environ is not None:
            # Flask, and all that is made of werkzeug.
            rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
            if rule is not None:
                self._known = self._endpoints.labels(self._method, str(rule))
        return self._known

    def end(self) -> None:
        """See AsgiWork.end."""
        if self.labels() is None:
            self._known = self._endpoints.labels(self._method, "")
        self._environ = None
