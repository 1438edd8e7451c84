"""Values by uid put into a run's rows, held against pandas' merge."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsel_core import uids
from clipsel_core.columns import join as join_module
from clipsel_core.columns.join import Joined, ShardUids, UidTable, join_group
from clipsel_core.columns.keyed_values import Batch, KeyedGroup, KeyedValues, open_keyed
from clipsel_core.curation.index import bitmaps
from clipsel_core.errors import ColumnError
from clipsel_core.tasks import Report, Stopped, silent, stoppable
from tests.curation.conftest import hand_run, make_uids


def shards_of(names: np.ndarray, *sizes: int) -> ShardUids:
    """A run of these uids, in shards of these sizes, in one where none are given."""
    ends = np.cumsum(sizes or [len(names)])
    return ShardUids(sizes or [len(names)], lambda shard: np.split(names, ends)[shard].copy())


def keyed(names: np.ndarray, values: Sequence[float | str | None] | np.ndarray, size: int = 7) -> KeyedValues:
    """Values by uid in batches of a size."""
    are_texts = any(isinstance(value, str) for value in values)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(names), size):
            some = values[start : start + size]
            found = pa.array(some).dictionary_encode() if are_texts else np.array(some, np.float32)
            yield Batch(names[start : start + size].copy(), found, 0)

    return KeyedValues("a.csv#x", "x", "category" if are_texts else "number", "double", len(names), batches)


def join(run: ShardUids, column: KeyedValues, report: Report = silent) -> Joined:
    """One column alone, put into the rows of a run."""
    return join_group(run, KeyedGroup.of(column), report=report)[0]


def random_uids(draw: np.random.Generator, count: int) -> np.ndarray:
    return uids.from_halves(*draw.integers(0, 2**64, (2, count), dtype=np.uint64))


def merged(run: np.ndarray, names: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What pandas says that each row has."""
    table = pd.DataFrame({"uid": uids.to_hex(names).to_pylist(), "value": values}).dropna().drop_duplicates("uid")
    rows = pd.DataFrame({"uid": uids.to_hex(run).to_pylist()})
    return rows.merge(table, on="uid", how="left")["value"].to_numpy(np.float32)


