"""The WSGI twin of the sample service: `gunicorn -c sample_app/gunicorn.conf.py sample_app.flask_app:app`.

Flask is needed for this file only: `pip install 'profiling-middleware[sample]'`.
"""

from __future__ import annotations

from flask import Flask, Response

from profiling_middleware import Settings, WSGIProfilingMiddleware
from sample_app import work


def create_app(settings: Settings | None = None) -> Flask:
    """The service. Without settings the profiler takes its own from the environment."""
    app = Flask("sample_app")
    terminal = work.CardTerminal()

    @app.get("/")
    def index() -> dict[str, list[str]]:
        return {"routes": sorted(rule.rule for rule in app.url_map.iter_rules() if rule.endpoint != "static")}

    @app.get("/hot")
    def hot() -> dict[str, float]:
        return {"total": work.quote_basket()}

    @app.get("/report")
    def report() -> dict[str, int]:
        return {"rows": work.monthly_report()}

    @app.get("/checkout")
    def checkout() -> dict[str, int]:
        return {"payment": terminal.pay()}

    @app.get("/stream")
    def stream() -> Response:
        return Response(work.export_lines(), mimetype="text/csv")

    @app.get("/health")
    def health() -> str:
        return "ok"

    app.wsgi_app = WSGIProfilingMiddleware(app.wsgi_app, settings=settings)  # type: ignore[method-assign]
    return app


app = create_app()
