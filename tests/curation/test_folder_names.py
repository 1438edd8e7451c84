"""Folders may be called anything: no name is read as a pattern, or as a column and its value."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core.curation.exploring.captions import CaptionScan
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import load_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.runs.store import Run

DEMO = Path(__file__).parents[2] / "data" / "demo"
NAMES = ["text=hello", "uid_hi=7", "s_cliploss=1", "m[1]", "m*", "m?", "a [b] {c} 'd' ü"]


@pytest.fixture
def named(tmp_path, request):
    """The demo's pool and run in a folder of this name, beside one that the name would match as a pattern."""
    for folder in (request.param, "m1"):
        for part in ("pool", "run"):
            left_out = shutil.ignore_patterns("index", "cache", "exports", "shards", "*.npz")
            shutil.copytree(DEMO / part, tmp_path / folder / part, ignore=left_out)
    for shard in (tmp_path / "m1").glob("*/*/*.parquet"):
        table = pq.ParquetFile(shard).read()
        pq.write_table(table.take(pa.array(np.arange(len(table))[::-1])), shard)
    return Run.open(tmp_path / request.param / "run")


@pytest.mark.parametrize("named", NAMES, indirect=True)
def test_select__answers_the_same_in_any_folder(named):
    plain, recipe = Run.open(DEMO / "run"), load_recipe(DEMO / "run" / "recipes" / "two_steps.yaml")
    expected = select(plain, recipe).uids()
    assert np.array_equal(select(named, recipe).uids(), expected)


@pytest.mark.parametrize("named", NAMES, indirect=True)
def test_captions__are_the_pairs_own_in_any_folder(named):
    table, plain = ScoreTable.open(named), ScoreTable.open(Run.open(DEMO / "run"))
    rows = np.array([0, 17, 2000, 3799])
    found, expected = table.metadata.of(rows), plain.metadata.of(rows)
    assert {name: texts.tolist() for name, texts in found.items()} == {
        name: texts.tolist() for name, texts in expected.items()
    }
    for word, least in (("red", 1), ("hello", 0)):
        scans = [CaptionScan.for_words(each, [word]) for each in (table, plain)]
        for scan in scans:
            while not scan.finished:
                scan.step()
        assert scans[0].found == scans[1].found >= least
        assert np.array_equal(scans[0].bits, scans[1].bits)
