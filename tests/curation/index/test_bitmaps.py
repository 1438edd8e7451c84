"""A bitmap is the mask it was packed from, whatever is asked of it."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core.curation.index import bitmaps


@pytest.mark.parametrize("pairs", [0, 1, 8, 64, 65, 1_003])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_bitmap__says_what_its_mask_says(pairs, share):
    mask = np.random.default_rng(pairs).random(pairs) < share
    bits = bitmaps.pack(mask)
    assert len(bits) == -(-pairs // 8)
    assert bitmaps.rows(bits).tolist() == np.flatnonzero(mask).tolist()
    assert bitmaps.unpack(bits, pairs).tolist() == mask.tolist()
    assert bitmaps.pairs_in(bits) == mask.sum()
    assert bitmaps.holds(bits, np.arange(pairs)).tolist() == mask.tolist()
    assert bitmaps.rows(bitmaps.first(pairs) & ~bits).tolist() == np.flatnonzero(~mask).tolist()


@pytest.mark.parametrize("asked", [0, 3, 10, 11, 35])
def test_gathered__is_plain_indexing(monkeypatch, asked):
    monkeypatch.setattr(bitmaps, "_GATHERED", 10)
    draw = np.random.default_rng(asked)
    array, rows = draw.normal(size=50).astype(np.float32), draw.integers(0, 50, asked)
    found = bitmaps.gathered(array, rows)
    assert found.dtype == np.float32
    assert found.tolist() == array[rows].tolist()
