"""A local directory with the same keys as the bucket."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from profiling_middleware.model import Body, CaptureInfo
from profiling_middleware.stores.base import KeyTaken, StoreError


class DirectoryStore:
    """Files under `root`, whole or not there, readable by the owner and the group."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def place(self) -> str:
        return self._root.as_uri()

    def warm_up(self) -> None:
        """Nothing is slow here."""

    def put(self, key: str, body: Body, info: CaptureInfo) -> None:
        path = self._root / key
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write(temporary, body)
                # Unlike a rename, a link fails where a file already is.
                os.link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError as error:
            if path.is_file():
                raise KeyTaken(key) from None
            raise StoreError(_explain(self._root, error)) from error
        except OSError as error:
            raise StoreError(_explain(self._root, error)) from error

    @staticmethod
    def _write(path: Path, body: Body) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in (body,) if isinstance(body, bytes) else body.chunks():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())


def _explain(root: Path, error: OSError) -> str:
    return (
        f"{error.strerror or error} ({error.filename or root}): the directory of PROFILE_STORE "
        f"({root}) must be writable by uid {os.geteuid()} and have room"
    )
