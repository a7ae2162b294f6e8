"""Where this repository lies: the tests of the kernels need nothing else of the atlas."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
