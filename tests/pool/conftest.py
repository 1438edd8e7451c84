"""Tiny teachers, loaded once."""

from __future__ import annotations

import pytest

from clipsel_core.pool.making.embed import load_teacher
from tests.pool.pictures import write_teacher


@pytest.fixture(scope="session")
def teacher_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("teachers")
    return [write_teacher(root / str(seed), seed) for seed in range(2)]


@pytest.fixture(scope="session")
def teachers(teacher_folders):
    return [load_teacher(f"local-dir:{folder}") for folder in teacher_folders]
