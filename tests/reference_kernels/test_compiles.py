"""Every kernel compiles for a Hopper GPU, which the interpreter does not show, and keeps to its registers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from reference_kernels.registry import cards
from tests.conftest import ROOT
from tests.reference_kernels.offline import HOPPER


@pytest.mark.parametrize("name", [card.name for card in cards()])
def test_kernels_compile_for_hopper_and_spill_nothing(name: str):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.reference_kernels.offline", name],
        capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for kernel, takes in json.loads(done.stdout)[name].items():
        assert takes["local"] == 0, kernel
        assert takes["stack"] == 0, kernel
        assert takes["shared"] <= HOPPER["max_shared_mem"], kernel
