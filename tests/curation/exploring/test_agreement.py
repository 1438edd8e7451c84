"""What two runs agree on is what DuckDB and the recipes say."""

from __future__ import annotations

from fractions import Fraction

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from clipsel_core.curation.exploring.agreement import (
    Alignment,
    align,
    measure_agreement,
    read_agreements,
    tops,
    write_agreements,
)
from clipsel_core.curation.index.ranking import keep_top
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.selection import select
from tests.curation.conftest import hand_run, make_uids

PAIRS = 2000
SPEARMAN = """
    WITH ranked AS (SELECT (rank() OVER (ORDER BY x)) + (count(*) OVER (PARTITION BY x) - 1) / 2 AS a,
                           (rank() OVER (ORDER BY y)) + (count(*) OVER (PARTITION BY y) - 1) / 2 AS b FROM scores)
    SELECT corr(a, b) FROM ranked
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> tuple[ScoreTable, ScoreTable, ScoreTable]:
    """A run, another with the same pairs, and a third that has some of them in another order, with ties and gaps."""
    draw, root = np.random.default_rng(4), tmp_path_factory.mktemp("runs")
    names = make_uids(*draw.permutation(10 * PAIRS)[:PAIRS])
    first = draw.normal(size=PAIRS).round(2)
    second = (first + draw.normal(size=PAIRS)).round(2)
    second[:40] = np.nan
    first[30:60] = np.nan
    order = draw.permutation(PAIRS)[: PAIRS - 300]
    strange = make_uids(*range(20 * PAIRS, 20 * PAIRS + 50))
    third = np.concatenate([names[order], strange]), {"clip_score": np.concatenate([second[order], np.ones(50)])}
    runs = (
        hand_run(root / "a", [(names[:700], {"clip_score": first[:700]}), (names[700:], {"clip_score": first[700:]})]),
        hand_run(root / "b", [(names, {"clip_score": second})]),
        hand_run(root / "c", [third]),
    )
    return tuple(map(ScoreTable.open, runs))


def test_align__notices_the_same_pairs_in_other_shards(tables):
    found = align(tables[0], tables[1])
    assert found.rows is None
    assert found.shared == PAIRS


def test_align__finds_pairs_by_uid_where_rows_differ(tables):
    found = align(tables[0], tables[2])
    assert found.shared == PAIRS - 300
    known = found.rows >= 0
    assert tables[2].uids_at(found.rows[known]).tolist() == tables[0].uids()[known].tolist()
    assert not set(tables[0].uids()[~known].tolist()) & set(tables[2].uids().tolist())


def test_align__the_same_number_of_other_pairs_is_not_the_same(tmp_path):
    runs = [hand_run(tmp_path / str(k), [(make_uids(*range(k, k + 5)), {"clip_score": range(5)})]) for k in (1, 2)]
    found = align(*map(ScoreTable.open, runs))
    assert found.rows.tolist() == [-1, 0, 1, 2, 3]


def columns_of(alignment: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """CLIPScore in both runs, in the first one's rows; NaN where the second lacks the pair."""
    mine, theirs = alignment.first.column("clip_score"), alignment.second.column("clip_score")
    if alignment.rows is None:
        return mine.astype(float), theirs.astype(float)
    return mine.astype(float), np.where(alignment.rows >= 0, theirs[alignment.rows], np.nan).astype(float)


@pytest.mark.parametrize("other", [1, 2])
def test_measure_agreement__spearman_is_duckdbs(tables, other):
    alignment = align(tables[0], tables[other])
    x, y = columns_of(alignment)
    both = ~np.isnan(x) & ~np.isnan(y)
    scores = pa.table({"x": x[both], "y": y[both]})
    found = measure_agreement(alignment, "clip_score")
    assert found.pairs == len(scores)
    assert found.spearman == pytest.approx(duckdb.connect().sql(SPEARMAN).fetchall()[0][0], abs=1e-12)
    assert 0.4 < found.spearman < 0.9


