"""The index on disk: the same as in memory, whole or absent, rebuilt when the scores change, never in the way."""

from __future__ import annotations

import os
import re
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.synthetic_run import write_run
from clipsel_core import tasks
from clipsel_core.curation.index import bitmaps, index
from clipsel_core.curation.index.index import open_indexed, scores_fingerprint, wait_until_kept
from clipsel_core.curation.index.score_table import ScoreFiles, ScoreTable
from clipsel_core.errors import RunError
from clipsel_core.files import locked
from clipsel_core.runs.store import Run, digest_of, sealed
from tests.curation.conftest import hand_run, make_uids
from tests.waiting import PATIENCE_S, join

PARTS = ("values", "codes", "order", "starts")


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.open(write_run(tmp_path, rows=3_001, shards=3, seed=8, bad=0.02, decimals=2, pool=False))


def open_kept(run: Run) -> ScoreTable:
    table = open_indexed(run, fewest=0)
    wait_until_kept()
    return table


def files_of(run: Run) -> dict[str, bytes]:
    folder = Path(run.root) / "index"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_open__maps_what_memory_would_hold(run):
    kept, plain = open_kept(run), ScoreTable.open(run)
    again = open_kept(run)
    rows = np.random.default_rng(0).permutation(len(plain))[:200]
    for table in (kept, again):
        for metric in plain.metrics:
            for part in PARTS:
                assert np.array_equal(
                    getattr(table.ranking(metric), part), getattr(plain.ranking(metric), part), equal_nan=True
                )
            assert (table.ranking(metric).low, table.ranking(metric).high) == (
                plain.ranking(metric).low,
                plain.ranking(metric).high,
            )
            assert np.array_equal(table.take(metric, rows), plain.take(metric, rows), equal_nan=True)
        assert np.array_equal(table.uids_at(rows), plain.uids_at(rows))
        wanted = np.concatenate([plain.uids_at(rows), make_uids(5, 6)])
        assert table.rows_of(wanted).tolist() == [*rows.tolist(), -1, -1]
        assert not table.column("clip_score").flags.writeable
        assert np.array_equal(table.selectable_bits(), plain.selectable_bits())


def test_build__gives_the_same_bytes_each_time(run):
    open_kept(run)
    first = files_of(run)
    shutil.rmtree(Path(run.root) / "index")
    open_kept(run)
    assert files_of(run) == first
    assert len(first) == 3 + 4 * len(run.metrics)


def test_open__builds_anew_when_scores_change_and_tidies_up(run):
    open_kept(run)
    before, file = scores_fingerprint(run), run.score_files[1]
    backwards = pq.read_table(file).take(np.arange(999, -1, -1)).replace_schema_metadata(None)
    pq.write_table(sealed(backwards, file.stem, digest_of(run.config)), file)
    assert scores_fingerprint(run) != before
    table = open_kept(run)
    assert [path.name for path in (Path(run.root) / "index").iterdir()] == [scores_fingerprint(run)]
    assert np.array_equal(table.column("r_text")[1001:2001], backwards["r_text"].to_numpy(), equal_nan=True)


@pytest.mark.parametrize("damage", ["cut short", "emptied", "lost", "described wrongly"])
def test_open__makes_a_damaged_index_again(run, damage):
    open_kept(run)
    whole, (folder,) = files_of(run), (Path(run.root) / "index").iterdir()
    path = folder / ("index.json" if damage == "described wrongly" else "01-order.npy")
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes({"cut short": path.read_bytes()[:-8], "emptied": b""}.get(damage, b'{"pairs": 3}'))
    assert open_kept(run).ranking("clip_score").scored == ScoreTable.open(run).ranking("clip_score").scored
    assert files_of(run) == whole


def test_open__does_without_where_nothing_can_be_written(run, caplog):
    (Path(run.root) / "index").write_text("not a folder")
    table = open_kept(run)
    assert "no index is kept" in caplog.text
    assert np.array_equal(table.ranking("s_cliploss").order, ScoreTable.open(run).ranking("s_cliploss").order)


def test_open__lets_servers_build_at_once(run):
    tables: list[ScoreTable] = []
    threads = [threading.Thread(target=lambda: tables.append(open_kept(run))) for _ in range(4)]
    for thread in threads:
        thread.start()
    join(threads)
    assert len({table.ranking("r_image").order.tobytes() for table in tables}) == 1
    assert len(tables) == 4
    assert [path.name for path in (Path(run.root) / "index").iterdir()] == [scores_fingerprint(run)]


