"""The score table against pandas and numpy: order, positions, masks, threads, and what is missing or damaged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsel_core import uids
from clipsel_core.curation.exploring.captions import CaptionScan
from clipsel_core.curation.index import bitmaps, counts
from clipsel_core.curation.index.metadata import TooManyValues
from clipsel_core.curation.index.ranking import extent
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import PoolFormatError, RunError
from clipsel_core.runs.store import Run
from tests.conftest import write_shard
from tests.curation.conftest import hand_run, make_uids

NAN = float("nan")


@pytest.fixture(scope="module")
def table(big_run):
    return ScoreTable.open(big_run)


@pytest.fixture(scope="module")
def scores(big_run):
    """The same scores, read one file after another with pandas."""
    return pd.concat([pd.read_parquet(file) for file in map(Path, big_run.score_files)], ignore_index=True)


# --- columns and uids


def test_column__is_in_shard_order(table, scores, big_run):
    assert len(table) == len(scores) == 20_003
    for metric in big_run.metrics:
        np.testing.assert_array_equal(table.column(metric), scores[metric].to_numpy())
        assert table.column(metric).dtype == np.float32


def test_column__follows_the_run_not_the_names(tmp_path):
    shards = [(make_uids(i), {"clip_score": [i / 10]}) for i in range(4)]
    run = hand_run(tmp_path / "a run [1] *?", shards, names=["9", "10", "b", "a"])
    table = ScoreTable.open(run)
    assert table.shard_names == ("9", "10", "b", "a")
    assert table.uids()["f1"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(table.column("clip_score"), np.float32([0, 0.1, 0.2, 0.3]))


def test_column__cannot_be_written_to(table):
    with pytest.raises(ValueError, match="read-only"):
        table.column("clip_score")[0] = 1


@pytest.mark.parametrize("metric", ["hype", "uid_hi", "", '"; DROP TABLE x; --', "clip_score' OR 1=1"])
def test_column__refuses_what_is_no_metric(table, metric):
    with pytest.raises(RunError, match="one of the columns clip_score"):
        table.column(metric)
    with pytest.raises(RunError, match="one of the columns clip_score"):
        table.take(metric, np.array([0]))


def test_column__takes_any_name_that_a_metric_may_have(tmp_path):
    odd = "normsim_2_x--y.z"
    run = hand_run(tmp_path / "run", [(make_uids(1, 2), {"clip_score": [0, 1], odd: [3, 4]})])
    assert ScoreTable.open(run).column(odd).tolist() == [3, 4]


def test_take__reads_only_what_is_asked(big_run, scores):
    fresh, rows = ScoreTable.open(big_run), np.array([20_002, 5, 5, 0, 9000])
    np.testing.assert_array_equal(fresh.take("r_text", rows), scores["r_text"].to_numpy()[rows])
    assert fresh._columns == {}
    fresh.column("r_text")
    np.testing.assert_array_equal(fresh.take("r_text", rows), scores["r_text"].to_numpy()[rows])
    assert fresh.take("clip_score", np.array([], int)).shape == (0,)


def test_uids_at__keeps_the_order_asked_for(table, scores):
    rows = np.random.default_rng(0).integers(0, len(table), 500)
    np.testing.assert_array_equal(table.uids_at(rows)["f0"], scores["uid_hi"].to_numpy()[rows])
    np.testing.assert_array_equal(table.uids_at(rows)["f1"], scores["uid_lo"].to_numpy()[rows])
    assert len(table.uids_at(np.array([], int))) == 0


def test_rows_of__undoes_uids_at(table):
    rows = np.random.default_rng(1).integers(0, len(table), 700)
    np.testing.assert_array_equal(table.rows_of(table.uids_at(rows)), rows)
    np.testing.assert_array_equal(table.rows_of(table.uids()), np.arange(len(table)))


def test_rows_of__marks_what_the_run_lacks(tmp_path):
    names = uids.from_halves(np.array([1, 1, 2**64 - 1], np.uint64), np.array([5, 6, 2**64 - 1], np.uint64))
    table = ScoreTable.open(hand_run(tmp_path / "run", [(names, {"clip_score": [1, 2, 3]})]))
    asked = uids.from_hex(["f" * 32, "7", "1" + "0" * 15 + "6", "1" + "0" * 15 + "7", "f" * 32])
    assert table.rows_of(asked).tolist() == [2, -1, 1, -1, 2]
    assert table.rows_of(asked[:0]).tolist() == []


def test_shard_of__finds_first_and_last_row(table):
    sizes = [2858, 2858, 2858, 2858, 2857, 2857, 2857]
    last = np.cumsum(sizes) - 1
    assert table.files.shard_of(last).tolist() == list(range(7))
    assert table.files.shard_of(last - np.array(sizes) + 1).tolist() == list(range(7))
    assert table.files.place_in_shard(last).tolist() == [size - 1 for size in sizes]


def test_selectable__leaves_out_what_was_set_aside(table, scores):
    np.testing.assert_array_equal(table.selectable(), scores["clip_score"].notna().to_numpy())
    assert 100 < (~table.selectable()).sum() < 400


# --- counts


@pytest.mark.parametrize("bins", [1, 7, 100, 1000])
def test_histogram__agrees_with_numpy(table, scores, bins):
    values = scores["s_cliploss"].to_numpy()
    span = float(np.nanmin(values)), float(np.nanmax(values))
    for chosen in (values, values[scores["clip_score"].to_numpy() > 0.22]):
        found = counts.histogram(chosen, bins, table.extent("s_cliploss"))
        expected, edges = np.histogram(chosen[~np.isnan(chosen)].astype(np.float64), bins, span)
        np.testing.assert_array_equal(found.edges, edges)
        np.testing.assert_array_equal(found.counts, expected)


def test_density__agrees_with_numpy(table, scores):
    x, y = (scores[name].dropna().to_numpy(np.float64) for name in ("clip_score", "normsim_inf_task"))
    names = ("clip_score", "normsim_inf_task")
    spans = [table.extent(name) for name in names]
    found = counts.density(*map(table.column, names), 30, *spans)
    expected, x_edges, y_edges = np.histogram2d(x, y, 30, spans)
    np.testing.assert_array_equal(found.counts, expected)
    np.testing.assert_array_equal(found.x_edges, x_edges)
    np.testing.assert_array_equal(found.y_edges, y_edges)


def test_histogram__counts_equal_scores_and_none(tmp_path):
    shard = (make_uids(1, 2, 3), {"clip_score": [0.5, 0.5, 0.5], "s_cliploss": [NAN] * 3})
    table = ScoreTable.open(hand_run(tmp_path / "run", [shard]))
    same, none = (counts.histogram(table.column(name), 4, table.extent(name)) for name in ("clip_score", "s_cliploss"))
    assert (same.counts.sum(), same.edges.tolist()) == (3, [0, 0.25, 0.5, 0.75, 1])
    assert (none.counts.sum(), none.edges.tolist()) == (0, [0, 0.25, 0.5, 0.75, 1])


@given(
    values=st.lists(st.floats(-1, 1, width=32) | st.integers(-10, 10).map(lambda n: n / 10), min_size=1, max_size=60),
    bins=st.integers(1, 40),
)
def test_histogram__puts_values_at_an_edge_where_numpy_puts_them(values, bins):
    values = np.array(values, np.float32)
    span = extent(values)
    expected, _ = np.histogram(values.astype(np.float64), bins, span)
    np.testing.assert_array_equal(counts.histogram(values, bins, span).counts, expected)


def test_histogram__leaves_infinite_scores_out(tmp_path):
    shard = (make_uids(1, 2, 3, 4), {"clip_score": [0, 1, np.inf, -np.inf]})
    table = ScoreTable.open(hand_run(tmp_path / "run", [shard]))
    found = counts.histogram(table.column("clip_score"), 2, table.extent("clip_score"))
    assert (found.counts.tolist(), found.edges.tolist()) == ([1, 1], [0, 0.5, 1])


# --- metadata


def test_metadata__is_read_by_position(table, scores):
    rows = np.random.default_rng(2).permutation(len(table))[:60]
    frame = table.metadata.of(rows, ("caption", "url", "uid", "text", "fault"))
    assert frame["uid"].tolist() == uids.to_hex(table.uids_at(rows)).to_pylist()
    assert frame["caption"].tolist() == frame["text"].tolist()
    assert [int(text.split()[-1]) for text in frame["caption"]] == table.files.place_in_shard(rows).tolist()
    assert frame["url"].tolist() == [f"https://images.example.org/{uid}.jpg" for uid in frame["uid"]]


def test_metadata__takes_repeated_rows_and_none(table):
    frame = table.metadata.of(np.array([7, 9000, 7]), ("uid",))
    assert frame["uid"].tolist() == uids.to_hex(table.uids_at(np.array([7, 9000, 7]))).to_pylist()
    assert {name: len(found) for name, found in table.metadata.of(np.array([], int)).items()} == {
        "caption": 0,
        "url": 0,
    }


def test_metadata__is_empty_text_without_the_pool(tmp_path):
    run = hand_run(tmp_path / "run", [(make_uids(1, 2), {"clip_score": [1, 2]})], pool="../gone")
    found = ScoreTable.open(run).metadata.of(np.array([1, 0]), ("caption", "url", "fault"))
    assert list(found) == ["caption", "url", "fault"]
    assert [texts.tolist() for texts in found.values()] == [["", ""]] * 3


def test_metadata__is_empty_text_where_a_value_a_column_or_a_file_is_missing(tmp_path):
    write_shard(tmp_path / "pool", "a", 2, columns={"text": ["one", None], "uid": ["01", "2"]})
    write_shard(tmp_path / "pool", "b", 2)
    (tmp_path / "pool" / "metadata" / "b.parquet").unlink()
    for name in ("a",):
        path = tmp_path / "pool" / "metadata" / f"{name}.parquet"
        pq.write_table(pq.read_table(path).drop_columns(["url"]), path)
    shards = [(make_uids(1, 2), {"clip_score": [1, 2]}), (make_uids(3, 4), {"clip_score": [1, 2]})]
    frame = ScoreTable.open(hand_run(tmp_path / "run", shards, names=["a", "b"])).metadata.of(np.array([2, 0, 1, 3]))
    assert frame["caption"].tolist() == ["", "one", "", ""]
    assert frame["url"].tolist() == ["", "", "", ""]


def bytes_as_text(*values: bytes) -> pa.Array:
    """Text as a writer leaves it that does not look whether it is UTF-8."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def mixed_table(tmp_path):
    """A table over shards whose captions are of every type, with what each pair's caption and url are."""
    written = {
        "a": {"text": pa.nulls(2)},
        "b": {"text": ["one", "two"]},
        "c": {"text": pa.array([["three", "other"], ["", "four"]])},
        "d": {"text": bytes_as_text(b"caf\xe9", b"six")},
        "e": {"text": pa.array(["seven", None], pa.large_string())},
        "f": {"TEXT": ["eight", "nine"], "url": None},
        "g": {"text": None, "url": None},
        "h": {"text": [{"en": "x"}] * 2},
    }
    shards = []
    for number, (name, columns) in enumerate(written.items()):
        parquet, _ = write_shard(tmp_path / "pool", name, 2, seed=number)
        table = pq.read_table(parquet).drop_columns(["text"])
        for column, values in columns.items():
            table = table.drop_columns([column]) if column in table.column_names else table
            table = table if values is None else table.append_column(column, pa.chunked_array([pa.array(values)]))
        pq.write_table(table, parquet)
        shards.append((uids.from_hex(table["uid"]), {"clip_score": [1, 2]}))
    captions = ["", "", "one", "two", "three", "four", "caf\ufffd", "six", "seven", "", "eight", "nine", *[""] * 4]
    return ScoreTable.open(hand_run(tmp_path / "run", shards, names=list(written))), captions


