"""What debuggers and coverage tools do to the code of others."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from torture.families import Families
from torture.shared import spin
from torture.stage import Stage


def tracer(frame: FrameType, event: str, argument: Any) -> Any:  # called by anything
    spin(1)
    return tracer


def tracing(stage: Stage) -> None:  # called by run
    """Since 3.12 it changes the instructions of whatever runs meanwhile, on every thread."""
    random, families = stage.random("tracing"), Families.shared(stage.directory)
    while not stage.wait(random.random() / 5):
        switch = random.choice((sys.settrace, sys.setprofile))
        switch(tracer)
        try:
            families.call_some(random, 3)
        finally:
            switch(None)
        stage.done["traces"] += 1
