"""How gunicorn serves `sample_app.flask_app:app`. The import is all that profiling asks of it."""

# ruff: noqa: N999 - gunicorn's own name for this file

from profiling_middleware.middleware.gunicorn import post_worker_init  # noqa: F401

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gthread"
threads = 4
