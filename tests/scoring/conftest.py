"""Embeddings shared by the scoring tests."""

from __future__ import annotations

import numpy as np
import pytest


def unit_rows(n: int, width: int, seed: int, dtype=np.float32, centre: float = 0.0) -> np.ndarray:
    """n random directions, around a common centre where that is above 0."""
    rows = np.random.default_rng(seed).standard_normal((n, width)) + centre
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


@pytest.fixture
def rows():
    """unit_rows, for tests that draw several sets."""
    return unit_rows
