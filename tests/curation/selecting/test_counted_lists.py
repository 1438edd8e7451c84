"""Lists that name pairs several times: counts through steps, exports and back, held against collections.Counter."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import dump_recipe, load_recipe, parse_recipe, save_recipe
from clipsel_core.curation.selecting.export import export
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.curation.selecting.verify import verify
from clipsel_core.errors import RecipeError
from tests.curation.conftest import hand_run, make_uids

PAIRS = 40
SCORES = np.random.default_rng(3).random(PAIRS).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    shards = [(make_uids(*range(start, start + 20)), {"clip_score": SCORES[start : start + 20]}) for start in (0, 20)]
    made = hand_run(tmp_path / "run", shards)
    Path(made.recipes_dir).mkdir()
    return made


def counter(seed: int) -> Counter[int]:
    """Some of the run's pairs, most of them several times."""
    return Counter(np.random.default_rng(seed).integers(0, PAIRS, 60).tolist())


def write(path, counts: Counter[int]):
    """In no order; as repeats, or with a column count."""
    numbers = np.random.default_rng(0).permutation(list(counts.elements()))
    hexes = uids.to_hex(make_uids(*numbers.tolist())).to_pylist()
    if path.suffix == ".npy":
        np.save(path, make_uids(*numbers.tolist()))
    elif path.suffix == ".txt":
        path.write_text("\n".join(hexes))
    else:
        table = pd.DataFrame({"uid": hexes, "count": 1}).groupby("uid", sort=False, as_index=False).sum()
        table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)


def recipe_of(run, *steps: str):
    return parse_recipe("steps:\n" + "\n".join(f"- {step}" for step in steps), folder=run.recipes_dir)


def counted(selection) -> Counter[int]:
    """How often each pair counts, by its number."""
    return Counter(uids.from_hex(uids.to_hex(selection.uids()))["f1"].tolist())


NOTHING = "{column: clip_score, keep_top: 0}"
TOP = set(np.argsort(-SCORES)[:20].tolist())
STEPS = {
    "the list alone": (["{intersect: A, counts: true}"], lambda a, b: a),
    "from nothing": ([NOTHING, "{union: A, counts: true}"], lambda a, b: a),
    "sum": (["{intersect: A, counts: true}", "{union: B, counts: true}"], lambda a, b: a + b),
    "smaller": (["{intersect: A, counts: true}", "{intersect: B, counts: true}"], lambda a, b: a & b),
    "pairs count once": (
        ["{column: clip_score, keep_top: 0.5}", "{union: B, counts: true}"],
        lambda a, b: Counter(TOP) + b,
    ),
    "filters keep counts": (
        ["{intersect: A, counts: true}", "{column: clip_score, keep_top: 0.25}", "{subtract: B}"],
        lambda a, b: Counter({n: a[n] for n in sorted(a, key=lambda n: -SCORES[n])[:10] if n not in b}),
    ),
    "a set adds ones": (
        ["{intersect: A, counts: true}", "{union: B}"],
        lambda a, b: a + Counter([n for n in b if n not in a]),
    ),
    "out and in again": (
        ["{intersect: A, counts: true}", "{subtract: B}", "{union: B}"],
        lambda a, b: Counter({n: c for n, c in a.items() if n not in b}) + Counter(list(b)),
    ),
    "off": (
        ["{intersect: A, counts: true}", "{union: B, counts: true, enabled: false}"],
        lambda a, b: a,
    ),
}


@pytest.mark.parametrize("ending", ["npy", "txt", "csv", "parquet"])
@pytest.mark.parametrize("steps", STEPS)
def test_select__counts_as_counters_do(run, steps, ending):
    lists = {"A": counter(1), "B": counter(2)}
    for name, counts in lists.items():
        write(Path(run.recipes_dir) / f"{name}.{ending}", counts)
    texts, expected = STEPS[steps]
    recipe = recipe_of(run, *(text.replace("A,", f"A.{ending},").replace("B", f"B.{ending}") for text in texts))
    truth = expected(lists["A"], lists["B"])
    table = ScoreTable.open(run)
    for found in (select(run, recipe), Picker(table).select(recipe), Picker(table, ranks=False).select(recipe)):
        assert counted(found) == truth
        assert (found.samples, len(found)) == (truth.total(), len(truth))
        assert found.report[-1].samples == truth.total()
        assert found.counts_of_counts() == Counter(truth.values())


