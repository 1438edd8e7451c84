"""Uids that are malformed or repeated, and what inspect says of broken shards."""

from __future__ import annotations

import os
import shutil
import tempfile
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError, RunError
from clipsel_core.pool import layout
from clipsel_core.pool.inspect import inspect_pool
from clipsel_core.pool.layout import check_uids, open_pool, read_uids
from tests.conftest import rewrite_npz, unit_rows, write_shard
from tests.pool.pictures import sample, write_tar


def change_uid(parquet, row, uid):
    table = pq.read_table(parquet)
    values = table["uid"].to_pylist()
    values[row] = uid
    pq.write_table(table.set_column(0, "uid", [values]), parquet)


def uid_at(parquet, row):
    return pq.read_table(parquet)["uid"][row].as_py()


def test_read_uids__in_row_order(pool):
    opened = open_pool(pool)
    expected = pq.read_table(opened.shards[1].parquet)["uid"].to_pylist()
    assert uids.to_hex(read_uids(opened.shards[1])).to_pylist() == expected


def test_read_uids__a_malformed_one_is_named_with_file_and_row(pool):
    opened = open_pool(pool)
    change_uid(opened.shards[1].parquet, 7, "not-a-uid")
    with pytest.raises(PoolFormatError, match=r"00000001\.parquet, row 7: expected a uid of .*, found 'not-a-uid'"):
        check_uids(opened)


@pytest.mark.parametrize("at_once", [1 << 26, 50, 1])
@pytest.mark.parametrize(("shard", "row"), [(2, 5), (0, 30)])
def test_check_uids__a_repeated_one_is_named_with_both_places(pool, monkeypatch, at_once, shard, row):
    monkeypatch.setattr(layout, "UIDS_AT_ONCE", at_once)
    opened = open_pool(pool)
    check_uids(opened)
    uid = uid_at(opened.shards[0].parquet, 12)
    change_uid(opened.shards[shard].parquet, row, uid.upper())
    with pytest.raises(
        PoolFormatError, match=rf"{uid} at 00000000.parquet row 12 and 0000000{shard}.parquet row {row}"
    ):
        check_uids(opened)