def test_open__is_not_kept_waiting_by_the_disk(run, monkeypatch):
    may_sync = threading.Event()
    monkeypatch.setattr(index, "_sync", lambda folder: may_sync.wait(PATIENCE_S))
    table = open_indexed(run, fewest=0)
    assert np.array_equal(table.ranking("r_text").order, ScoreTable.open(run).ranking("r_text").order)
    assert not (Path(run.root) / "index" / scores_fingerprint(run)).exists()
    may_sync.set()
    wait_until_kept()
    assert [path.name for path in (Path(run.root) / "index").iterdir()] == [scores_fingerprint(run)]
    assert table.rows_of(table.uids_at(np.arange(5))).tolist() == list(range(5))


def test_open__goes_on_when_the_index_is_deleted_meanwhile(run):
    table = open_kept(run)
    shutil.rmtree(Path(run.root) / "index")
    assert np.array_equal(table.column("clip_score"), ScoreTable.open(run).column("clip_score"), equal_nan=True)


def test_open__keeps_none_of_small_or_unfinished_runs(run, tmp_path):
    open_indexed(run)
    assert not (Path(run.root) / "index").exists()
    growing = hand_run(tmp_path / "growing", [(make_uids(1, 2), {"clip_score": [0.1, 0.2]})], planned=2)
    open_kept(growing)
    assert not (Path(growing.root) / "index").exists()


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("failing", ["uids.npy", "by-uid.npy", "03-order.npy", "index.json"])
def test_build__leaves_nothing_behind_when_it_fails(run, monkeypatch, failing, at_once):
    def fail(path: Path, *_):
        if path.name == failing:
            raise OSError("disk full")
        usual(path, *_)

    usual, part = (index.save_checked, "save_checked") if failing.endswith("npy") else (Path.write_text, "write_text")
    monkeypatch.setattr(index if part == "save_checked" else Path, part, fail)
    monkeypatch.setattr(index, "_MOST_AT_ONCE", at_once)
    table = open_kept(run)
    assert len(table.ranking("clip_score").order)
    assert list((Path(run.root) / "index").iterdir()) == []


def test_build__ends_where_the_uids_cannot_be_read(run, monkeypatch):
    def fail(*_):
        raise RunError("the scores", expected="a parquet file", found="something else", remedy="score again")

    monkeypatch.setattr(ScoreFiles, "uids", fail)
    with pytest.raises(RunError, match="something else"):
        open_kept(run)
    assert list((Path(run.root) / "index").iterdir()) == []


@pytest.mark.parametrize("allowed", [0, 3])
def test_build__ends_where_the_one_who_is_told_says_so(run, allowed):
    """Who waits sees how far it is, may stop it, and finds nothing of it; the next one builds it whole."""
    told = []

    def stop(done: int, of: int, *_) -> None:
        told.append((done, of))
        if done > allowed:
            raise KeyboardInterrupt

    assert index.must_build(run, fewest=0)
    with pytest.raises(KeyboardInterrupt):
        open_indexed(run, fewest=0, report=stop)
    columns = 1 + len(run.metrics)
    assert (allowed + 1, columns) in told
    assert list((Path(run.root) / "index").iterdir()) == []
    told.clear()
    open_indexed(run, fewest=0, report=lambda done, of, *_: told.append((done, of)))
    wait_until_kept()
    assert sorted(told) == [(done, columns) for done in range(1, columns + 1)]
    assert not index.must_build(run, fewest=0)
    assert not index.must_build(run)