def test_metadata__of_shards_that_differ(tmp_path):
    table, captions = mixed_table(tmp_path)
    rows = np.random.default_rng(0).permutation(len(captions))
    frame = table.metadata.of(rows)
    assert frame["caption"].tolist() == [captions[row] for row in rows]
    assert [bool(url) for url in frame["url"]] == [not 10 <= row < 14 for row in rows]


def test_metadata__of_shards_one_by_one(tmp_path):
    table, captions = mixed_table(tmp_path)
    assert [table.metadata.of(np.array([row]))["caption"].tolist() for row in range(len(captions))] == [
        [c] for c in captions
    ]


def test_categories__of_shards_that_differ(tmp_path):
    table, captions = mixed_table(tmp_path)
    found = table.metadata.categories("text")
    in_text = [caption if not 10 <= row < 12 else "" for row, caption in enumerate(captions)]
    in_text[-2:] = [""] * 2  # an object is no text
    assert [found.labels[code] for code in found.codes] == in_text


def test_texts__that_are_not_utf_8_throughout(tmp_path):
    """DuckDB gives the batches before such a text, and none of its own."""
    texts = {"a": ["one", "two"], "b": bytes_as_text(b"caf\xe9", b"six"), "c": ["seven", "eight"]}
    for number, (name, column) in enumerate(texts.items()):
        columns = {"uid": [f"{number}1", f"{number}2"], "text": column}
        write_shard(tmp_path / "pool", name, 2, seed=number, columns=columns)
    scored = [(uids.from_hex([f"{number}1", f"{number}2"]), {"clip_score": [1, 2]}) for number in range(3)]
    metadata = ScoreTable.open(hand_run(tmp_path / "run", scored, names=list(texts))).metadata
    expected = ["one", "two", "caf\ufffd", "six", "seven", "eight"]
    assert [text for part in metadata.texts("caption") for text in part.to_pylist()] == expected
    found = metadata.categories("text")
    assert [found.labels[code] for code in found.codes] == expected


