"""Makes every function of the package a seam: a place that can be told to raise.

The package is compiled with a call at the beginning of each function, nested ones and lambdas included, so what is told
reaches every reference to it. Functions of the C extension are replaced in their module.
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from mmap import mmap
from types import BuiltinFunctionType, CodeType, ModuleType
from typing import Any

PACKAGE = "profiling_middleware"
NATIVE = f"{PACKAGE}.sampling._native"
OWN_THREADS = "profiling-"
_HIT = "__seam__"
REACHED, REACHED_BY_SERVICE, REACHED_BY_REQUESTS, RAISED = 1, 2, 4, 8
"""Marks; the second is of threads of the service itself and not in its children, the third of those while it serves."""


class Seams:
    """All seams by number, which of them raises, and which were reached."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """`module:qualified name`; what stands twice under one name has its line as well."""
        self.lines: dict[str, int] = {}
        self.serves = False
        """Whether the application is asked for something now, and nothing else happens in its threads."""
        self._armed = -1
        self._calls = self._calls_before = self._process = 0
        self._marks: mmap | None = None
        """One byte for each seam, which children that a run forks have as well."""

    def add(self, name: str, line: int) -> int:
        """A new one; returns its number."""
        if name in self.lines:
            name = f"{name}@{line}"
        self.lines[name] = line
        self.names.append(name)
        return len(self.names) - 1

    def arm(self, name: str, *, calls_before: int) -> None:
        """From now on it raises, after so many calls that go well."""
        self._calls_before = calls_before
        self._marks = mmap(-1, len(self.names))
        self._armed = self.names.index(name)
        if name.startswith(NATIVE):
            self._replace_native(name)

    def disarm(self) -> None:
        """Nothing raises any more."""
        self._armed = -1

    def record(self) -> None:
        """From now on notes what is reached."""
        self._marks, self._process = mmap(-1, len(self.names)), os.getpid()

    def marked(self, mark: int) -> set[str]:
        """The seams that have this mark: `RAISED`, or one of those that `record` gives."""
        marks = bytes(self._marks or b"")
        return {name for name, marked in zip(self.names, marks, strict=False) if marked & mark}

    def hit(self, number: int) -> None:
        """Called by each function as it begins. Raises RuntimeError in the armed one."""
        if number == self._armed:
            self._calls += 1
            if self._calls > self._calls_before:
                if self._marks is not None:
                    self._marks[number] = RAISED
                raise RuntimeError("a fault that was put here")
        elif self._marks is not None and self._armed < 0:
            # Not current_thread(): it makes one for a thread being born, and with it locks, which are seams themselves.
            thread = getattr(threading, "_active", {}).get(threading.get_ident())
            own = (thread is not None and thread.name.startswith(OWN_THREADS)) or os.getpid() != self._process
            by_service = REACHED_BY_SERVICE | (REACHED_BY_REQUESTS if self.serves else 0)
            self._marks[number] |= REACHED if own else REACHED | by_service

    def add_natives(self, native: ModuleType) -> None:
        """What the extension offers to Python."""
        for name, value in sorted(vars(native).items()):
            if isinstance(value, BuiltinFunctionType | type):
                self.add(f"{NATIVE}:{name}", 0)

    def _replace_native(self, name: str) -> None:
        number, attribute = self._armed, name.partition(":")[2]
        original: Callable[..., Any] = getattr(sys.modules[NATIVE], attribute)

        def replacement(*arguments: Any) -> Any:
            self.hit(number)
            return original(*arguments)

        setattr(sys.modules[NATIVE], attribute, replacement)


class _Transformer(ast.NodeTransformer):
    """Puts the call at the beginning of each function."""

    def __init__(self, seams: Seams, module: str) -> None:
        self._seams = seams
        self._module = module
        self._scopes: list[str] = []
        self._in_protocol = False

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        outer = self._in_protocol
        self._in_protocol = any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
        self._scopes.append(node.name)
        self.generic_visit(node)
        self._scopes.pop()
        self._in_protocol = outer
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        call = self._call("<lambda>", node)
        self._within("<lambda>", node)
        node.body = ast.copy_location(ast.BoolOp(ast.Or(), [call, node.body]), node.body)
        return node

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        if self._in_protocol:
            return node  # says what others have: nobody calls it
        call = ast.copy_location(ast.Expr(self._call(node.name, node)), node.body[0])
        self._within(node.name, node)
        node.body.insert(1 if ast.get_docstring(node, clean=False) is not None else 0, call)
        return node

    def _within(self, name: str, node: ast.AST) -> None:
        self._scopes += (name, "<locals>")
        self.generic_visit(node)
        del self._scopes[-2:]

    def _call(self, name: str, node: ast.stmt | ast.expr) -> ast.Call:
        number = self._seams.add(f"{self._module}:{'.'.join([*self._scopes, name])}", node.lineno)
        return ast.Call(ast.Name(_HIT, ast.Load()), [ast.Constant(number)], [])


class _Loader(SourceFileLoader):
    """Compiles a module with its seams; no compiled file is read or written."""

    seams: Seams

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        transformed = _Transformer(self.seams, fullname).visit(tree)
        return compile(ast.fix_missing_locations(transformed), path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, seams: Seams) -> None:
        self._seams = seams

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
            spec.loader.seams = self._seams
        return spec


def install() -> Seams:
    """To be called before the package is imported; from then on its modules have seams."""
    loaded = [name for name in sys.modules if name.partition(".")[0] == PACKAGE]
    if loaded:
        raise RuntimeError(f"loaded already, without seams: {', '.join(loaded)}")
    seams = Seams()
    setattr(builtins, _HIT, seams.hit)
    sys.meta_path.insert(0, _Finder(seams))
    return seams


def module_names() -> Iterator[str]:
    """All modules of the package."""
    import pkgutil
    from importlib import import_module

    package = import_module(PACKAGE)
    for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        yield module.name