@pytest.mark.parametrize("kind", ["intersect", "union", "subtract"])
def test_select__a_list_without_counts_is_a_set(run, kind):
    write(Path(run.recipes_dir) / "A.npy", counter(1))
    found = select(run, recipe_of(run, "{column: clip_score, keep_top: 0.5}", f"{{{kind}: A.npy}}"))
    truth = {"intersect": TOP & set(counter(1)), "union": TOP | set(counter(1)), "subtract": TOP - set(counter(1))}
    assert found.counts is None
    assert counted(found) == Counter(truth[kind])


@pytest.mark.parametrize("ending", ["npy", "txt", "csv", "parquet"])
def test_export__read_in_again_gives_the_same_bytes(run, ending):
    write(Path(run.recipes_dir) / "A.npy", counter(1))
    Path(run.exports_dir).mkdir()
    first = recipe_of(run, "{intersect: A.npy, counts: true}")
    out = Path(run.exports_dir) / f"first.{ending}"
    manifest = export(run, select(run, first), first, out)
    assert manifest.content["samples"] == counter(1).total()
    again = recipe_of(run, f"{{intersect: ../exports/first.{ending}, counts: true}}")
    other = Path(run.exports_dir) / f"again.{ending}"
    export(run, select(run, again), again, other)
    assert other.read_bytes() == out.read_bytes()
    found = verify(run)
    assert (found.problems, found.exports) == ([], 2)
    write(Path(run.recipes_dir) / "A.npy", counter(1) + Counter(counter(1).keys()))
    assert "expected what its recipe picks" in verify(run).problems[0]


def test_select__counts_beyond_sixteen_bits(run):
    pd.DataFrame({"uid": ["1", "2"], "count": [2**31 - 8, 7]}).to_csv(Path(run.recipes_dir) / "A.csv", index=False)
    once, twice = "{intersect: A.csv, counts: true}", "{union: A.csv, counts: true}"
    found = select(run, recipe_of(run, once, twice))
    assert found.counts_of_counts() == {14: 1, 2**32 - 16: 1}
    assert found.samples == 2**32 - 2
    expected = r"recipe:4: expected at most 4,294,967,295 samples, found 6,442,450,941"
    with pytest.raises(RecipeError, match=expected):
        select(run, recipe_of(run, once, twice, twice))


def test_recipe__counts_are_kept_and_checked(run, tmp_path):
    recipe = recipe_of(run, "{intersect: A.npy, counts: true}", "{union: B.npy, counts: false}")
    assert dump_recipe(recipe) == "steps:\n- {intersect: A.npy, counts: true}\n- {union: B.npy}\n"
    assert recipe.steps[0].text == "only those in A.npy, with their counts"
    saved = save_recipe(recipe, tmp_path / "elsewhere" / "r.yaml")
    assert load_recipe(tmp_path / "elsewhere" / "r.yaml") == saved
    assert saved.steps[0].counts
    with pytest.raises(RecipeError, match=r"recipe:2: expected one of the keys subtract, enabled, found 'counts'"):
        recipe_of(run, "{subtract: A.npy, counts: true}")
    with pytest.raises(RecipeError, match="expected counts to be true or false, found 2"):
        recipe_of(run, "{union: A.npy, counts: 2}")
    with pytest.raises(RecipeError, match="recipe:2: expected a list without counts, found counts, and a sample"):
        recipe_of(run, "{union: A.npy, counts: true}", "{sample: 5, by: clip_score}")


def test_select__a_count_that_is_none_is_told_with_the_recipes_line(run):
    pd.DataFrame({"uid": ["1"], "count": [-2]}).to_csv(Path(run.recipes_dir) / "A.csv", index=False)
    with pytest.raises(RecipeError, match=r"recipe:2: .*A\.csv: expected whole numbers from 0 .*, found -2"):
        select(run, recipe_of(run, "{intersect: A.csv, counts: true}"))
    assert json.loads(json.dumps(select(run, recipe_of(run, "{intersect: A.csv}")).report[0].samples)) is None