def test_metadata__columns_that_differ_by_case_alone(tmp_path):
    columns = {"TEXT": ["LOUD", "LOUDER"], "text": ["one", "two"], "Url": ["a", "b"], "url": ["c", "d"]}
    write_shard(tmp_path / "pool", "a", 2, columns={"uid": ["1", "2"], **columns})
    run = hand_run(tmp_path / "run", [(make_uids(1, 2), {"clip_score": [1, 2]})], names=["a"])
    metadata = ScoreTable.open(run).metadata
    found = metadata.of(np.array([0, 1]), tuple(columns))
    assert {name: found[name].tolist() for name in columns} == columns
    assert [text for part in metadata.texts("text") for text in part.to_pylist()] == ["one", "two"]
    assert metadata.categories("TEXT").labels == ("LOUD", "LOUDER")
    assert {"TEXT", "text", "Url", "url"} <= set(metadata.category_columns())


def test_captions__of_shards_that_differ_are_searched(tmp_path):
    table, captions = mixed_table(tmp_path)
    for word in ("TWO", "four", "caf", "six", "seven", "eight", "thre"):
        scan = CaptionScan.for_words(table, [word])
        while not scan.finished:
            scan.step()
        # What is no UTF-8 parts words.
        holding = [row for row, caption in enumerate(captions) if caption.rstrip("\ufffd") == word.lower()]
        assert bitmaps.rows(scan.bits).tolist() == holding, word


