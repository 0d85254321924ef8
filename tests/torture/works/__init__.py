"""What the tortured process does. A work runs on threads of its own until the stage is stopped."""

from __future__ import annotations

from torture.stage import Work
from torture.works.calls import calls, tasks
from torture.works.codes import codes
from torture.works.foreign import foreign
from torture.works.forks import forks
from torture.works.garbage import garbage
from torture.works.imports import imports
from torture.works.interpreters import interpreters
from torture.works.labels import labels
from torture.works.signals import errors, waits
from torture.works.threads import churn, crowd
from torture.works.tracing import tracing

WORKS: dict[Work, int] = {
    calls: 1,
    tasks: 1,
    codes: 1,
    churn: 1,
    crowd: 1,
    foreign: 1,
    garbage: 1,
    imports: 1,
    interpreters: 1,
    labels: 1,
    errors: 1,
    waits: 1,
    tracing: 1,
    forks: 1,
}
"""Each with the number of its threads."""
