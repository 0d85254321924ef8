"""Garbage in cycles, with finalizers that run wherever the collector happens to be called."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator

from torture.shared import spin
from torture.stage import Stage


class Node:
    """Half of a cycle."""

    def __init__(self) -> None:
        self.other: object = self
        self.left = endless()
        next(self.left)

    def __del__(self) -> None:  # called by anything
        spin(20)


def endless() -> Iterator[int]:  # called by anything
    """Closed by the collector, at any place."""
    try:
        while True:
            yield spin(5)
    finally:
        spin(5)


def gone(_: object) -> None:  # called by anything
    spin(5)


def noticed(phase: str, _: object) -> None:  # called by anything
    spin(3)


def garbage(stage: Stage) -> None:  # called by run
    """Collections all the time, also in the middle of others' allocations."""
    random, before = stage.random("garbage"), gc.get_threshold()
    gc.callbacks.append(noticed)
    gc.set_threshold(300, 5, 5)
    while not stage.wait(random.random() / 50):
        nodes = [Node() for _ in range(100)]
        watched = [weakref.ref(node, gone) for node in nodes]
        nodes[0].other = nodes
        kept = deep_traceback(20)
        del nodes
        if random.random() < 0.3:
            gc.collect(random.randrange(3))
        del watched, kept
        stage.done["cycles"] += 100
    gc.set_threshold(*before)
    gc.callbacks.remove(noticed)


def deep_traceback(depth: int) -> BaseException | object:
    """Frames that outlive their calls."""
    try:
        return refuse(depth)
    except LookupError as error:
        return error


def refuse(depth: int) -> object:
    if depth:
        return refuse(depth - 1)
    if spin(3) >= 0:
        raise LookupError
    return sys._getframe()