def test_metadata__refuses_a_pool_that_is_not_the_one_scored(tmp_path):
    write_shard(tmp_path / "pool", "a", 3)
    run = hand_run(tmp_path / "run", [(make_uids(1, 2), {"clip_score": [1, 2]})], names=["a"])
    table = ScoreTable.open(run)
    assert table.ranking("clip_score").order.tolist() == [0, 1], "scores alone are enough to pick by"
    with pytest.raises(PoolFormatError, match=r"a\.parquet: expected 2 rows, as were scored, found 3"):
        table.metadata.of(np.array([0]))


@pytest.mark.parametrize("now", [["3", "1", "2"], ["1", "2", "7"], ["1", "2", None]])
def test_metadata__refuses_a_shard_whose_rows_are_other_pairs_than_were_scored(tmp_path, now):
    write_shard(tmp_path / "pool", "a", 2, columns={"uid": ["8", "9"], "kind": ["x", "y"]})
    columns = {"uid": ["1", "2", "3"], "text": ["one", "two", "three"], "kind": ["x", "y", "y"]}
    parquet, _ = write_shard(tmp_path / "pool", "b", 3, columns=columns)
    scored = [(make_uids(8, 9), {"clip_score": [1, 2]}), (make_uids(1, 2, 3), {"clip_score": [1, 2, 3]})]
    table = ScoreTable.open(hand_run(tmp_path / "run", scored, names=["a", "b"]))
    assert table.metadata.of(np.array([4, 2]))["caption"].tolist() == ["three", "one"]
    assert table.metadata.categories("kind").codes.tolist() == [1, 0, 1, 0, 0]
    pq.write_table(pq.read_table(parquet).set_column(0, "uid", pa.array(now)), parquet)
    for read in (partial(table.metadata.of, np.array([0, 4])), partial(table.metadata.categories, "kind")):
        with pytest.raises(
            PoolFormatError, match=rf"{'b.parquet, row' if now[2] else 'metadata'}.*scored.*; bring back"
        ):
            read()
    assert len(table.metadata.of(np.array([0, 1]))["caption"]) == 2