def test_build__can_be_stopped_within_a_column(run, monkeypatch):
    """Whoever asks for it need not wait for the next report: reading a file and writing an array can end early."""
    asked = []

    def stop_after(allowed: int) -> None:
        asked.append(allowed)
        if len(asked) > allowed:
            raise KeyboardInterrupt

    with tasks.stoppable(partial(stop_after, 10**6)):
        open_indexed(run, fewest=0)
    wait_until_kept()
    # Each metric's files are read, and each of its arrays is written. Metrics overlap.
    assert len(asked) >= len(run.metrics) * (len(run.score_files) + len(PARTS))
    shutil.rmtree(Path(run.root) / "index")
    for allowed in range(0, len(asked) // 2, 5):
        asked.clear()
        with tasks.stoppable(partial(stop_after, allowed)), pytest.raises(KeyboardInterrupt):
            open_indexed(run, fewest=0)
        assert list((Path(run.root) / "index").iterdir()) == []


def test_tidy__takes_away_what_a_killed_builder_left(run):
    left = Path(run.root) / "index" / ".0123456789abcdef.0a1b2c3d.partial"
    left.mkdir(parents=True)
    building = Path(run.root) / "index" / ".0123456789abcdef.0a1b2c3e.partial"
    building.mkdir()
    other = Path(run.root) / "index" / "notes"
    other.mkdir()
    with locked(building, is_folder=True):
        open_kept(run)
    assert not left.exists()
    assert building.exists()
    assert other.exists()


def resident_kib(run) -> int:
    """What this process holds in memory of the uids of a run's index."""
    mapped = rf"{re.escape(str(run.root))}/.*/uids\.npy\n(?:.*\n)*?Rss: +(\d+) kB"
    return sum(map(int, re.findall(mapped, Path("/proc/self/smaps").read_text())))


def test_rows_of__does_not_keep_the_uids_in_memory(run, monkeypatch):
    table, let_go = open_kept(run), []
    real = index._let_go
    monkeypatch.setattr(index, "_let_go", lambda array, *part: (real(array, *part), let_go.append(part)))
    monkeypatch.setattr(bitmaps, "_PART", 1024)
    wanted = table.uids_at(np.arange(100))
    let_go.clear()
    assert table.rows_of(wanted).tolist() == list(range(100))
    assert sorted(let_go) == [(0, 1024), (1024, 2048), (2048, 3001)]
    assert table.uids().tolist() == ScoreTable.open(run).uids().tolist()
    touched = resident_kib(run)
    real(table.uids(), 0, len(table))
    # Not 0 everywhere: how many pages a look at one brings along is up to the system.
    assert resident_kib(run) < touched / 2


@pytest.mark.parametrize("pairs", [1, 8, 1003])
def test_selectable_bits__are_all_where_no_pair_was_set_aside(tmp_path, pairs):
    run = Run.open(write_run(tmp_path, rows=pairs, shards=1, pool=False))
    found = open_kept(run).selectable_bits()
    assert np.array_equal(found, np.packbits(np.ones(pairs, bool), bitorder="little"))


def test_open__looks_into_no_score_file_once_there_is_an_index(run):
    open_kept(run)
    for file in map(Path, run.score_files):
        stat = file.stat()
        file.write_bytes(b" " * stat.st_size)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(open_indexed(run, fewest=0).column("clip_score")) == 3_001


def flip(path: Path, byte: int) -> None:
    """Changes a bit of a file, and nothing that its folder says of it."""
    stat, found = path.stat(), bytearray(path.read_bytes())
    found[byte] ^= 1 << byte % 8
    path.write_bytes(found)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("part", ["uids", "by-uid", *(f"{place:02d}-{part}" for place in (0, 6) for part in PARTS)])
def test_index__what_a_flipped_bit_changed_is_read_from_the_scores_and_built_again(run, part, caplog):
    open_kept(run)
    whole, plain, (folder,) = files_of(run), ScoreTable.open(run), (Path(run.root) / "index").iterdir()
    draw, path = np.random.default_rng(1), folder / f"{part}.npy"
    for byte in draw.integers(128, path.stat().st_size, 4).tolist():
        flip(path, byte)
        table = open_kept(run)
        for metric in plain.metrics:
            assert np.array_equal(table.ranking(metric).order, plain.ranking(metric).order)
            assert np.array_equal(table.column(metric), plain.column(metric), equal_nan=True)
            assert table.extent(metric) == plain.extent(metric)
        assert np.array_equal(table.selectable_bits(), plain.selectable_bits())
        assert np.array_equal(table.uids(), plain.uids())
        assert table.rows_of(plain.uids()[::7]).tolist() == list(range(0, 3_001, 7))
        assert "read from the scores" in caplog.text
        caplog.clear()
        open_kept(run)
        assert files_of(run) == whole


@pytest.mark.parametrize("file", ["index.json", "uids.npy", "03-codes.npy"])
def test_index__any_flipped_bit_of_a_description_is_noticed(run, file):
    """Of index.json, and of what numpy reads before the numbers."""
    open_kept(run)
    plain, (folder,) = ScoreTable.open(run), (Path(run.root) / "index").iterdir()
    whole, said = (folder / file).read_bytes(), (folder / "index.json").read_bytes()
    for byte in range(min(len(whole), 128)):
        (folder / file).write_bytes(whole)
        flip(folder / file, byte)
        found = index.read_index(folder, plain.metrics, len(plain))
        if found and file == "index.json":
            assert found.extent("clip_score") == plain.extent("clip_score")
        elif found and (bins := found.ranking("r_text")) and found.uids is not None:
            assert np.array_equal(bins.codes, plain.ranking("r_text").codes)
            assert np.array_equal(found.uids, plain.uids())
        else:
            (folder / "index.json").write_bytes(said)
