"""Commands that are killed, files that are damaged and system calls that fail leave nothing wrong behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipsel_core.processes import child_environment
from tests.waiting import PATIENCE_S


@pytest.mark.parametrize("asked", [("--kills", "60"), ("--damage", "100"), ("--syscalls", "50")])
def test_faults__everything_is_as_promised(asked):
    """Drawn by a seed; what is not as promised is printed with what repeats it."""
    command = [sys.executable, "-m", "benchmarks.faults", *asked]
    options = {"cwd": Path(__file__).parents[1], "env": child_environment(), "timeout": 3 * PATIENCE_S}
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
