"""Threads that have no Python: they are never sampled, but their CPU time is known and not lost."""

from __future__ import annotations

from collections.abc import Callable, Container

from profiling_middleware.model import Thread
from profiling_middleware.sampling.clocks import ThreadClocks


class NativeThreads:
    """The process's threads besides those of Python, from one `take()` to the next."""

    def __init__(self, list_ids: Callable[[], list[int]], name_of: Callable[[int], str]) -> None:
        """`list_ids` returns the native ids of all threads of the process, `name_of` what the system calls one."""
        self._list_ids, self._name_of = list_ids, name_of
        self._used: dict[int, tuple[Thread, int]] = {}

    @property
    def used(self) -> dict[int, int]:
        """CPU time (ns) of each by its native id, when it was taken last."""
        return {native_id: cpu for native_id, (_, cpu) in self._used.items()}

    def take(self, others: Container[int]) -> list[tuple[Thread, int]]:
        """CPU time (ns) that each has used since the last time; `others` are the native ids of those with Python."""
        before, self._used = self._used, {}
        spent = []
        for native_id in self._list_ids():
            cpu = None if native_id in others else ThreadClocks.cpu_ns(native_id)
            if cpu is None:
                continue
            known = before.get(native_id)
            if known is None or cpu < known[1]:
                known = Thread(self._name_of(native_id) or str(native_id), native_id), 0
            self._used[native_id] = known[0], cpu
            if cpu > known[1]:
                spent.append((known[0], cpu - known[1]))
        return spent
