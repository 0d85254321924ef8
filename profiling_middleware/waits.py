"""What a wait is called: the `wait` label of block and mutex profiles."""

from __future__ import annotations

from profiling_middleware.model import Frame, Reason, Stack
from profiling_middleware.uncollected import uncollected

_BY_REASON = {
    Reason.LOCK: "lock",
    Reason.MEASURED: "lock",
    Reason.GIL: "gil",
    Reason.NETWORK: "network",
    Reason.POLL: "network",
    Reason.EVENTS: "idle",
    Reason.ACCEPT: "idle",
    Reason.SLEEP: "sleep",
    Reason.FILE: "file",
    Reason.CHILD: "subprocess",
    Reason.AWAIT: "await",
    Reason.EVENT_LOOP: "event-loop",
}
# Whoever waits in one of these itself, and not in what it calls, waits for work to come.
_WORKERS = frozenset(
    {
        "concurrent.futures.thread._worker",
        "concurrent.futures.process._process_worker",
        "concurrent.futures.process._ExecutorManagerThread.wait_result_broken_or_wakeup",
        "anyio._backends._asyncio.WorkerThread.run",
        "asgiref.current_thread_executor.CurrentThreadExecutor.run_until_future",
        "logging.handlers.QueueListener._monitor",
        "multiprocessing.pool.worker",
        "multiprocessing.pool.Pool._handle_workers",
        "multiprocessing.pool.Pool._handle_tasks",
        "multiprocessing.pool.Pool._handle_results",
        "multiprocessing.resource_tracker.main",
        "multiprocessing.queues.Queue._feed",
        "queue.Queue.join",
        "sched.scheduler.run",
        "socketserver.BaseServer.serve_forever",
        "threading.Timer.run",
        "threading._shutdown",
        "asyncio.base_events.BaseEventLoop._run_once",
        "wsgiref.simple_server.WSGIServer.serve_forever",
        "gunicorn.arbiter.Arbiter.sleep",
        "gunicorn.workers.sync.SyncWorker.wait",
        "gunicorn.workers.gthread.ThreadWorker.run",
        "gunicorn.workers.base_async.AsyncWorker.run",
        "waitress.task.ThreadedTaskDispatcher.handler_thread",
        "uvicorn.supervisors.multiprocess.Process.pong",
        "uvicorn.supervisors.multiprocess.Process.always_pong",
        # for the end of a connection, while a response is streamed
        "uvicorn.protocols.http.h11_impl.RequestResponseCycle.receive",
        "uvicorn.protocols.http.httptools_impl.RequestResponseCycle.receive",
    }
)
# Tasks of servers that only wait for the next event.
_SERVERS = (
    "uvicorn.server.",
    "uvicorn.lifespan.",
    "uvicorn.main.",
    "hypercorn.asyncio.run.",
    "hypercorn.asyncio.lifespan.",
)
_SUBPROCESS = ("subprocess.", "multiprocessing.popen_")
_WAITING = (
    "threading.Condition.",
    "threading.Event.",
    "threading.Semaphore.",
    "threading.Thread.join",
    "threading.Thread._wait_for_tstate_lock",
    "multiprocessing.connection.",
    "queue.",
    "selectors.",
    "socket.",
)
_DEEPEST = 4
_MOST_NAMED = 10_000


def wait_kind(reason: Reason, stack: Stack) -> str:
    """lock, network, sleep, file, subprocess, gil, idle or other.

    The system call tells what for; the functions above it whether that is a process, or only work to come.
    """
    frames = stack.frames
    if reason in (Reason.GIL, Reason.EVENT_LOOP):
        return _BY_REASON[reason]
    if reason is Reason.AWAIT:
        return "idle" if frames[-1].function.startswith(_SERVERS) else "await"
    if _only_for_work(frames):
        return "idle"
    if any(frame.function.startswith(_SUBPROCESS) for frame in frames[:_DEEPEST]):
        return "subprocess"
    return _BY_REASON.get(reason, "other")


class WaitNames:
    """What `wait_kind` and `waiting_function` say, asked once for each stack: a bounded number."""

    def __init__(self, limit: int = _MOST_NAMED) -> None:
        self._limit = limit
        self._kinds: dict[tuple[Reason, Stack], str] = {}
        self._waiting: dict[Stack, str] = {}

    def kind(self, reason: Reason, stack: Stack) -> str:
        """See `wait_kind`."""
        known = self._kinds.get((reason, stack))
        if known is None:
            self._make_room()
            known = self._kinds[uncollected((reason, stack))] = wait_kind(reason, stack)
        return known

    def waiting(self, stack: Stack) -> str:
        """See `waiting_function`."""
        known = self._waiting.get(stack)
        if known is None:
            self._make_room()
            known = self._waiting[stack] = waiting_function(stack)
        return known

    def clear(self) -> None:
        """Lets go of all stacks."""
        self._kinds.clear()
        self._waiting.clear()

    def _make_room(self) -> None:
        if len(self._kinds) + len(self._waiting) >= self._limit:
            self.clear()


def _only_for_work(frames: tuple[Frame, ...]) -> bool:
    """Whether it is a worker's own loop that waits, and not the work it does."""
    for frame in frames:
        if frame.function in _WORKERS:
            return True
        if not frame.function.startswith(_WAITING):
            return False
    return False


def waiting_function(stack: Stack) -> str:
    """Who waits: the function nearest to the leaf that is not part of how one waits."""
    frames: tuple[Frame, ...] = stack.frames
    for frame in frames:
        if not frame.function.startswith(_WAITING):
            return frame.function
    return frames[0].function if frames else ""
