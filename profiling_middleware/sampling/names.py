"""What threads and modules are called."""

from __future__ import annotations

import sys
import threading

from profiling_middleware.sampling.clocks import ThreadClocks, native_thread_name


def thread_name(ident: int, native_id: int) -> str | None:
    """Python's name of a thread, or the system's for one that `threading` does not know; None if it has ended."""
    known = getattr(threading, "_active", {}).get(ident)
    # Idents are used again at once. In a forked child 3.11 still has the parent's number for its only thread.
    if known is not None and (known.native_id == native_id or known is threading.main_thread()):
        return str(known.name)
    return native_thread_name(native_id) if ThreadClocks.cpu_ns(native_id) is not None else None


class ModuleNames:
    """Which module a source file belongs to."""

    def __init__(self) -> None:
        self._by_file: dict[str, str] = {}
        self._modules = 0

    def of(self, file: str) -> str:
        """The module's name; empty for code that was compiled from no module's file."""
        if file.startswith("<frozen ") and file.endswith(">"):
            return file[len("<frozen ") : -1]
        name = self._by_file.get(file)
        if name is None and len(sys.modules) != self._modules:
            self._learn()
            name = self._by_file.get(file)
        return name or ""

    def _learn(self) -> None:
        try:
            modules = list(sys.modules.items())
        except RuntimeError:
            return  # another thread has imported meanwhile: the next name is a new chance
        self._modules = len(modules)
        for name, module in modules:
            file = getattr(module, "__file__", None)
            # `python -m package.module` may have it twice: what imports it says is better than __main__.
            if isinstance(file, str) and (name != "__main__" or file not in self._by_file):
                self._by_file[file] = name
