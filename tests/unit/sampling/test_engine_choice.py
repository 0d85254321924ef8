"""Which engine is made: the one that is named, or the best there is."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Iterator

import pytest

from profiling_middleware import sampling
from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.sampling import make_engine, make_label_maker, selftest, why_not_native
from profiling_middleware.sampling.engine import Engine

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
NATIVE = "profiling_middleware.sampling._native"
NOT_BUILT = "the C extension was not built for this Python and machine"


@pytest.fixture
def forgets_afterwards() -> Iterator[None]:
    """What was found out in the test does not hold for the next one."""
    why_not_native.cache_clear()
    yield
    why_not_native.cache_clear()


@pytest.mark.parametrize(("name", "made"), [("auto", "native"), ("native", "native"), ("polling", "polling")])
def test_with_the_extension_the_native_engine_is_made(name: str, made: str, open_engine: Callable[..., Engine]) -> None:
    open_engine("native")  # skips where it is not

    engine = open_engine(name, sample_rate=250)

    assert (engine.name, engine.rate) == (made, 250)


@pytest.mark.usefixtures("without_extension")
@pytest.mark.parametrize("name", ["auto", "python"])
def test_without_the_extension_the_portable_engine_is_made(name: str, open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(name, sample_rate=250)

    assert (engine.name, engine.rate) == ("python", 250)


def test_the_portable_engine_is_made_for_those_who_name_it(open_engine: Callable[..., Engine]) -> None:
    assert open_engine("python").name == "python"


@pytest.mark.usefixtures("without_extension")
@pytest.mark.parametrize("name", ["native", "polling"])
def test_a_named_engine_that_is_missing_is_refused_with_a_remedy(name: str) -> None:
    refusal = rf"PROFILE_ENGINE \(engine\) = '{name}' is not to be had here \({NOT_BUILT}\): use python, or auto"
    with pytest.raises(SettingsError, match=refusal):
        make_engine(Settings(engine=name))  # type: ignore[arg-type]


@pytest.mark.usefixtures("forgets_afterwards")
def test_an_extension_that_cannot_be_loaded_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> types.ModuleType:
        raise ImportError(f"{name}: undefined symbol: PyThreadState_Get")

    monkeypatch.setattr(sampling, "import_module", broken)

    assert why_not_native() == f"the C extension cannot be loaded: {NATIVE}: undefined symbol: PyThreadState_Get"


@pytest.mark.usefixtures("forgets_afterwards")
def test_an_interpreter_that_is_not_understood_gets_the_portable_engine(
    monkeypatch: pytest.MonkeyPatch, open_engine: Callable[..., Engine], need_native: Callable[[], None]
) -> None:
    need_native()
    why_not_native.cache_clear()
    monkeypatch.setattr(selftest, "why_not_native", lambda native: "a generator is not seen as it is")

    assert open_engine("auto").name == "python"
    with pytest.raises(SettingsError, match=r"a generator is not seen as it is\): use python"):
        make_engine(Settings(engine="native"))


def test_only_an_engine_that_reads_labels_makes_them(need_native: Callable[[], None]) -> None:
    need_native()
    kinds = {name: make_label_maker(Settings(engine=name)) for name in ("auto", "native", "polling", "python")}  # type: ignore[arg-type]

    assert kinds.pop("python") is None
    assert all(maker is not None for maker in kinds.values())


@pytest.mark.usefixtures("without_extension")
def test_without_the_extension_there_are_no_labels() -> None:
    assert make_label_maker(Settings()) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the native engine is Linux's")
def test_a_sub_interpreter_gets_the_portable_engine(run_python: RunPython, need_native: Callable[[], None]) -> None:
    need_native()
    program = """
try:
    import _interpreters as interpreters  # 3.13
except ImportError:
    import _xxsubinterpreters as interpreters
number = interpreters.create()
interpreters.run_string(number, "import sys; from profiling_middleware.sampling import why_not_native; "
                                "sys.stdout.write(repr(why_not_native())); sys.stdout.flush()")
"""
    ran = run_python(program)

    assert ran.returncode == 0, ran.stderr
    assert "the C extension cannot be loaded: " in ran.stdout