@pytest.mark.parametrize("pairs", [1, 3, 1000, 200_003])
def test_join__as_pandas_merges(pairs):
    draw = np.random.default_rng(pairs)
    run, strangers = random_uids(draw, pairs), random_uids(draw, pairs // 3)
    known = draw.permutation(run)[: max(1, 2 * pairs // 3)]
    names = np.concatenate([known, strangers, known[: pairs // 9]])
    values = draw.standard_normal(len(names)).astype(np.float32)
    values[draw.random(len(names)) < 0.1] = np.nan
    values[len(known) + len(strangers) :] = values[: pairs // 9]
    order = draw.permutation(len(names))
    found = join(shards_of(run, pairs // 2, 0, pairs - pairs // 2), keyed(names[order], values[order], 50_000))
    np.testing.assert_array_equal(found.values, merged(run, names, values))
    assert found.values.dtype == np.float32
    assert (found.matched, found.unknown, found.repeated) == (len(known), len(strangers), pairs // 9)
    assert found.missing == np.isnan(found.values).sum()
    assert (found.kind, found.categories) == ("number", ())


@given(st.lists(st.integers(0, 30), min_size=1, unique=True), st.data())
def test_join__small_uids_in_any_order(rows, data):
    """Uids that differ in their last bits alone, which all would go to one place if bits were not mixed."""
    keys = data.draw(st.lists(st.integers(0, 40), max_size=60))
    given_to = {key: data.draw(st.sampled_from([0.5, -0.0, np.nan, np.inf])) for key in set(keys)}
    run, file = make_uids(*rows), keyed(make_uids(*keys), [given_to[key] for key in keys])
    cut = data.draw(st.integers(0, len(rows)))
    if not set(keys) & set(rows):
        with pytest.raises(ColumnError, match="uids of the run"):
            join(shards_of(run, cut, len(rows) - cut), file)
        return
    found = join(shards_of(run, cut, len(rows) - cut), file)
    np.testing.assert_array_equal(found.values, np.array([given_to.get(row, np.nan) for row in rows], np.float32))
    assert found.matched == len(set(keys) & set(rows))
    assert found.unknown == sum(key not in rows for key in keys)
    known = [key for key in keys if key in rows]
    assert found.repeated == len(known) - len(set(known))


@pytest.mark.parametrize("size", [7, 1009, 50_000])
def test_join_group__several_columns_as_each_alone(size):
    draw = np.random.default_rng(size)
    run = random_uids(draw, 3000)
    names = np.concatenate([run[draw.permutation(3000)[:2000]], random_uids(draw, 500)])
    numbers = draw.standard_normal((2, 2500)).astype(np.float32)
    numbers[:, draw.random(2500) < 0.3] = np.nan
    columns = (numbers[0], draw.choice(["a", "b", "c"], 2500).tolist(), numbers[1])
    alone = [keyed(names, values, size) for values in columns]
    group = KeyedGroup(tuple(alone), lambda: zip(*(column.batches() for column in alone), strict=True))
    for found, column, values in zip(join_group(shards_of(run), group), alone, columns, strict=True):
        expected = join(shards_of(run), column)
        np.testing.assert_array_equal(found.values, expected.values)
        assert dataclasses.replace(found, values=0) == dataclasses.replace(expected, values=0)
        if found.kind == "number":
            np.testing.assert_array_equal(found.values, merged(run, names, values))


def test_join_group__says_which_column_has_two_values():
    names = make_uids(1, 2, 1)
    alone = [KeyedValues(f"a.csv#{name}", name, "number", "double", 3, lambda: iter(())) for name in "xy"]
    batches = [(Batch(names, np.array([1, 2, 1], np.float32), 0), Batch(names, np.array([1, 2, 3], np.float32), 0))]
    with pytest.raises(ColumnError, match=r"a\.csv#y: expected one value a uid, found 1 and 3 in y for 0{31}1"):
        join_group(shards_of(make_uids(3, 1, 2)), KeyedGroup(tuple(alone), lambda: iter(batches)))


def test_join__does_not_depend_on_batches_threads_or_order(monkeypatch):
    draw = np.random.default_rng(5)
    run = random_uids(draw, 30_000)
    names, values = np.repeat(run[5000:], 2), np.repeat(draw.standard_normal(25_000), 2).astype(np.float32)
    monkeypatch.setattr(join_module, "_PAIRS_A_PART", 1 << 9)

    def found(order, size: int, threads: int) -> Joined:
        with ThreadPoolExecutor(threads) as own:
            monkeypatch.setattr(bitmaps, "_threads", own)
            monkeypatch.setattr(join_module, "allowed_cores", lambda: threads)
            return join(shards_of(run, *[3000] * 10), keyed(names[order], values[order], size))

    first, *others = (
        found(order, size, threads)
        for order, size, threads in (
            (np.arange(50_000), 50_000, 1),
            (draw.permutation(50_000), 1009, 8),
            (np.arange(50_000)[::-1], 20_000, 3),
        )
    )
    for other in others:
        assert other.values.tobytes() == first.values.tobytes()
        assert (other.matched, other.repeated, other.unknown) == (25_000, 25_000, 0)


@pytest.mark.parametrize("followed", [0, 1, 59, 60, 100])
def test_join__goes_on_where_the_file_leaves_the_order(followed, monkeypatch):
    """However many come in the run's own order at first, and where those are repeated later."""
    draw = np.random.default_rng(followed)
    run, values = random_uids(draw, 100), draw.standard_normal(100).astype(np.float32)
    places = np.concatenate([np.arange(followed), draw.permutation(100)])
    tables = []
    monkeypatch.setattr(join_module, "UidTable", lambda run: tables.append(UidTable(run)) or tables[0])
    found = join(shards_of(run, 33, 0, 40, 27), keyed(run[places], values[places], 20))
    np.testing.assert_array_equal(found.values, values)
    assert (found.matched, found.repeated, found.unknown) == (100, followed, 0)
    assert len(tables) == 1


def test_join__copies_what_comes_in_the_runs_order(monkeypatch):
    run = random_uids(np.random.default_rng(0), 100)
    monkeypatch.setattr(join_module, "UidTable", None)
    found = join(shards_of(run, 41, 59), keyed(run[:90], np.arange(90.0), 17))
    np.testing.assert_array_equal(found.values, [*range(90), *[np.nan] * 10])
    assert (found.matched, found.missing, found.unknown, found.repeated) == (90, 10, 0, 0)


def test_join__each_row_of_a_repeated_uid_gets_its_value():
    found = join(shards_of(make_uids(4, 7, 4, 4)), keyed(make_uids(7, 4, 9), [1.0, 2.0, 3.0]))
    assert found.values.tolist() == [2, 1, 2, 2]
    assert (found.matched, found.repeated, found.unknown) == (4, 0, 1)


def test_join__a_value_fills_a_repeated_uid_without_one():
    nan = np.nan
    found = join(shards_of(make_uids(1, 2, 3)), keyed(make_uids(3, 2, 1, 2, 1), [nan, nan, 5, 6, nan]))
    np.testing.assert_array_equal(found.values, [5, 6, nan])
    assert (found.matched, found.missing, found.repeated) == (3, 1, 2)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_join__refuses_two_values_for_a_uid(size):
    """The first in the order of the file, whatever the batches."""
    names = make_uids(9, 2, 1, 3, 1, 2)
    with pytest.raises(ColumnError, match=r"a\.csv#x: .*0\.5 and 0\.25 in x for 0{31}1") as caught:
        join(shards_of(make_uids(1, 2, 3)), keyed(names, [0, 1, 0.5, 0, 0.25, 2], size))
    assert caught.value.expected == "one value a uid"


def test_join__names_the_first_of_many_with_two_values(monkeypatch):
    """However the rows are dealt out to threads, and whichever of them comes first."""
    monkeypatch.setattr(join_module, "_PAIRS_A_PART", 1 << 5)
    monkeypatch.setattr(
        join_module, "on_all_cores", lambda work, *items: list(map(work, *map(reversed_list, items)))[::-1]
    )
    monkeypatch.setattr(join_module, "allowed_cores", lambda: 5)
    for seed in range(10):
        draw = np.random.default_rng(seed)
        run, places = random_uids(draw, 300), draw.integers(0, 300, 900)
        values = draw.permutation(900).astype(np.float32)
        before: dict[int, float] = {}
        row = next(
            row for row, place in enumerate(places.tolist()) if before.setdefault(place, values[row]) != values[row]
        )
        both = rf"{before[places[row]]:g} and {values[row]:g} in x for {uids.to_hex(run[places[[row]]])[0]}"
        with pytest.raises(ColumnError, match=both):
            join(shards_of(run), keyed(run[places], values, 900))
        shared = rf"5 and 6 in x for {uids.to_hex(run[:1])[0]}"
        with pytest.raises(ColumnError, match=shared):
            join(shards_of(run), keyed(run[np.r_[1:100, [0] * 100]], np.r_[np.zeros(99), [5] * 50, [6] * 50], 900))


def reversed_list(items) -> list:
    return list(items)[::-1]


def test_join__zero_is_one_value_whatever_its_sign():
    found = join(shards_of(make_uids(1, 2)), keyed(make_uids(2, 1, 2), [0.0, -0.0, -0.0]))
    assert found.values.tobytes() == np.zeros(2, np.float32).tobytes()


def test_join__two_values_of_a_uid_that_the_run_lacks_are_counted():
    assert join(shards_of(make_uids(1)), keyed(make_uids(1, 2, 2), [1, 2, 3])).unknown == 2


def test_join__refuses_a_file_of_another_pool():
    with pytest.raises(ColumnError) as caught:
        join(shards_of(make_uids(0xA, 0xB), 0, 2), keyed(make_uids(0xC), [1]))
    assert "such as " + "0" * 31 + "a" in caught.value.expected
    assert "such as " + "0" * 31 + "c" in caught.value.found


def test_join__refuses_a_file_without_rows():
    with pytest.raises(ColumnError, match="no rows"):
        join(shards_of(make_uids(1)), keyed(make_uids(), []))


def test_join__numbers_categories_by_their_order():
    names, texts = make_uids(8, 5, 3, 9, 1), ["fr", "en", "Fr", "never", None]
    found = join(shards_of(make_uids(1, 3, 5, 8)), keyed(names, texts, 2))
    assert found.categories == ("Fr", "en", "fr")
    np.testing.assert_array_equal(found.values, [np.nan, 0, 1, 2])
    assert (found.kind, found.matched, found.missing) == ("category", 4, 1)


def test_join__two_categories_of_a_uid_are_named():
    with pytest.raises(ColumnError, match="'en' and 'fr' in x"):
        join(shards_of(make_uids(1, 2)), keyed(make_uids(2, 1, 1), ["de", "en", "fr"]))


def test_join__refuses_texts_that_hardly_repeat():
    names, texts = make_uids(*range(10_001)), [f"text {number}" for number in range(10_001)]
    assert len(join(shards_of(names[:-1]), keyed(names[:-1], texts[:-1])).categories) == 10_000
    with pytest.raises(ColumnError, match="10,000 different texts"):
        join(shards_of(names), keyed(names, texts))


def test_join__stops_when_it_is_asked_to():
    asked, names = threading.Event(), make_uids(*range(100))

    def report(done: int, total: int, unit: str = "", note: str = "") -> None:
        assert (done, total, unit) == (10, 100, "values")
        asked.set()

    with stoppable(asked.is_set), pytest.raises(Stopped):
        join(shards_of(names), keyed(names, [0.0] * 100, 10), report=report)


def test_shard_uids_of__a_runs_finished_shards(tmp_path):
    parts = [
        (make_uids(3, 1), {"clip_score": [1, 2]}),
        (make_uids(), {"clip_score": []}),
        (make_uids(2), {"clip_score": [3]}),
    ]
    found = ShardUids.of(hand_run(tmp_path, parts, planned=5))
    assert list(found.sizes) == [2, 0, 1]
    assert [found.read(shard).tolist() for shard in range(3)] == [pairs.tolist() for pairs, _ in parts]


@pytest.mark.parametrize("same_order", [True, False])
def test_join__another_run_of_the_pool(tmp_path, same_order):
    draw = np.random.default_rng(3)
    names, scores = random_uids(draw, 30), draw.standard_normal(30).astype(np.float32)
    order = np.arange(30) if same_order else draw.permutation(30)
    run = hand_run(
        tmp_path / "a", [(names[:10], {"clip_score": scores[:10]}), (names[10:], {"clip_score": scores[10:]})]
    )
    other = names[order], scores[order]
    hand_run(tmp_path / "b", [(other[0], {"clip_score": other[1] * 0, "s_cliploss": other[1]})])
    found = join(ShardUids.of(run), open_keyed(f"{tmp_path / 'b'}#s_cliploss"))
    np.testing.assert_array_equal(found.values, scores)
    assert (found.matched, found.missing, found.unknown) == (30, 0, 0)