def test_metadata__refuses_a_shard_that_lost_rows_since_the_pool_was_opened(tmp_path):
    parquet, _ = write_shard(tmp_path / "pool", "a", 2, columns={"uid": ["1", "2"], "kind": ["x", "y"]})
    table = ScoreTable.open(hand_run(tmp_path / "run", [(make_uids(1, 2), {"clip_score": [1, 2]})], names=["a"]))
    shard = table.metadata.pool.shards[0]
    pq.write_table(pq.read_table(parquet).slice(0, 1), parquet)
    for read in (partial(table.metadata.of, np.array([0, 1])), partial(table.metadata.check_shard, shard)):
        with pytest.raises(PoolFormatError, match=r"expected .*2 rows.*, found 1"):
            read()
    with pytest.raises(PoolFormatError, match="expected 2 rows, as were scored, found 1"):
        table.metadata.categories("kind")


def test_metadata__refuses_a_column_nobody_knows(table):
    with pytest.raises(PoolFormatError, match=r"one of the columns uid, url, .* found 'falt'"):
        table.metadata.of(np.array([0]), ("falt",))


def test_categories__codes_each_pair(table, big_run):
    pool = Path(big_run.pool_address) / "metadata"
    faults = pd.concat([pd.read_parquet(file, columns=["fault"]) for file in sorted(pool.glob("*.parquet"))])["fault"]
    found = table.metadata.categories("fault")
    assert [found.labels[code] for code in found.codes] == faults.tolist()
    assert found.labels == tuple(faults.value_counts().index)
    assert found.counts.tolist() == faults.value_counts().tolist()
    assert table.metadata.category_columns() == ["fault"]


def test_categories__calls_absent_values_empty(tmp_path):
    columns = {"kind": ["x", None, "", "x"], "ok": [True, False, None, True], "uid": list("1234")}
    write_shard(tmp_path / "pool", "a", 4, columns=columns)
    run = hand_run(tmp_path / "run", [(make_uids(1, 2, 3, 4), {"clip_score": [1, 2, 3, 4]})], names=["a"])
    table = ScoreTable.open(run)
    kind, ok = table.metadata.categories("kind"), table.metadata.categories("ok")
    assert [kind.labels[code] for code in kind.codes] == ["x", "", "", "x"]
    assert [ok.labels[code] for code in ok.codes] == ["true", "false", "", "true"]
    assert kind.counts.tolist() == [2, 2]


def test_categories__refuses_no_column(table):
    with pytest.raises(PoolFormatError, match="one of the columns"):
        table.metadata.categories("nothing")


