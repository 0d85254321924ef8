"""What threads and modules are called."""

from __future__ import annotations

import _thread
import json.decoder
import sys
import threading
import types
from collections.abc import Callable, ItemsView, Iterator

import pytest
from engine_kit import DEADLINE

from profiling_middleware.sampling.names import ModuleNames, thread_name
from profiling_middleware.threads import wait_until_gone

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux's clocks")


@pytest.fixture
def names() -> ModuleNames:
    return ModuleNames()


@pytest.fixture
def new_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., types.ModuleType]:
    """Puts a module into `sys.modules` that was loaded from a file, or from something else."""

    def make(name: str, file: object) -> types.ModuleType:
        module = types.ModuleType(name)
        module.__file__ = file  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make


# -- modules ----------------------------------------------------------------------------------------------------------


def test_a_file_has_the_name_of_its_module(names: ModuleNames) -> None:
    assert names.of(json.decoder.__file__) == "json.decoder"


def test_a_module_that_came_later_is_found(names: ModuleNames, new_module: Callable[..., types.ModuleType]) -> None:
    assert names.of("/srv/late.py") == ""
    new_module("shop.late", "/srv/late.py")

    assert names.of("/srv/late.py") == "shop.late"


def test_a_module_that_is_gone_keeps_its_name(
    names: ModuleNames, new_module: Callable[..., types.ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    new_module("shop.gone", "/srv/gone.py")
    assert names.of("/srv/gone.py") == "shop.gone"
    monkeypatch.delitem(sys.modules, "shop.gone")
    names.of("/srv/never.py")

    assert names.of("/srv/gone.py") == "shop.gone"


@pytest.mark.parametrize("file", ["<string>", "", "<made 1>", "/srv/nobody.py"])
def test_code_of_no_modules_file_has_no_module(names: ModuleNames, file: str) -> None:
    assert names.of(file) == ""


@pytest.mark.parametrize(
    ("file", "module"),
    [("<frozen importlib._bootstrap>", "importlib._bootstrap"), ("<frozen runpy>", "runpy"), ("<frozen ", "")],
)
def test_frozen_modules_say_themselves_what_they_are(names: ModuleNames, file: str, module: str) -> None:
    assert names.of(file) == module


def test_an_import_meanwhile_ends_nothing_and_the_next_name_is_found(
    names: ModuleNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changing(dict[str, types.ModuleType]):
        imports = 1

        def items(self) -> ItemsView[str, types.ModuleType]:
            if self.imports:
                self.imports -= 1
                raise RuntimeError("dictionary changed size during iteration")
            return super().items()

    monkeypatch.setattr("profiling_middleware.sampling.names.sys", types.SimpleNamespace(modules=Changing(sys.modules)))

    assert names.of(json.decoder.__file__) == ""
    assert names.of(json.decoder.__file__) == "json.decoder"


def test_what_is_imported_under_its_own_name_is_not_main(
    names: ModuleNames, new_module: Callable[..., types.ModuleType]
) -> None:
    new_module("shop.tool", "/srv/tool.py")
    new_module("__main__", "/srv/tool.py")

    assert names.of("/srv/tool.py") == "shop.tool"


def test_a_script_is_main(names: ModuleNames, new_module: Callable[..., types.ModuleType]) -> None:
    new_module("__main__", "/srv/script.py")

    assert names.of("/srv/script.py") == "__main__"


@pytest.mark.parametrize("file", [None, 4711, b"/srv/bytes.py"])
def test_a_module_whose_file_is_no_text_disturbs_nothing(
    names: ModuleNames, new_module: Callable[..., types.ModuleType], file: object
) -> None:
    new_module("shop.odd", file)

    assert names.of(json.decoder.__file__) == "json.decoder"


def test_a_thing_that_is_no_module_disturbs_nothing(names: ModuleNames, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs put anything there; `None` says that an import is not wanted."""

    class Angry:
        def __getattr__(self, name: str) -> object:
            raise AttributeError(name)

    monkeypatch.setitem(sys.modules, "shop.none", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "shop.angry", Angry())  # type: ignore[arg-type]

    assert names.of(json.decoder.__file__) == "json.decoder"


# -- threads ----------------------------------------------------------------------------------------------------------


class Waiting:
    """A thread that waits, known to `threading` or not."""

    def __init__(self, *, known: bool) -> None:
        self.ident = self.native_id = 0
        self._there, self._end = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run, name="known to threading") if known else None
        if self.thread is not None:
            self.thread.start()
        else:
            _thread.start_new_thread(self._run, ())
        assert self._there.wait(DEADLINE)

    def _run(self) -> None:
        self.ident, self.native_id = _thread.get_ident(), _thread.get_native_id()
        self._there.set()
        self._end.wait(DEADLINE)

    def end(self) -> None:
        self._end.set()
        if self.thread is not None:
            wait_until_gone(self.thread, DEADLINE)


@pytest.fixture
def make_waiting() -> Iterator[Callable[..., Waiting]]:
    made: list[Waiting] = []

    def make(*, known: bool) -> Waiting:
        made.append(Waiting(known=known))
        return made[-1]

    yield make
    for waiting in made:
        waiting.end()


@linux_only
def test_a_thread_has_the_name_that_threading_gave_it(make_waiting: Callable[..., Waiting]) -> None:
    waiting = make_waiting(known=True)

    assert thread_name(waiting.ident, waiting.native_id) == "known to threading"


@linux_only
def test_a_thread_that_threading_does_not_know_has_the_systems_name(make_waiting: Callable[..., Waiting]) -> None:
    waiting = make_waiting(known=False)
    name = thread_name(waiting.ident, waiting.native_id)

    assert name is not None
    assert name not in ("", "known to threading", "MainThread")


@linux_only
def test_a_thread_that_has_ended_has_no_name(make_waiting: Callable[..., Waiting]) -> None:
    waiting = make_waiting(known=True)
    waiting.end()

    assert thread_name(waiting.ident, waiting.native_id) is None


@linux_only
def test_an_ident_that_another_thread_has_now_is_not_its_name(make_waiting: Callable[..., Waiting]) -> None:
    """Idents are used again at once; the native id tells who is meant."""
    gone, there = make_waiting(known=True), make_waiting(known=True)
    gone.end()

    assert thread_name(there.ident, gone.native_id) is None


@linux_only
def test_the_main_thread_has_its_name_also_with_the_parents_number() -> None:
    """3.11 leaves the parent's number in a forked child's only thread."""
    assert thread_name(threading.main_thread().ident or 0, 1) == threading.main_thread().name
