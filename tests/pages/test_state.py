"""What is read of a run once is not read again, and what comes back is seen."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest

from clipsel_core.curation.exploring.projection import read_projection
from clipsel_core.curation.index import bitmaps
from clipsel_core.errors import ClipselError, PoolFormatError, RunError
from clipsel_core.pool.layout import knows_images, open_pool
from pages.parts import state
from pages.parts.catalog import Entry
from tests.pages.worlds import make_run
from tests.waiting import PATIENCE_S


@pytest.fixture
def entry(tmp_path, monkeypatch) -> Entry:
    monkeypatch.setattr(state._lacking, "_known", type(state._lacking._known)())
    return Entry("world", make_run(tmp_path / "world"))


def test_find_pool__that_is_gone_is_sought_once_and_found_when_it_comes_back(entry, monkeypatch):
    root, tries = Path(state.open_run(entry).pool_address), []
    monkeypatch.setattr(state, "open_pool", lambda root: tries.append(root) or open_pool(root))
    root.rename(root.with_name("away"))
    assert [state.find_pool(entry) for _ in range(3)] == [None] * 3
    assert len(tries) == 1
    table = state.open_table(entry)
    assert table.metadata.pool is None
    root.with_name("away").rename(root)
    assert state.find_pool(entry).rows == 60
    assert table.metadata.pool.rows == 60


def test_find_pool__that_was_mended_inside_is_found_within_seconds(entry, monkeypatch):
    shard = Path(open_pool(state.open_run(entry).pool_address).shards[0].parquet)
    data, stamp = shard.read_bytes(), shard.parent.stat().st_mtime_ns
    shard.write_bytes(b"PAR1")
    assert state.find_pool(entry) is None
    shard.write_bytes(data)
    assert shard.parent.stat().st_mtime_ns == stamp
    monkeypatch.setattr(state, "_LACKING_S", 0.0)
    assert state.find_pool(entry).rows == 60


@pytest.mark.parametrize("images", [True, False])
def test_knows_images__is_what_the_opened_pool_says(tmp_path, images):
    root = state.open_run(Entry("world", make_run(tmp_path / "world", images=images))).pool_address
    assert knows_images(root) == open_pool(root).has_images == images


def test_keeps__is_the_bitmap_asked_for_some_pairs(entry):
    recipe = "steps:\n- {metric: s_cliploss, keep_top: 0.5}\n"
    for text in ("", recipe):
        mask, keeps = bitmaps.unpack(state.kept_bits(entry, text), 60), state.keeps(entry, text)
        assert np.array_equal(keeps(np.arange(len(mask))), mask)
        assert 0 < mask.sum() <= len(mask)
    with pytest.raises(PoolFormatError):
        state.pool_at(entry.root / "no pool")


def test_scores_stamp__scores_written_over_in_place_are_noticed(entry, monkeypatch):
    """Neither the folder nor its names change. A damaged file is refused, a whole one is read anew."""
    monkeypatch.setattr(state, "_FILES_SEEN_S", 0.0)
    monkeypatch.setattr(state, "_FILES_REST", 0)
    recipe = "steps:\n- {metric: clip_score, at_least: -2}\n"
    file, stamp = Path(state.open_run(entry).score_files[0]), Path(entry.root / "scores").stat().st_mtime_ns
    before, pairs, whole = state.scores_stamp(entry), len(state.picked(entry, recipe).selection), file.read_bytes()
    file.write_bytes(whole[:-9])
    assert Path(entry.root / "scores").stat().st_mtime_ns == stamp
    assert state.scores_stamp(entry) != before
    with pytest.raises(RunError, match=re.escape(f"{file}: expected scores as written")):
        state.picked(entry, recipe)
    file.write_bytes(whole)
    assert len(state.picked(entry, recipe).selection) == pairs


def test_map__of_a_large_run_is_opened_ahead_and_once(entry, monkeypatch):
    read, done = [], threading.Event()

    def reading(*asked):
        read.append(asked)
        done.set()
        return read_projection(*asked)

    monkeypatch.setattr(state, "read_projection", reading)
    monkeypatch.setattr(state, "_LARGE", 60)
    monkeypatch.setattr(state, "_LATER_S", 0.0)
    assert len(state.open_table(entry)) == 60
    assert done.wait(PATIENCE_S)
    assert len(state.open_map(entry).rows) == 60
    assert len(read) == 1


def test_open_map__that_is_gone_says_what_to_do(entry):
    assert len(state.open_map(entry).rows) == 60
    Path(entry.root / "projection.parquet").unlink()
    assert state.find_map(entry) is None
    with pytest.raises(ClipselError, match=r"projection\.parquet: expected the run's map, found no such file; make it"):
        state.open_map(entry)
