"""HTTP: the ASGI and WSGI middlewares, and the routes under /debug/pprof/ that both serve."""
