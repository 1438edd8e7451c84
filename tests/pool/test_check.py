"""Uids that are malformed or repeated, and what inspect says of broken shards."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.errors import PoolFormatError
from clipsel_core.pool import check
from clipsel_core.pool.check import check_uids, read_uids
from clipsel_core.pool.inspect import inspect_pool
from clipsel_core.pool.layout import open_pool
from tests.conftest import rewrite_npz, unit_rows, write_shard


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
    assert uids.to_hex(read_uids(opened, opened.shards[1])).to_pylist() == expected


def test_read_uids__a_malformed_one_is_named_with_file_and_row(pool):
    opened = open_pool(pool)
    change_uid(opened.shards[1].parquet, 7, "not-a-uid")
    with pytest.raises(PoolFormatError, match=r"00000001\.parquet, row 7: expected a uid of .*, found 'not-a-uid'"):
        check_uids(opened)


@pytest.mark.parametrize("at_once", [1 << 26, 50, 1])
@pytest.mark.parametrize(("shard", "row"), [(2, 5), (0, 30)])
def test_check_uids__a_repeated_one_is_named_with_both_places(pool, monkeypatch, at_once, shard, row):
    monkeypatch.setattr(check, "_UIDS_AT_ONCE", at_once)
    opened = open_pool(pool)
    check_uids(opened)
    uid = uid_at(opened.shards[0].parquet, 12)
    change_uid(opened.shards[shard].parquet, row, uid.upper())
    with pytest.raises(
        PoolFormatError, match=rf"{uid} at 00000000.parquet row 12 and 0000000{shard}.parquet row {row}"
    ):
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


def test_inspect_pool__names_a_damaged_tar(pool):
    """It keeps nobody from scoring."""
    (pool / "shards").mkdir(exist_ok=True)
    (pool / "shards" / "good.tar").write_bytes(bytes(10_240))
    (pool / "shards" / "empty.tar").write_bytes(b"")
    report = inspect_pool(open_pool(pool))
    assert not report.stops
    (problem,) = [problem.text for problem in report.problems if ".tar" in problem.text]
    assert problem == f"{pool / 'shards' / 'empty.tar'}: it cannot be read: empty file; download it again"
