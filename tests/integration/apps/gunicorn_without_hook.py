"""gunicorn's defaults: an ASGI worker needs no hook, since it has a lifespan."""