@pytest.mark.parametrize("other", [1, 2])
def test_measure_agreement__overlap_is_that_of_the_tops(tables, other):
    alignment = align(tables[0], tables[other])
    found = measure_agreement(alignment, "clip_score")
    x, y = columns_of(alignment)
    both = ~np.isnan(x) & ~np.isnan(y)
    for percent in range(1, 101):
        mine, theirs = tops(alignment, "clip_score", Fraction(percent, 100))
        assert mine.sum() == theirs.sum() == int(Fraction(percent, 100) * found.pairs)
        assert found.overlap[percent - 1] == (mine & theirs).sum() / mine.sum()
        for values, top in ((x, mine), (y, theirs)):
            assert (top == keep_top(values.astype(np.float32), both, int(mine.sum()), tables[0].uids_at)[0]).all()
    assert found.overlap[-1] == 1


def test_measure_agreement__can_be_ended_between_its_steps(tables):
    shares = []
    measure_agreement(align(*tables[:2]), "clip_score", lambda done, total, *_: shares.append(done / total))
    assert shares == sorted(shares)
    assert len(shares) > 1

    def end(*_) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        measure_agreement(align(*tables[:2]), "clip_score", end)


def test_tops__are_what_recipes_keep(big_run):
    table = ScoreTable.open(big_run)
    mine, theirs = tops(align(table, table), "s_cliploss", Fraction("0.3"))
    scored = int((~np.isnan(table.column("s_cliploss"))).sum())
    first = "{metric: s_cliploss, at_least: -10}"
    recipe = parse_recipe(f"steps: [{first}, {{metric: s_cliploss, keep_top: 0.3, of: survivors}}]")
    assert np.flatnonzero(mine).tolist() == select(big_run, recipe, table).rows.tolist()
    assert (mine == theirs).all()
    assert mine.sum() == int(Fraction("0.3") * scored)


def test_measure_agreement__of_a_run_with_itself_and_its_reverse(tmp_path):
    values = np.arange(50) / 50
    names = make_uids(*range(50))
    runs = [hand_run(tmp_path / str(sign), [(names, {"clip_score": sign * values})]) for sign in (1, -1)]
    one, two = map(ScoreTable.open, runs)
    same, other = measure_agreement(align(one, one), "clip_score"), measure_agreement(align(one, two), "clip_score")
    assert (same.spearman, other.spearman) == pytest.approx((1, -1))
    assert np.nanmin(same.overlap) == 1
    assert other.overlap[49] == 0
    assert np.isnan(same.overlap[0])


@pytest.mark.parametrize("values", [[0.5] * 4, [np.nan] * 4])
def test_measure_agreement__without_an_order(tmp_path, values):
    run = hand_run(tmp_path / "run", [(make_uids(1, 2, 3, 4), {"clip_score": values})])
    table = ScoreTable.open(run)
    assert np.isnan(measure_agreement(align(table, table), "clip_score").spearman)


def test_align__nothing_in_common(tmp_path):
    runs = [hand_run(tmp_path / str(k), [(make_uids(k, k + 1), {"clip_score": [0, 1]})]) for k in (1, 7)]
    found = align(*map(ScoreTable.open, runs))
    assert found.shared == 0
    assert measure_agreement(found, "clip_score").pairs == 0


def test_write_agreements__are_read_as_they_were(tmp_path):
    runs = [hand_run(tmp_path / str(k), [(make_uids(*range(30)), {"clip_score": range(30)})]) for k in (1, 2)]
    found = {"clip_score": measure_agreement(align(*map(ScoreTable.open, runs)), "clip_score")}
    write_agreements(tmp_path / "a.json", found)
    known = read_agreements(tmp_path / "a.json")["clip_score"]
    assert (known.pairs, known.spearman) == (30, found["clip_score"].spearman)
    assert np.array_equal(known.overlap, found["clip_score"].overlap, equal_nan=True)
    assert np.isnan(known.overlap[0])


@pytest.mark.parametrize("text", [None, "", "[]", '{"a": {"pairs": 1, "spearman": 1, "overlap": [1]}}', '{"a": 1}'])
def test_read_agreements__takes_nothing_from_another_file(tmp_path, text):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    assert read_agreements(tmp_path / "a.json") == {}
