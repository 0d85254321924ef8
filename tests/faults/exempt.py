"""Functions that may not raise, and so are not told to: what calls them is not the profiler's.

They are the guards. Each is run in the place of something of the application's, the server's or the interpreter's, and
catches what it calls; nobody could catch what it raised itself. They are few, and do little besides.
"""

from __future__ import annotations

_PACKAGE = "profiling_middleware"

# What the server calls in the place of the application, and the application in the place of the server.
_MIDDLEWARE = (
    "middleware.asgi:ProfilingMiddleware.__init__",
    "middleware.asgi:ProfilingMiddleware.__call__",
    "middleware.asgi:ProfilingMiddleware._is_for_us",  # a part of __call__
    "middleware.asgi:ProfilingMiddleware._handle",  # likewise
    "middleware.asgi:_LifespanSend.__init__",  # likewise
    "middleware.asgi:_LifespanSend.__call__",
    "middleware.wsgi:WSGIProfilingMiddleware.__init__",
    "middleware.wsgi:WSGIProfilingMiddleware.__call__",
    "middleware.wsgi:WSGIProfilingMiddleware._is_for_us",  # a part of __call__
    "middleware.wsgi:WSGIProfilingMiddleware._serve",  # likewise
    "middleware.wsgi_work:Work.noted.<locals>.noting",  # the application's start_response
    "middleware.wsgi_work:ObservedBody.__iter__",
    "middleware.wsgi_work:ObservedBody.__getattr__",
    "middleware.wsgi_work:ObservedBody._begins",  # a part of both, as
    "middleware.wsgi_work:ObservedBody._end",
    "middleware.wsgi_work:ObservedBody.close",
    "middleware.wsgi_work:ObservedIterator.__iter__",
    "middleware.wsgi_work:ObservedIterator.__next__",
    "middleware.wsgi_work:_Parts.__init__",
    "middleware.wsgi_work:_Parts.__iter__",
    "middleware.wsgi_work:_Parts.__next__",
    "tracing.requests:RequestSpan.send",
)
# What stands in the place of methods of asyncio, anyio, concurrent.futures and threading while somebody listens.
_REPLACEMENTS = (
    "instruments.asyncio_locks:AsyncioLocks._waiting_method.<locals>.method",
    "instruments.asyncio_locks:AsyncioLocks._waiting_method.<locals>.plain",
    "instruments.asyncio_locks:AsyncioLocks._waiting_method.<locals>.measured",  # a part of both
    "instruments.asyncio_locks:AsyncioLocks._measured",
    "instruments.asyncio_locks:AsyncioLocks._ending_method.<locals>.method",
    "instruments.asyncio_locks:AsyncioLocks._ending_method.<locals>.plain",
    "instruments.asyncio_locks:AsyncioLocks._ending_method.<locals>.note",  # their guard
    "tracing.executors:ExecutorWork._replace_work_item.<locals>.init",
    "tracing.executors:ExecutorWork._replace_work_item.<locals>.run",
    "tracing.executors:ExecutorWork._run_sync.<locals>.run_sync",
    "tracing.executors:ExecutorWork._measured.<locals>.measured",
    "tracing.steps:LoopSteps._replace.<locals>.run",
    "sampling.lock_factories:_join.<locals>.join",
    "sampling.lock_log:LockNotes.begins",
    "sampling.lock_log:LockNotes.released",
    "sampling.lock_observer:Wait.__init__",  # a part of those that follow
    "sampling.lock_types:_Like.__instancecheck__",
    "sampling.lock_types:_Like.__subclasscheck__",
    "sampling.lock_types:_Measured.__class__",
    "sampling.lock_types:_Measured.__reduce_ex__",
    "sampling.lock_types:_Measured.__repr__",
    "sampling.lock_types:_Measured._at_fork_reinit",
    "sampling.lock_types:_Measured._stands_for",
    "sampling.lock_types:_NotCalled.__call__",
    "sampling.lock_types:_acquire",
    "sampling.lock_types:_unbound.<locals>.<lambda>",
    "sampling.lock_types:_unbound.<locals>.method",
    "sampling.lock_types:lock_type.<locals>.lock.__init_subclass__",
    "sampling.lock_types:lock_type.<locals>.lock.__new__",
    "sampling.lock_types:rlock_type.<locals>.RLock.__new__",
    "sampling.lock_ways:Answer.__init__",  # a part of take, and of acquire
    "sampling.lock_ways:Way.release_plainly",  # a part of _at_fork_reinit
    "sampling.lock_ways:Way.take",
    "sampling._native:enlist",  # the interpreter's get_native_id; in C, it can only run out of memory
)
# What the interpreter calls in the main thread, wherever that is.
_MAIN_THREAD = (
    "process:_SigtermHandler.__call__",
    "process:Process._called_by_main_thread",
)

EXEMPT = frozenset(f"{_PACKAGE}.{name}" for name in (*_MIDDLEWARE, *_REPLACEMENTS, *_MAIN_THREAD))
