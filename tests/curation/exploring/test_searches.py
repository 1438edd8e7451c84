"""A search of a whole run finds what a float64 search does, and comes back from its file as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.exploring.searches import (
    Asked,
    read_asked,
    read_found,
    read_vector,
    row_of,
    search_run,
    searches_of,
    write_search,
    write_vector,
)
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.errors import RunError, UidError
from clipsel_core.runs.local import score
from tests.conftest import unit_rows
from tests.curation.exploring.test_projection import flipped, pool_and_run

ASKED = Asked(query='a "text" <b>', by="text", side="image", among="pool", pairs=126)


@pytest.fixture
def run(pool, tmp_path):
    return score(pool, tmp_path / "run", batch_size=16)


def every(run, member: str = "l14_img") -> np.ndarray:
    parts = [np.load(shard.npz)[member].astype(np.float64) for shard in ScoreTable.open(run).pool.shards]
    return np.concatenate(parts)


@pytest.mark.parametrize(("side", "member"), [("image", "l14_img"), ("text", "l14_txt")])
def test_search_run__by_vector_is_a_search_in_float64(run, side, member):
    query, told = unit_rows(1, 16, 3)[0].astype(np.float32), []
    found = search_run(run, query, side=side, limit=9, progress=lambda done, total: told.append((done, total)))
    cosines = every(run, member) @ query.astype(np.float64)
    assert found.nearest.rows.tolist() == np.argsort(-cosines, kind="stable")[:9].tolist()
    np.testing.assert_allclose(found.nearest.similarity, cosines[found.nearest.rows], atol=1e-3)
    assert (found.pairs, told[-1]) == (126, (126, 126))


def test_search_run__by_uid_leaves_the_pair_out(run):
    table = ScoreTable.open(run)
    uid = uids.to_hex(table.uids_at(np.array([70])))[0].as_py()
    assert row_of(table, uid) == 70
    found = search_run(run, uid, limit=200)
    assert len(found.nearest) == 125
    assert uid not in found.names


def test_search_run__on_the_map_stays_on_it(tmp_path):
    from clipsel_core.curation.exploring.projection import project, read_projection

    run = pool_and_run(tmp_path, [40, 20])
    with pytest.raises(RunError, match="a map to search on"):
        search_run(run, np.ones(16), on_map=True)
    project(run, sample=12)
    found = search_run(run, np.ones(16), on_map=True)
    assert sorted(found.nearest.rows) == read_projection(run).rows.tolist()
    assert found.pairs == 12


def test_write_search__comes_back_as_it_was(run):
    found = search_run(run, unit_rows(1, 16, 3)[0], limit=7)
    first, second = run.root / "searches" / "1.parquet", run.root / "searches" / "2.parquet"
    write_search(first, found, ASKED)
    assert read_asked(first) == ASKED
    again = read_found(first, found.table)
    assert again.rows.tolist() == found.nearest.rows.tolist()
    assert again.similarity.tolist() == found.nearest.similarity.tolist()
    write_search(second, found, ASKED)
    assert set(searches_of(run)) == {first, second}


def test_write_search__as_csv_and_as_a_list(run, tmp_path):
    found = search_run(run, unit_rows(1, 16, 3)[0], limit=7)
    for name in ("a.csv", "a.npy"):
        write_search(tmp_path / name, found, ASKED)
        listed = read_uid_list(tmp_path / name)
        assert listed.tolist() == uids.sort(found.table.uids_at(found.nearest.rows)).tolist()
    with pytest.raises(RunError, match="a name ending in"):
        write_search(tmp_path / "a.txt", found, ASKED)


def test_read_found__leaves_out_pairs_that_are_gone(run):
    found = search_run(run, unit_rows(1, 16, 3)[0], limit=126)
    write_search(run.root / "searches" / "a.parquet", found, ASKED)
    run.score_files[1].unlink()
    assert len(read_found(run.root / "searches" / "a.parquet", ScoreTable.open(run))) == 101


@pytest.mark.parametrize("content", [b"", b"PAR1PAR1", b"nothing"])
def test_read_asked__refuses_a_damaged_file(run, tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(RunError, match="search again"):
        read_asked(path)
    with pytest.raises(RunError, match="search again"):
        read_found(path, ScoreTable.open(run))


def test_read_found__a_flipped_bit_exchanges_no_pair(run, tmp_path):
    path, draw, refused = tmp_path / "a.parquet", random.Random(0), []
    found = search_run(run, unit_rows(1, 16, 3)[0], limit=20)
    write_search(path, found, ASKED)
    whole = path.read_bytes()
    for bit in draw.sample(range(8 * len(whole)), 300):
        path.write_bytes(flipped(whole, bit))
        try:
            again = read_found(path, found.table)
        except RunError as error:
            refused.append(str(error))
            continue
        assert again.rows.tolist() == found.nearest.rows.tolist(), bit
        assert again.similarity.tolist() == found.nearest.similarity.tolist(), bit
    assert len(refused) > 100
    assert not any("\n" in said for said in refused)


def test_read_vector__takes_one_embedding_only(tmp_path):
    path = tmp_path / "q.npy"
    write_vector(path, np.arange(4, dtype=np.float32))
    assert read_vector(path).tolist() == [0, 1, 2, 3]
    np.save(path, np.ones((1, 4)))
    assert read_vector(path).shape == (4,)
    for wrong in (np.ones((2, 4)), np.arange(4), np.array(1.0)):
        np.save(path, wrong)
        with pytest.raises(RunError, match="one embedding of floats"):
            read_vector(path)
    path.write_bytes(b"no")
    with pytest.raises(RunError, match="one embedding"):
        read_vector(path)


def test_row_of__says_what_is_no_pair(run):
    table = ScoreTable.open(run)
    with pytest.raises(RunError, match="a pair of the run"):
        row_of(table, "0")
    with pytest.raises(UidError):
        row_of(table, "not hex")
