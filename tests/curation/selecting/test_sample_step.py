"""A recipe that ends with sample: a selection in which a pair counts several times, and what is written of it."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import dump_recipe, parse_recipe
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.curation.selecting import sampling
from clipsel_core.curation.selecting.export import export, manifest_of
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.curation.selecting.shards import export_shards
from clipsel_core.errors import RecipeError
from clipsel_core.runs.store import Run

DEMO = Path("data/demo/run")
STEP = "{sample: 9000, by: {clip_score: 20, s_cliploss: 10}, penalty: 0.15, round: 700, seed: 4}"


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.open(DEMO)


def recipe_of(*steps: str):
    return parse_recipe("steps:\n" + "\n".join(f"- {step}" for step in steps))


def scores_of(table: ScoreTable) -> np.ndarray:
    weighted = 20 * table.column("clip_score").astype(float) + 10 * table.column("s_cliploss").astype(float)
    return weighted.astype(np.float32)


@pytest.mark.parametrize(
    ("step", "draw"),
    [
        (STEP, lambda scores: sampling.soft_cap(scores, 9000, penalty=0.15, per_round=700, seed=4)),
        (
            "{sample: 2000, by: {clip_score: 20, s_cliploss: 10}, method: hard_cap, limit: 3}",
            lambda scores: sampling.hard_cap(scores, 2000, limit=3, seed=0),
        ),
        (
            "{sample: 500, by: original_width, method: proportional, seed: 1}",
            lambda scores: sampling.proportional(np.where(np.isnan(scores), np.nan, 112.0), 500, seed=1),
        ),
    ],
)
def test_select__draws_from_those_that_the_other_steps_keep(run, step, draw):
    table = ScoreTable.open(run)
    before = select(run, recipe_of("{column: clip_score, keep_top: 0.4}")).mask()
    recipe = recipe_of("{column: clip_score, keep_top: 0.4}", step)
    found = select(run, recipe)
    if "original_width" in step:
        assert set(table.column("original_width").tolist()) == {112.0}
    expected = draw(np.where(before, scores_of(table), np.float32(np.nan)))
    assert np.array_equal(found.counts, expected)
    assert found.samples == expected.sum() == found.report[-1].samples
    assert np.array_equal(found.mask(), expected > 0)
    assert len(found) == (expected > 0).sum()
    assert found.counts_of_counts() == dict(sorted(Counter(expected[expected > 0].tolist()).items()))
    assert np.array_equal(Picker(table, ranks=True).select(recipe).counts, expected)


@pytest.mark.parametrize("ending", [".npy", ".txt", ".parquet", ".csv"])
def test_export__writes_how_often_a_pair_counts(run, tmp_path, ending):
    recipe, table = recipe_of(STEP), ScoreTable.open(run)
    found = select(run, recipe, table)
    out = tmp_path / f"subset{ending}"
    said = export(run, found, recipe, out).content
    named = uids.to_hex(table.uids_at(found.rows)).to_pylist()
    expected = dict(zip(named, found.counts[found.rows].tolist(), strict=True))
    if ending == ".npy":
        written = np.load(out)
        assert written.dtype == np.dtype("u8,u8")
        assert np.array_equal(np.sort(written), written)
        counts = Counter(uids.to_hex(written).to_pylist())
    elif ending == ".txt":
        counts = Counter(out.read_text().split())
    else:
        frame = pq.read_table(out).to_pandas() if ending == ".parquet" else pd.read_csv(out)
        assert frame.uid.is_monotonic_increasing
        counts = dict(zip(frame.uid, frame["count"], strict=True))
    assert counts == expected
    assert (said["pairs"], said["samples"]) == (len(expected), 9000)
    assert said["pairs_by_count"] == {str(count): pairs for count, pairs in sorted(Counter(expected.values()).items())}
    assert len(read_uid_list(out)) == len(expected)


def test_export_shards__writes_a_pair_as_often_as_it_counts(run, tmp_path):
    recipe = recipe_of("{column: clip_score, keep_top: 0.01}", "{sample: 90, by: clip_score, round: 38}")
    found = select(run, recipe)
    content = export_shards(run, found, recipe, tmp_path / "tars", pairs_per_shard=20)
    keys, seen, batches = set(), Counter(), []
    for tar in sorted((tmp_path / "tars").glob("*.tar")):
        with tarfile.open(tar) as archive:
            members = archive.getnames()
            told = [json.load(archive.extractfile(name)) for name in members if name.endswith(".json")]
        keys |= {name for name in members if name.endswith(".json")}
        seen.update(fact["uid"] for fact in told)
        batches.append([fact["uid"] for fact in told])
    expected = dict(
        zip(uids.to_hex(found.table.uids_at(found.rows)).to_pylist(), found.counts[found.rows].tolist(), strict=True)
    )
    assert seen == expected
    assert len(keys) == content["written"] == 90
    assert keys == {f"{uid}-{copy}.json" for uid, count in expected.items() for copy in range(count)}
    assert all(len(set(batch)) == len(batch) for batch in batches[:2])  # copies come behind all first ones


def test_parse_recipe__takes_samples_only_at_the_end():
    with pytest.raises(RecipeError, match=r"recipe:2: expected sample as the last step, found random behind it"):
        recipe_of("{sample: 10, by: clip_score}", "{random: 0.5}")
    recipe_of("{sample: 10, by: clip_score}", "{random: 0.5, enabled: false}")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{sample: 10, by: clip_score, method: hard_cap}", "a limit with hard_cap"),
        ("{sample: 10, by: clip_score, limit: 3}", "a limit with hard_cap.*found one with soft_cap"),
        ("{sample: 10, by: clip_score, method: proportional, round: 3}", "only with soft_cap"),
        ("{sample: 1.5, by: clip_score}", "a whole number"),
        ("{sample: 10}", "a by beside sample"),
        ("{sample: 10, by: {clip_score: [1]}}", "by to be a column, or columns with their weights"),
    ],
)
def test_parse_recipe__says_what_a_sample_needs(step, said):
    with pytest.raises(RecipeError, match=rf"recipe:2: .*{said}"):
        recipe_of(step)


def test_select__a_cap_that_cannot_be_met_is_one_line_with_the_recipes(run):
    with pytest.raises(RecipeError, match=r"recipe:2: limit: expected at least 3, to draw 9,000 samples") as caught:
        select(run, recipe_of("{sample: 9000, by: clip_score, method: hard_cap, limit: 2}"))
    assert "\n" not in str(caught.value)


def test_dump_recipe__a_sample_is_read_back_as_it_was():
    recipe = recipe_of(STEP)
    assert parse_recipe(dump_recipe(recipe)) == recipe
    assert dump_recipe(recipe) == (
        "steps:\n- {sample: 9000, by: {clip_score: 20, s_cliploss: 10}, penalty: 0.15, round: 700, seed: 4}\n"
    )


@pytest.mark.parametrize(("given", "seen"), [(None, 9000), (27_000, 27_000)])
def test_manifest__says_how_often_pairs_are_seen(run, tmp_path, given, seen):
    recipe = recipe_of(STEP)
    selection = select(run, recipe)
    content = export(run, selection, recipe, tmp_path / "a.npy", samples_seen=given).content
    assert (content["samples"], content["samples_seen"], content["epochs"]) == (9000, seen, seen / 9000)
    times = {float(times): pairs for times, pairs in content["pairs_by_times_seen"].items()}
    assert times == {seen / 9000 * count: pairs for count, pairs in selection.counts_of_counts().items()}
    assert sum(times * pairs for times, pairs in times.items()) == seen
    assert json.loads((tmp_path / "a.npy.manifest.json").read_text()) == content


def test_manifest__epochs_of_a_set_and_of_what_is_written(run, tmp_path):
    recipe = recipe_of("{column: clip_score, keep_top: 0.01}")
    selection = select(run, recipe)
    assert "epochs" not in export(run, selection, recipe, tmp_path / "a.npy").content
    content = export(run, selection, recipe, tmp_path / "a.npy", samples_seen=95).content
    assert (content["epochs"], content["pairs_by_times_seen"]) == (2.5, {"2.5": 38})
    done = export_shards(run, selection, recipe, tmp_path / "tars", samples_seen=95)
    assert done["epochs"] == 95 / done["written"] == 2.5
    # How many are written counts, not how many were selected.
    assert manifest_of(run, selection, recipe, samples_seen=95, written=19)["epochs"] == 5
