"""Requests by chance against the middlewares: `scripts/full --fuzz`; a slice of them is a test.

`cases.py` and `variables.py` make them up, `oracle.py` says what must come of them, the `drive_` modules send them: through
ASGI, through WSGI, and as bytes to a uvicorn. The same seed does the same again.
"""