def test_check_uids__of_a_large_pool_looks_at_a_part_at_a_time_and_leaves_no_file(tmp_path, monkeypatch):
    for seed in range(4):
        write_shard(tmp_path / "pool", f"{seed:08d}", 3000, width=4, seed=seed)
    pool, folder = open_pool(tmp_path / "pool"), tmp_path / "aside"
    folder.mkdir()
    monkeypatch.setattr(layout, "UIDS_AT_ONCE", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    looked_at, sort = [], uids.sort
    monkeypatch.setattr(uids, "sort", lambda some: looked_at.append(some) or sort(some))
    check_uids(pool)
    together = np.concatenate(looked_at)
    expected = np.concatenate([read_uids(shard) for shard in pool.shards])
    np.testing.assert_array_equal(sort(together), sort(expected))
    assert len(looked_at) == 12
    assert max(map(len, looked_at)) < 1300
    assert not list(folder.iterdir())


def test_check_uids__no_room_for_them_is_said_before_they_are_read(pool, monkeypatch):
    opened = open_pool(pool)
    monkeypatch.setattr(layout, "UIDS_AT_ONCE", 50)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(layout, "read_uids", None)
    with pytest.raises(RunError, match=r"expected room for 0\.0 GB of uids .* found 0\.0 GB; set TMPDIR"):
        check_uids(opened)


def test_inspect_pool__a_sound_pool_has_no_problems(pool):
    report = inspect_pool(open_pool(pool))
    assert (report.problems, report.stops, report.npz_count) == ((), False, 3)


def test_inspect_pool__lists_every_problem_at_once(pool):
    metadata = pool / "metadata"
    (metadata / "00000000.npz").unlink()
    rewrite_npz(metadata / "00000001.npz", l14_img=unit_rows(24, 16))
    bad = unit_rows(61, 16)
    bad[[4, 9]] = np.nan
    rewrite_npz(metadata / "00000002.npz", l14_txt=bad)
    change_uid(metadata / "00000002.parquet", 3, uid_at(metadata / "00000001.parquet", 0))
    report = inspect_pool(open_pool(pool))
    text = "\n".join(problem.text for problem in report.problems)
    assert report.stops
    assert "00000000.npz: expected the embeddings" in text
    assert "shard 00000001: expected 25 rows, as in the parquet, found 24 rows in l14_img" in text
    assert "shard 00000002: 2 bad rows in l14_txt, the first is row 4: NaN" in text
    assert "00000001.parquet row 0 and 00000002.parquet row 3" in text


def test_inspect_pool__rows_that_scoring_mends_do_not_stop_it(tmp_path):
    _, npz = write_shard(tmp_path, "0", 10)
    rewrite_npz(npz, l14_img=unit_rows(10, 16) * np.float16(1.008))
    report = inspect_pool(open_pool(tmp_path))
    said = "shard 0: 10 rows in l14_img a little off unit length; scoring scales them"
    assert [(problem.text, problem.stops) for problem in report.problems] == [(said, False)]
    assert inspect_pool(open_pool(tmp_path), values=False).problems == ()


def texts_of(root, **options):
    report = inspect_pool(open_pool(root), **options)
    assert not report.stops
    return [problem.text for problem in report.problems]


def test_inspect_pool__names_columns_that_differ_once_for_all_shards(tmp_path):
    write_shard(tmp_path, "0", 3)
    for name in ("1", "2"):
        write_shard(tmp_path, name, 3, seed=int(name), columns={"text": pa.nulls(3), "note": ["x"] * 3})
    parquet, _ = write_shard(tmp_path, "3", 3, seed=3, columns={"text": pa.array([["a", "b"]] * 3), "note": [1, 2, 3]})
    pq.write_table(pq.read_table(parquet).drop_columns(["url"]), parquet)
    parquet, _ = write_shard(tmp_path, "4", 3, seed=4, columns={"text": [{"en": "x"}] * 3})
    assert texts_of(tmp_path, values=False) == [
        "shard 1 and 1 more: text is of type null; captions count as empty",
        "shard 3: text is list<element: string>; the first text of each list is the caption",
        "shard 3: no column of urls; they count as empty",
        "shard 3: note is int64, elsewhere string",
        "shard 4: no column of captions; they count as empty",
        "shard 4: text is struct<en: string>, which is no caption",
    ]


def test_inspect_pool__counts_captions_that_say_nothing_or_are_damaged(tmp_path):
    write_shard(tmp_path, "0", 3)
    damaged = pa.array([b"caf\xe9", b"ok", b"", b"\xff"], pa.binary())
    write_shard(tmp_path, "1", 4, seed=1, columns={"text": pa.Array.from_buffers(pa.string(), 4, damaged.buffers())})
    write_shard(tmp_path, "2", 4, seed=2, columns={"text": ["  ", None, "", "x"]})
    assert texts_of(tmp_path) == [
        "4 captions of 11, the first in shard 1: empty",
        "2 captions of 11, the first in shard 1: not UTF-8; U+FFFD stands for what cannot be read",
    ]
    assert texts_of(tmp_path, values=False) == []


def test_inspect_pool__names_tars_without_uids(pool):
    for number in range(3):
        said = sample(number, uid=f"{number:032x}") if number == 0 else sample(number)
        write_tar(pool / "shards" / f"{number}.tar", said)
    (found,) = texts_of(pool)
    assert found.startswith(f"{pool / 'shards' / '1.tar'} and 1 more tar: no uid in any json")
    assert "make a pool of the tars with embed" in found


def test_inspect_pool__a_uid_further_on_in_a_tar_is_enough(pool):
    files = {
        f"a/{number}{name[name.rindex('.') :]}": data for number in range(4) for name, data in sample(number).items()
    }
    write_tar(pool / "shards" / "0.tar", files | {"a/9.json": b'{"uid": "0123abcd-89ab-cdef-0123-456789abcdef"}'})
    os.mkfifo(pool / "shards" / "1.tar")
    (found,) = texts_of(pool)
    assert found.startswith(f"{pool / 'shards' / '1.tar'}: it cannot be read: a pipe")


def test_inspect_pool__rows_of_another_length_come_with_their_remedy(tmp_path):
    _, npz = write_shard(tmp_path, "0", 10)
    rewrite_npz(npz, l14_img=unit_rows(10, 16) * np.float16(11))
    (problem,) = inspect_pool(open_pool(tmp_path)).problems
    assert problem.stops
    assert problem.text.startswith("shard 0: 10 bad rows in l14_img, the first is row 0: length 1")
    assert problem.text.endswith("; scale such rows to unit length with --on-bad-rows scale")


def test_inspect_pool__names_a_damaged_tar(pool):
    """It keeps nobody from scoring."""
    (pool / "shards").mkdir(exist_ok=True)
    (pool / "shards" / "good.tar").write_bytes(bytes(10_240))
    (pool / "shards" / "empty.tar").write_bytes(b"")
    report = inspect_pool(open_pool(pool))
    assert not report.stops
    (problem,) = [problem.text for problem in report.problems if ".tar" in problem.text]
    assert problem == f"{pool / 'shards' / 'empty.tar'}: it cannot be read: empty file; download it again"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_inspect_pool__names_an_npz_with_a_flipped_bit(tmp_path, save, dtype):
    """Also one that leaves the row a unit row."""
    _, npz = write_shard(tmp_path, "0", 600, save=save)
    rewrite_npz(npz, compressed=save is not np.savez, l14_txt=unit_rows(600, 16, 3).astype(dtype))
    data = bytearray(npz.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    npz.write_bytes(data)
    report = inspect_pool(open_pool(tmp_path))
    assert report.stops
    (problem,) = report.problems
    assert problem.text.startswith(f"{npz}: expected a whole .npz, found ")
    assert inspect_pool(open_pool(tmp_path), values=False).stops == (save is not np.savez)
