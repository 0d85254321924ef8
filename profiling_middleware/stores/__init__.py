"""Where captures go."""

from __future__ import annotations

from profiling_middleware.config import Settings
from profiling_middleware.stores.base import KeyTaken, Store, StoreError
from profiling_middleware.stores.directory import DirectoryStore
from profiling_middleware.stores.s3 import S3Store

__all__ = ["KeyTaken", "Store", "StoreError", "make_store"]


def make_store(settings: Settings) -> Store:
    """The store PROFILE_STORE asks for; nothing is opened, imported or sent yet."""
    if settings.directory is not None:
        return DirectoryStore(settings.directory)
    return S3Store(settings.bucket_name, settings.bucket_owner)
