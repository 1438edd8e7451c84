"""Steps on any column, against pandas and plain formulas: mixes, filters, the pool's table, random shares."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.selection import Picker, select
from clipsel_core.errors import RecipeError, RunError
from clipsel_core.runs.columns import Mix, Noise, words_of
from clipsel_core.runs.store import Run
from tests.curation.conftest import hand_run

DEMO = Path(__file__).parents[3] / "data" / "demo" / "run"
ROWS = 700
CAPTIONS = [
    "A dog on grass",
    "hotdogs, two",
    "LE CHIEN ÉTÉ",
    "dog's cat",
    "été et hiver",
    "",
    "C++ and C",
    "dog_cat",
    "the DOG",
    "a\xa0dog",
    "a\u3000Dog",
    "a\x0bdog",
    "a\u2028dog",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Run, pd.DataFrame]:
    """A run of three shards over a pool with a table of many kinds, and the same as a frame with a row a pair."""
    root, rng = tmp_path_factory.mktemp("columns"), np.random.default_rng(11)
    frame = pd.DataFrame(
        {
            "clip_score": rng.normal(0.2, 0.05, ROWS).round(2).astype(np.float32),
            "s_cliploss": rng.normal(-0.1, 0.1, ROWS).astype(np.float32),
            "flat": np.full(ROWS, 0.5, np.float32),
            "holes": np.where(rng.random(ROWS) < 0.2, np.nan, rng.gamma(2, 1, ROWS)).astype(np.float32),
        }
    )
    frame.loc[3, "holes"] = np.inf
    frame.loc[[5, 6], ["clip_score", "s_cliploss", "flat", "holes"]] = np.nan  # set aside
    names = uids.from_hex([f"{n:032x}" for n in rng.permutation(ROWS) * 7919])
    table = {
        "uid": uids.to_hex(names).to_pylist(),
        "text": rng.choice(CAPTIONS, ROWS).tolist(),
        "language": [None if n % 9 == 0 else ["en", "fr", "de"][n % 3] for n in range(ROWS)],
        "original_width": [None if n % 50 == 0 else int(n) * 10 for n in rng.integers(5, 90, ROWS)],
        "original_height": rng.integers(50, 900, ROWS).tolist(),
        "safe": [None if n % 31 == 0 else bool(n % 2) for n in range(ROWS)],
        "ratio": rng.random(ROWS).tolist(),
        "boxes": [[1, 2]] * ROWS,
        "topic": pd.Series([None if n % 13 == 0 else ["art", "birds", "cars"][n % 3] for n in range(ROWS)]),
        "price": [None if n % 17 == 0 else Decimal(n) / 100 for n in range(ROWS)],
        "stars": pd.Series([n % 5 for n in range(ROWS)], dtype="category"),
    }
    stored = {**table, "topic": table["topic"].astype("category")}
    ends = [0, 300, 301, ROWS]
    metadata = root / "pool" / "metadata"
    metadata.mkdir(parents=True)
    shards = []
    for place, (start, stop) in enumerate(pairwise(ends)):
        pq.write_table(pa.table(stored).slice(start, stop - start), metadata / f"{place:08d}.parquet")
        rows = stop - start
        np.savez(
            metadata / f"{place:08d}.npz",
            l14_img=np.ones((rows, 16), np.float16),
            l14_txt=np.ones((rows, 16), np.float16),
        )
        columns = {name: frame[name].to_numpy()[start:stop] for name in ("clip_score", "s_cliploss", "flat", "holes")}
        shards.append((names[start:stop], columns))
    run = hand_run(root / "run", shards, pool="../pool")
    for name in table:
        frame[name] = pd.Series(table[name], dtype=object)
    return run, frame


def kept_by(run: Run, *steps: str) -> np.ndarray:
    """What the steps keep, by the way that looks at all scores; the way by ranks has to agree."""
    recipe = parse_recipe("steps:\n" + "\n".join(f"- {{{step}}}" for step in steps))
    mask = select(run, recipe).mask()
    assert np.array_equal(Picker(ScoreTable.open(run), ranks=True).select(recipe).mask(), mask)
    return mask


def scored(frame: pd.DataFrame) -> np.ndarray:
    return frame["clip_score"].notna().to_numpy()


FILTERS = {
    "column: original_width, at_least: 200": lambda f: f.original_width.astype(float) >= 200,
    "column: original_width, at_most: 199.5": lambda f: f.original_width.astype(float) <= 199.5,
    "column: ratio, between: [0.25, 0.5]": lambda f: f.ratio.astype("float32").between(0.25, 0.5),
    "column: clip_score, between: [0.2, 0.24]": lambda f: f.clip_score.astype(float).between(0.2, 0.24),
    "column: language, in: [en, fr]": lambda f: f.language.isin(["en", "fr"]),
    "column: language, known: true": lambda f: f.language.notna(),
    "column: language, known: false": lambda f: f.language.isna(),
    "column: original_width, known: false": lambda f: f.original_width.isna(),
    "column: original_width, in: [100, 2e2, 301]": lambda f: f.original_width.isin([100, 200, 301]),
    "column: topic, in: [birds, cars]": lambda f: f.topic.isin(["birds", "cars"]),
    "column: topic, known: false": lambda f: f.topic.isna(),
    "column: price, between: [1.25, 3]": lambda f: f.price.between(Decimal("1.25"), Decimal(3)),
    "column: safe, in: ['true']": lambda f: f.safe.eq(True),
    "column: safe, at_most: 0": lambda f: f.safe.eq(False),
    "column: aspect_ratio, at_most: 1.5": lambda f: (
        (
            pd.concat([f.original_width.astype(float), f.original_height.astype(float)], axis=1).max(axis=1)
            / pd.concat([f.original_width.astype(float), f.original_height.astype(float)], axis=1).min(axis=1)
        ).where(f.original_width.notna())
        <= 1.5
    ),
    "any_of: [{column: language, in: [de]}, {column: holes, at_least: 3}]": lambda f: (
        f.language.eq("de") | (f.holes >= 3)
    ),
}


@pytest.mark.parametrize("step", FILTERS)
def test_select__a_filter_keeps_what_pandas_keeps(world, step):
    run, frame = world
    expected = FILTERS[step](frame).fillna(False).to_numpy(bool) & scored(frame)
    assert 0 < expected.sum() < scored(frame).sum()
    assert np.array_equal(kept_by(run, step), expected)


def test_select__a_number_that_float32_does_not_hold_is_no_infinity(world):
    run, frame = world
    assert np.isinf(frame.holes).sum() == 1
    for number, found in {"1e39": 0, "1e999999": 0, "Infinity": 1}.items():
        assert kept_by(run, f"column: holes, in: [{number}]").sum() == found


@pytest.mark.parametrize(
    "words", [["dog"], ["DOG", "chien"], ["été"], ["ÉTÉ"], ["c++"], ["a  dog", "hiver"], ["nothing"], ["dog_cat"]]
)
def test_select__contains_finds_whole_words_in_any_case(world, words):
    run, frame = world
    folded = [r"\s+".join(map(re.escape, word.casefold().split())) for word in words]
    pattern = re.compile(rf"(?<!\w)({'|'.join(folded)})(?!\w)")
    expected = frame.text.map(lambda text: bool(pattern.search(text.casefold()))).to_numpy() & scored(frame)
    assert np.array_equal(kept_by(run, f"column: text, contains: {words}"), expected)


def best(values: np.ndarray, names: np.ndarray, k: int) -> np.ndarray:
    """The k highest values, equal ones by the smaller uid, NaN never: said as a sort of all pairs."""
    order = sorted(np.flatnonzero(~np.isnan(values)), key=lambda row: (-values[row], names[row].tolist()))
    mask = np.zeros(len(values), bool)
    mask[order[:k]] = True
    return mask


@pytest.mark.parametrize("share", ["0.3", "0", "1", "0.013"])
def test_select__keep_bottom_keeps_the_lowest_and_ties_go_to_the_smaller_uid(world, share):
    run, frame = world
    names = ScoreTable.open(run).uids()
    expected = best(-frame.clip_score.to_numpy(), names, int(Decimal(share) * ROWS))
    assert np.array_equal(kept_by(run, f"column: clip_score, keep_bottom: {share}"), expected)


def standardised(frame: pd.DataFrame, name: str, how: str) -> np.ndarray:
    values = frame[name].astype(float).replace([np.inf, -np.inf], np.nan).to_numpy(copy=True)
    known = ~np.isnan(values)
    if how == "zscore":
        return (values - values[known].mean()) / values[known].std()
    if how == "rank":
        values[known] = (stats.rankdata(values[known]) - 0.5) / known.sum()
    return values


@pytest.mark.parametrize("how", ["zscore", "rank", "none"])
@pytest.mark.parametrize("missing", ["", "mean"])
def test_column__a_mix_is_the_weighted_sum(world, how, missing):
    run, frame = world
    weights = {"s_cliploss": 1.0, "holes": -0.5, "original_width": 0.25}
    parts = {name: standardised(frame, name, how) for name in weights}
    if missing:
        parts = {name: np.where(np.isnan(part), np.nanmean(part), part) for name, part in parts.items()}
    expected = sum(weight * parts[name] for name, weight in weights.items())
    mix = Mix(tuple((name, Decimal(str(weight))) for name, weight in weights.items()), how, missing or None)
    found = ScoreTable.open(run).column(mix.name)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    step = f"mix: {weights}, standardise: {how}, keep_top: 0.2" + (", missing: mean" if missing else "")
    assert kept_by(run, step).sum() == min(140, (~np.isnan(expected) & scored(frame)).sum())


def test_column__the_order_of_a_mix_changes_no_bit(world):
    table = ScoreTable.open(world[0])
    one = Mix((("s_cliploss", Decimal("0.1")), ("holes", Decimal("0.30"))))
    other = Mix((("holes", Decimal("0.3")), ("s_cliploss", Decimal("0.10"))))
    assert one.name == other.name
    assert words_of(one.name) == "0.3 holes + 0.1 s_cliploss (z-scores)"
    assert table.column(one.name) is table.column(other.name)


@pytest.mark.parametrize("how", ["zscore", "rank"])
def test_select__a_column_without_spread_cannot_be_standardised(world, how):
    run, _ = world
    with pytest.raises((RecipeError, RunError), match=r"flat.*values that differ.*698 values, all alike"):
        kept_by(run, f"mix: {{flat: 1, s_cliploss: 1}}, standardise: {how}, keep_top: 0.2")


def test_select__random_keeps_a_share_that_seed_and_uid_decide(world):
    run, _ = world
    first = kept_by(run, "column: language, in: [en, fr]", "random: 0.5, seed: 3")
    arriving = kept_by(run, "column: language, in: [en, fr]")
    assert first.sum() == arriving.sum() // 2
    assert not (first & ~arriving).any()
    assert np.array_equal(first, kept_by(run, "column: language, in: [en, fr]", "random: 0.5, seed: 3"))
    assert (first != kept_by(run, "column: language, in: [en, fr]", "random: 0.5, seed: 4")).any()


def test_column__random_numbers_are_uniform_and_independent_of_the_seed_before(world):
    rng = np.random.default_rng(0)
    names = np.zeros(1 << 17, uids.UID_DTYPE)
    names["f0"], names["f1"] = rng.integers(0, 1 << 63, (2, len(names)))
    names["f0"][: 1 << 16] = 0  # uids that count up, as some pools have them
    names["f1"][: 1 << 16] = np.arange(1 << 16)

    class Table:
        def uids(self):
            return names

    from clipsel_core.curation.index.columns import values_of

    one, two = (values_of(Table(), Noise(seed).name) for seed in (0, 1))
    for numbers in (one, two):
        assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("column: text, at_least: 3", "text.*expected numbers.*texts.*use in, contains or known"),
        ("column: ratio, contains: [a]", "expected a column of texts, found ratio: number"),
        ("column: ratio, in: [a]", "expected numbers, found 'a', and ratio holds numbers"),
        ("column: ratio, in: [0.5, sNaN]", "expected numbers, found 'sNaN', and ratio holds numbers"),
        ("column: safe, in: [yes]", "expected true or false, found 'yes', and safe holds truth values"),
        ("column: safe, in: ['true', 1]", "expected true or false, found '1', and safe holds truth values"),
        ("column: boxes, known: true", "one of the run's columns clip_score.*found 'boxes'"),
        ("mix: {clip_score: 1, nothing: 2}, keep_top: 0.1", "one of the run's columns .*found 'nothing'"),
        ("any_of: [{column: nothing, known: true}]", "one of the run's columns .*found 'nothing'"),
    ],
)
def test_select__says_in_one_line_what_does_not_fit(world, step, said):
    with pytest.raises((RecipeError, RunError), match=said) as caught:
        kept_by(world[0], step)
    assert "\n" not in str(caught.value)


def test_columns__lists_the_runs_own_first_and_then_the_pools(world):
    columns = ScoreTable.open(world[0]).columns
    assert list(columns) == [
        *("clip_score", "s_cliploss", "flat", "holes"),
        *("text", "language", "original_width", "original_height", "safe", "ratio"),
        *("topic", "price", "stars", "aspect_ratio"),
    ]
    assert {name: column.kind for name, column in columns.items() if column.kind != "number"} == {
        "text": "text",
        "language": "text",
        "safe": "flag",
        "topic": "text",
    }
    assert "topic" in ScoreTable.open(world[0]).metadata.category_columns()


def test_columns__of_the_demo_lie_within_their_bounds():
    table = ScoreTable.open(Run.open(DEMO))
    bounded = {name: column for name, column in table.columns.items() if column.least is not None}
    assert {"clip_score", "normalizer_se", "normsim_inf_task", "normsim_2_task", "original_width"} <= set(bounded)
    for name, column in bounded.items():
        values = table.column(name)
        rounding = 1e-6 * np.abs(values).max()
        assert column.least - rounding <= np.nanmin(values), name
        assert np.nanmax(values) <= (np.inf if column.most is None else column.most + rounding), name
    assert "Values: -1 to 1." in bounded["clip_score"].help
    assert "Values: 0 or more." in bounded["normsim_2_task"].help


def test_select__without_the_pool_its_columns_are_not_there(world, tmp_path):
    _, frame = world
    shard = (uids.from_hex(frame.uid.tolist()), {"clip_score": frame.clip_score})
    alone = hand_run(tmp_path / "run", [shard], pool="../gone")
    with pytest.raises(RecipeError, match="one of the run's columns clip_score, found 'language'"):
        select(alone, parse_recipe("steps: [{column: language, in: [en]}]"))


def test_columns__of_a_pool_that_comes_back_are_there_again(world, tmp_path):
    run, frame = world
    ends = [0, 300, 301, ROWS]
    names = uids.from_hex(frame.uid.tolist())
    shards = [(names[start:stop], {"clip_score": frame.clip_score[start:stop]}) for start, stop in pairwise(ends)]
    table = ScoreTable.open(hand_run(tmp_path / "run", shards, pool="../pool"))
    assert list(table.columns) == ["clip_score"]
    (tmp_path / "pool").symlink_to(Path(run.pool_address))
    assert "language" in table.columns
    assert select(table.run, parse_recipe("steps: [{column: language, in: [en]}]"), table).pairs
