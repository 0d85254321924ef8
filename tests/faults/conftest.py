"""Puts what makes requests up on the path."""

from __future__ import annotations

import sys
from pathlib import Path

# With --import-mode=importlib pytest adds no folder of tests to the path.
sys.path.insert(0, str(Path(__file__).parent))
