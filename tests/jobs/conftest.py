"""A folder for jobs, and the stand-in that they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import stand_in


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jobs folder in which the stand-in's commands can be started."""
    stand_in.install(tmp_path / "home", monkeypatch)
    return tmp_path / "jobs"
