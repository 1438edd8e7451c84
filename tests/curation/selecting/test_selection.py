"""Selections against a naive implementation, against SQL, and against numbers worked out by hand."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import AtLeast, AtMost, Drop, Keep, KeepTop, Recipe, parse_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.errors import RecipeError
from clipsel_core.runs.store import Run
from tests.curation.conftest import hand_run, make_uids

NAN = float("nan")


def pick(run: Run, *steps, table: ScoreTable | None = None) -> list[int]:
    """The low halves of the picked uids."""
    return select(run, Recipe(steps=steps), table).uids()["f1"].tolist()


def one_shard(root: Path, numbers: list[int], **columns: list[float]) -> Run:
    return hand_run(root / "run", [(make_uids(*numbers), columns)])


# --- the rule, by hand


def test_select__counts_with_the_decimal_as_written(tmp_path):
    run = one_shard(tmp_path, list(range(100)), clip_score=[i / 100 for i in range(100)])
    table = ScoreTable.open(run)
    assert 0.29 * 100 < 29
    assert len(pick(run, KeepTop(column="clip_score", keep_top=0.29))) == 29
    for percent in range(101):
        recipe = parse_recipe(f"steps: [{{metric: clip_score, keep_top: {percent / 100:.2f}}}]")
        assert len(select(run, recipe, table)) == percent


def test_select__nothing_at_0_everything_scored_at_1(tmp_path):
    run = one_shard(tmp_path, [1, 2, 3, 4], clip_score=[0.1, 0.2, NAN, 0.2])
    assert pick(run, KeepTop(column="clip_score", keep_top=0)) == []
    assert pick(run, KeepTop(column="clip_score", keep_top=1)) == [1, 2, 4]
    assert pick(run, KeepTop(column="clip_score", keep_top=1.0, of="survivors")) == [1, 2, 4]


def test_select__gives_ties_to_the_smaller_uid(tmp_path):
    run = one_shard(tmp_path, [9, 4, 7, 2, 8], clip_score=[0.5, 0.5, 0.9, 0.5, 0.5])
    assert pick(run, KeepTop(column="clip_score", keep_top=0.4)) == [2, 7]
    assert pick(run, KeepTop(column="clip_score", keep_top=0.6)) == [2, 4, 7]


def test_select__compares_both_halves_of_a_uid_at_a_tie(tmp_path):
    names = uids.from_halves(np.array([2, 1, 1, 0], np.uint64), np.array([0, 2**63, 5, 2**64 - 1], np.uint64))
    run = hand_run(tmp_path / "run", [(names, {"clip_score": [0.5] * 4})])
    picked = select(run, Recipe(steps=(KeepTop(column="clip_score", keep_top=0.5),))).uids()
    assert picked.tolist() == [(0, 2**64 - 1), (1, 5)]


def test_select__takes_a_fraction_of_the_pool_or_of_the_survivors(tmp_path):
    run = one_shard(
        tmp_path, list(range(10)), clip_score=[0.1 * i for i in range(10)], s_cliploss=list(range(10, 0, -1))
    )
    top = KeepTop(column="clip_score", keep_top=0.5)
    assert pick(run, top, KeepTop(column="s_cliploss", keep_top=0.2)) == [5, 6]
    assert pick(run, top, KeepTop(column="s_cliploss", keep_top=0.2, of="survivors")) == [5]
    assert pick(run, top, KeepTop(column="s_cliploss", keep_top=0.9)) == [5, 6, 7, 8, 9]


def test_select__counts_pairs_set_aside_as_part_of_the_pool(tmp_path):
    run = one_shard(tmp_path, list(range(10)), clip_score=[NAN] * 5 + [0.1, 0.2, 0.3, 0.4, 0.5])
    assert pick(run, KeepTop(column="clip_score", keep_top=0.3)) == [7, 8, 9]
    chosen = select(run, Recipe(steps=(KeepTop(column="clip_score", keep_top=0.3),)))
    assert (chosen.total, chosen.set_aside, chosen.report[0].kept_before, len(chosen)) == (10, 5, 5, 3)


def test_select__treats_the_two_zeros_as_equal(tmp_path):
    run = one_shard(tmp_path, [3, 2, 1], clip_score=[0.0, -0.0, -1.0])
    assert pick(run, KeepTop(column="clip_score", keep_top=0.34)) == [2]


def test_select__compares_thresholds_as_numbers(tmp_path):
    near = np.float32(0.21)
    below, above = np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(1))
    run = one_shard(tmp_path, [1, 2, 3], clip_score=[below, near, above])
    assert float(near) < 0.21 or float(near) > 0.21
    at_least = [i for i, v in zip([1, 2, 3], [below, near, above], strict=True) if Fraction(float(v)) >= Fraction(0.21)]
    at_most = [i for i, v in zip([1, 2, 3], [below, near, above], strict=True) if Fraction(float(v)) <= Fraction(0.21)]
    assert pick(run, AtLeast(column="clip_score", at_least=0.21)) == at_least
    assert pick(run, AtMost(column="clip_score", at_most=0.21)) == at_most
    assert sorted(at_least + at_most) == [1, 2, 3]
    assert pick(run, AtLeast(column="clip_score", at_least=float(near))) == [2, 3]
    assert pick(run, AtMost(column="clip_score", at_most=float(near))) == [1, 2]


def test_select__takes_thresholds_beyond_float32(tmp_path):
    run = one_shard(tmp_path, [1, 2], clip_score=[0.1, -0.1])
    assert pick(run, AtLeast(column="clip_score", at_least=1e300)) == []
    assert pick(run, AtMost(column="clip_score", at_most=1e300)) == [1, 2]
    assert pick(run, AtLeast(column="clip_score", at_least=-1e300)) == [1, 2]


def test_select__drops_pairs_without_the_metric(tmp_path):
    run = one_shard(tmp_path, [1, 2, 3], clip_score=[0.1, 0.2, 0.3], s_cliploss=[NAN, 0.5, 0.1])
    for step in (KeepTop(column="s_cliploss", keep_top=1), AtLeast(column="s_cliploss", at_least=-9)):
        assert pick(run, step) == [2, 3]
    assert pick(run, AtMost(column="s_cliploss", at_most=9)) == [2, 3]


def test_select__leaves_disabled_steps_out(tmp_path):
    run = one_shard(tmp_path, [1, 2, 3], clip_score=[0.1, 0.2, 0.3])
    off = KeepTop(column="clip_score", keep_top=0, enabled=False)
    assert pick(run, off) == [1, 2, 3]
    assert len(select(run, Recipe(steps=(off,))).report) == 0


# --- by hand and by list


def test_select__keeps_and_drops_by_hand(tmp_path):
    run = one_shard(tmp_path, [1, 2, 3, 4], clip_score=[0.1, 0.2, 0.3, NAN])
    top = KeepTop(column="clip_score", keep_top=0.25)
    assert pick(run, top, Keep(keep=("1", "0003"))) == [1, 3]
    assert pick(run, top, Drop(drop=("3",))) == []
    assert pick(run, top, Keep(keep=("4",))) == [3], "a pair that was set aside stays out"


@pytest.mark.parametrize("ending", ["npy", "txt", "csv", "parquet"])
def test_select__uses_lists_of_any_format(tmp_path, ending):
    run = one_shard(tmp_path, [1, 2, 3, 4], clip_score=[0.1, 0.2, 0.3, NAN])
    hexes = uids.to_hex(make_uids(2, 3, 4)).to_pylist()
    path = tmp_path / f"list.{ending}"
    {
        "npy": lambda: uids.write_subset(path, make_uids(2, 3, 4)),
        "txt": lambda: path.write_text("\n".join(hexes) + "\n"),
        "csv": lambda: pd.DataFrame({"score": 1, "uid": hexes}).to_csv(path, index=False),
        "parquet": lambda: pd.DataFrame({"score": 1, "uid": hexes}).to_parquet(path),
    }[ending]()

    def run_steps(*steps: str) -> list[int]:
        recipe = parse_recipe("steps:\n" + "".join(f"- {step}\n" for step in steps), folder=tmp_path)
        return select(run, recipe).uids()["f1"].tolist()

    assert run_steps(f"{{intersect: list.{ending}}}") == [2, 3]
    assert run_steps(f"{{subtract: list.{ending}}}") == [1]
    assert run_steps("{metric: clip_score, at_most: 0.15}", f"{{union: list.{ending}}}") == [1, 2, 3]


def test_select__counts_listed_uids_the_run_lacks(tmp_path):
    run = one_shard(tmp_path, [1, 2, 3], clip_score=[0.1, 0.2, 0.3])
    uids.write_subset(tmp_path / "list.npy", make_uids(2, 77, 78))
    for kind, left in (("intersect", [2]), ("subtract", [1, 3])):
        chosen = select(run, parse_recipe(f"steps: [{{{kind}: list.npy}}]", folder=tmp_path))
        assert chosen.uids()["f1"].tolist() == left
        assert (chosen.report[0].listed, chosen.report[0].unknown) == (3, 2)
        assert len(chosen.report[0].sha256) == 64


@pytest.mark.parametrize("step", ["keep: ['4d']", "drop: ['1', '4d']", "union: list.npy"])
def test_select__refuses_to_add_uids_the_run_lacks(tmp_path, step):
    run = one_shard(tmp_path, [1, 2, 3], clip_score=[0.1, 0.2, 0.3])
    uids.write_subset(tmp_path / "list.npy", make_uids(2, 0x4D))
    recipe = parse_recipe(f"steps:\n- {{metric: clip_score, keep_top: 1}}\n- {{{step}}}", "my.yaml", folder=tmp_path)
    with pytest.raises(RecipeError, match=r"^my.yaml:3: .* 1 that it lacks, such as 0{30}4d"):
        select(run, recipe)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("gone.npy", None, "no such file"),
        ("bad.txt", b"12\nxyz\n", "row 1"),
        ("bad.csv", b"id\n12\n", "uid"),
        ("bad.parquet", b"PAR1", "parquet"),
        ("bad.npy", b"\x93NUMPY", "npy"),
    ],
)
def test_select__names_line_and_list_when_a_list_is_bad(tmp_path, name, content, found):
    run = one_shard(tmp_path, [1], clip_score=[0.1])
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=rf"^r.yaml:1: .*{name}.*{found}"):
        select(run, parse_recipe(f"steps: [{{intersect: {name}}}]", "r.yaml", folder=tmp_path))


def test_select__refuses_an_unknown_metric_with_its_line(tmp_path):
    run = one_shard(tmp_path, [1], clip_score=[0.1])
    with pytest.raises(RecipeError, match=r"^r.yaml:2: expected one of the run's columns clip_score, found 'hype'"):
        select(run, parse_recipe("steps:\n- {metric: hype, keep_top: 0.5}", "r.yaml"))


# --- the report


def test_select__reports_what_each_step_did(tmp_path):
    run = one_shard(
        tmp_path, [1, 2, 3, 4, 5], clip_score=[0.5, 0.4, 0.3, 0.2, NAN], s_cliploss=[0.1, 0.9, 0.8, 0.7, NAN]
    )
    steps = (KeepTop(column="clip_score", keep_top=0.4), AtLeast(column="s_cliploss", at_least=0.75), Keep(keep=("4",)))
    top, least, keep = select(run, Recipe(steps=steps)).report
    assert (top.kept_before, top.kept_after, top.dropped, top.alone_drops) == (4, 2, 2, 2)
    assert top.threshold == float(np.float32(0.4))
    assert (least.kept_before, least.kept_after, least.dropped, least.alone_drops) == (2, 1, 1, 2)
    assert (keep.kept_before, keep.kept_after, keep.dropped, keep.added, keep.alone_drops) == (1, 2, 0, 1, 0)
    assert top.text == "top 40 % of the pool by clip_score"


@pytest.mark.parametrize(("share", "of"), [(0.4, "pool"), (0.4, "survivors"), (0.8, "pool"), (1, "survivors")])
def test_select__says_what_a_later_step_would_drop_alone(tmp_path, share, of):
    """As selecting with that step alone says it; more is asked for than has a score, too."""
    scores = {"clip_score": [0.5, 0.4, 0.3, 0.2, NAN, 0.1], "hype": [0.1, NAN, 0.8, NAN, 0.9, 0.3]}
    run = one_shard(tmp_path, [1, 2, 3, 4, 5, 6], **scores)
    later = KeepTop(column="hype", keep_top=share, of=of)
    first = KeepTop(column="clip_score", keep_top=0.3)
    assert select(run, Recipe(steps=(first, later))).report[1].alone_drops == 5 - len(pick(run, later))


def test_select__has_no_threshold_where_nothing_is_kept(tmp_path):
    run = one_shard(tmp_path, [1, 2], clip_score=[0.5, 0.4])
    assert select(run, Recipe(steps=(KeepTop(column="clip_score", keep_top=0.4),))).report[0].threshold is None


def test_select__splits_into_shards_without_effect(tmp_path):
    rng = np.random.default_rng(5)
    names, values = rng.permutation(90), rng.integers(0, 6, 90) / 8
    parts = np.split(np.arange(90), [13, 14, 60])
    whole = hand_run(tmp_path / "a", [(make_uids(*names), {"clip_score": values})])
    split = hand_run(tmp_path / "b", [(make_uids(*names[p]), {"clip_score": values[p]}) for p in parts])
    for fraction in ("0.1", "0.37", "0.5", "0.99"):
        recipe = parse_recipe(f"steps: [{{metric: clip_score, keep_top: {fraction}}}]")
        np.testing.assert_array_equal(select(whole, recipe).uids(), select(split, recipe).uids())


# --- against a naive implementation

VALUES = st.sampled_from([NAN, -1.5, -0.25, -0.0, 0.0, 0.125, 0.2, 0.21, 0.3, 1.0, 7.5])
FRACTIONS = st.decimals(0, 1, places=2, allow_nan=False)
METRICS = st.sampled_from(["clip_score", "s_cliploss"])
STEPS = st.one_of(
    st.builds(KeepTop, metric=METRICS, keep_top=FRACTIONS, of=st.sampled_from(["pool", "survivors"])),
    st.builds(AtLeast, metric=METRICS, at_least=st.sampled_from([-2.0, 0.0, 0.2, 0.21, 1.0])),
    st.builds(AtMost, metric=METRICS, at_most=st.sampled_from([-2.0, 0.0, 0.2, 0.21, 1.0])),
    st.builds(Keep, keep=st.lists(st.sampled_from("0123"), min_size=1, max_size=3)),
    st.builds(Drop, drop=st.lists(st.sampled_from("0123"), min_size=1, max_size=3)),
)


def naive(pairs: dict[int, dict[str, float]], steps: list) -> list[int]:
    """The rule in the plainest Python there is: pairs by uid, each a dict of its float32 scores."""
    pairs_in_pool = len(pairs)
    selectable = {u for u, scores in pairs.items() if scores["clip_score"] == scores["clip_score"]}
    left = set(selectable)
    for step in steps:
        if step.kind == "keep":
            left |= {int(u, 16) for u in step.keep} & selectable
        elif step.kind == "drop":
            left -= {int(u, 16) for u in step.drop}
        else:
            score = {u: pairs[u][step.metric] for u in left if pairs[u][step.metric] == pairs[u][step.metric]}
            if step.kind == "keep_top":
                k = int(Fraction(step.keep_top) * (pairs_in_pool if step.of == "pool" else len(left)))
                left = set(sorted(score, key=lambda u: (-score[u], u))[:k])
            elif step.kind == "at_least":
                left = {u for u, value in score.items() if Fraction(value) >= Fraction(step.at_least)}
            else:
                left = {u for u, value in score.items() if Fraction(value) <= Fraction(step.at_most)}
    return sorted(left)


@settings(max_examples=80)
@given(
    scores=st.lists(st.tuples(VALUES, VALUES), min_size=4, max_size=24),
    order=st.randoms(use_true_random=False),
    steps=st.lists(STEPS, min_size=1, max_size=4),
    cut=st.integers(0, 24),
)
def test_select__agrees_with_the_plainest_python(scores, order, steps, cut):
    numbers = list(range(len(scores)))
    order.shuffle(numbers)
    table = np.array(scores, np.float32)
    columns = {"clip_score": table[:, 0], "s_cliploss": table[:, 1]}
    parts = [part for part in np.split(np.arange(len(scores)), [cut]) if len(part)]
    shards = [
        (make_uids(*[numbers[i] for i in p]), {name: values[p] for name, values in columns.items()}) for p in parts
    ]
    pairs = {u: {name: float(values[i]) for name, values in columns.items()} for i, u in enumerate(numbers)}
    with tempfile.TemporaryDirectory() as folder:
        run = hand_run(Path(folder) / "run", shards)
        assert pick(run, *steps) == naive(pairs, steps)


# --- against SQL

SQL = """
    WITH pool AS (SELECT *, NOT isnan(clip_score) AS ok FROM read_parquet($files)),
    first AS (SELECT * FROM pool WHERE ok AND NOT isnan(s_cliploss)
              ORDER BY s_cliploss DESC, uid_hi, uid_lo LIMIT $k1),
    second AS (SELECT * FROM first WHERE clip_score >= $least AND NOT isnan(normsim_inf_task)
               ORDER BY normsim_inf_task DESC, uid_hi, uid_lo LIMIT $k2)
    SELECT uid_hi, uid_lo FROM second ORDER BY uid_hi, uid_lo
"""


def test_select__agrees_with_sql_at_many_settings(big_run):
    rng = np.random.default_rng(11)
    table, database = ScoreTable.open(big_run), duckdb.connect()
    files = [str(file) for file in map(Path, big_run.score_files)]
    for _ in range(50):
        first, second = (f"{rng.integers(0, 1001) / 1000:.3f}" for _ in range(2))
        least = float(rng.choice([0.1, 0.2, 0.205, 0.25]))
        text = f"""steps:
        - {{metric: s_cliploss, keep_top: {first}}}
        - {{metric: clip_score, at_least: {least}}}
        - {{metric: normsim_inf_task, keep_top: {second}}}"""
        k1, k2 = (int(Fraction(part) * len(table)) for part in (first, second))
        asked = {"files": files, "k1": k1, "k2": k2, "least": least}
        expected = database.execute(SQL.replace(">= $least", ">= $least::DOUBLE"), asked).fetchnumpy()
        picked = select(big_run, parse_recipe(text), table).uids()
        np.testing.assert_array_equal(picked["f0"], expected["uid_hi"])
        np.testing.assert_array_equal(picked["f1"], expected["uid_lo"])
