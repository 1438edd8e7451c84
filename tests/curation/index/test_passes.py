"""Work that is shared between threads comes to the same as work done at once."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core.curation.index import passes


@pytest.mark.parametrize("asked", [0, 3, 10, 11, 35])
def test_gathered__is_plain_indexing(monkeypatch, asked):
    monkeypatch.setattr(passes, "_GATHERED", 10)
    draw = np.random.default_rng(asked)
    array, rows = draw.normal(size=50).astype(np.float32), draw.integers(0, 50, asked)
    found = passes.gathered(array, rows)
    assert found.dtype == np.float32
    assert found.tolist() == array[rows].tolist()