@pytest.mark.parametrize("values", [10_000, 10_001])
def test_categories__takes_ten_thousand_values_and_no_more(tmp_path, values):
    """Half of the pairs in two shards, so that neither has too many by itself."""
    columns = np.repeat([f"host {place}" for place in range(values)], 2)
    keys = make_uids(*range(len(columns)))
    names = uids.to_hex(keys).to_pylist()
    parts = {"a": slice(0, values), "b": slice(values, None)}
    for name, part in parts.items():
        write_shard(tmp_path / "pool", name, values, columns={"host": columns[part].tolist(), "uid": names[part]})
    shards = [(keys[part], {"clip_score": np.ones(values)}) for part in parts.values()]
    table = ScoreTable.open(hand_run(tmp_path / "run", shards, names=list(parts)))
    assert table.metadata.category_columns() == ["host"]
    if values > 10_000:
        with pytest.raises(TooManyValues, match="at most 10,000"):
            table.metadata.categories("host")
    else:
        found = table.metadata.categories("host")
        assert (len(found.labels), set(found.counts.tolist())) == (10_000, {2})
        assert [found.labels[code] for code in found.codes[[0, 5, -1]]] == ["host 0", "host 2", "host 9999"]


# --- threads and files


def test_score_table__answers_many_threads_as_it_answers_one(big_run, scores):
    table = ScoreTable.open(big_run)
    rng = np.random.default_rng(9)
    asked = [rng.integers(0, len(scores), 40) for _ in range(48)]
    hexes = uids.to_hex(uids.from_halves(scores["uid_hi"].to_numpy(), scores["uid_lo"].to_numpy())).to_pylist()

    def answer(rows: np.ndarray) -> None:
        metric = big_run.metrics[int(rows[0]) % len(big_run.metrics)]
        np.testing.assert_array_equal(table.column(metric), scores[metric].to_numpy())
        assert table.metadata.of(rows, ("uid",))["uid"].tolist() == [hexes[row] for row in rows]
        np.testing.assert_array_equal(table.rows_of(table.uids_at(rows)), rows)
        assert table.metadata.categories("fault").counts.sum() == len(scores)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(answer, asked))


def test_open__takes_the_finished_shards_of_an_unfinished_run(tmp_path):
    shards = [(make_uids(1, 2), {"clip_score": [1, 2]}), (make_uids(3), {"clip_score": [3]})]
    run = hand_run(tmp_path / "run", shards, planned=4)
    (Path(run.root) / "scores" / "00000000.parquet").unlink()
    table = ScoreTable.open(Run.open(run.root))
    assert (len(table), table.shard_names) == (1, ("00000001",))


def test_open__refuses_a_run_without_scores_and_a_damaged_file(tmp_path):
    run = hand_run(tmp_path / "run", [(make_uids(1), {"clip_score": [1]})])
    file = Path(run.score_files[0])
    file.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(RunError, match=r"00000000\.parquet: expected scores as written"):
        ScoreTable.open(run).column("clip_score")
    file.unlink()
    with pytest.raises(RunError, match="a finished shard, found none"):
        ScoreTable.open(run)


def test_column__names_a_file_with_other_rows(tmp_path):
    shards = [(make_uids(1), {"clip_score": [1]}), (make_uids(2, 3), {"clip_score": [2, 3]})]
    run = hand_run(tmp_path / "run", shards)
    table, (first, second) = ScoreTable.open(run), map(Path, run.score_files)
    first.write_bytes(second.read_bytes())
    with pytest.raises(RunError, match=r"00000000\.parquet.*2 rows where the run has 1"):
        table.column("clip_score")
    with pytest.raises(RunError, match=r"00000000\.parquet"):
        table.uids()


def test_column__names_a_file_that_vanished(tmp_path):
    run = hand_run(tmp_path / "run", [(make_uids(1), {"clip_score": [1]})])
    table = ScoreTable.open(run)
    Path(run.score_files[0]).unlink()
    with pytest.raises(RunError, match=r"00000000\.parquet"):
        table.column("clip_score")
