"""What is found is what a float64 search over everything finds, and what a file has of it afterwards."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.curation.exploring import vectors
from clipsel_core.curation.exploring.searches import (
    SearchQuery,
    find_row,
    list_searches,
    nearest,
    nearest_targets,
    neighbours,
    read_nearest,
    read_query,
    read_vector,
    search_run,
    write_search,
)
from clipsel_core.curation.exploring.vectors import HeldVectors, PoolVectors, vector_of
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.errors import PoolFormatError, RunError, TargetError, UidError
from clipsel_core.npy import write_npy
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.local import score
from clipsel_core.runs.store import Run
from tests.conftest import rewrite_npz, unit_rows
from tests.curation.exploring.test_projection import flipped, pool_and_run

ASKED = SearchQuery(query='a "text" <b>', by="text", side="image", among="pool", pairs=126)


@pytest.fixture
def run(pool, tmp_path):
    return score(pool, tmp_path / "run", batch_size=16)


def every(run, member: str = "l14_img") -> np.ndarray:
    parts = [np.load(shard.npz.path)[member].astype(np.float64) for shard in ScoreTable.open(run).metadata.pool.shards]
    return np.concatenate(parts)


@pytest.mark.parametrize(("side", "member"), [("image", "l14_img"), ("text", "l14_txt")])
def test_search_run__by_vector_is_a_search_in_float64(run, side, member):
    query, told = unit_rows(1, 16, 3)[0].astype(np.float32), []
    found = search_run(run, query, side=side, limit=9, report=lambda done, total, *_: told.append((done, total)))
    cosines = every(run, member) @ query.astype(np.float64)
    assert found.nearest.rows.tolist() == np.argsort(-cosines, kind="stable")[:9].tolist()
    np.testing.assert_allclose(found.nearest.similarity, cosines[found.nearest.rows], atol=1e-3)
    assert (found.pairs, told[-1]) == (126, (126, 126))


def test_search_run__by_uid_leaves_the_pair_out(run):
    table = ScoreTable.open(run)
    uid = uids.to_hex(table.uids_at(np.array([70])))[0].as_py()
    assert find_row(table, uid) == 70
    found = search_run(run, uid, limit=200)
    assert len(found.nearest) == 125
    assert uid not in found.names


def test_search_run__on_the_map_stays_on_it(tmp_path):
    from clipsel_core.curation.exploring.map_layout import project
    from clipsel_core.curation.exploring.projection import read_projection

    run = pool_and_run(tmp_path, [40, 20])
    with pytest.raises(RunError, match="a map to search on"):
        search_run(run, np.ones(16), on_map=True)
    project(run, sample=12)
    found = search_run(run, np.ones(16), on_map=True)
    assert sorted(found.nearest.rows) == read_projection(run).rows.tolist()
    assert found.pairs == 12


def test_write_search__comes_back_as_it_was(run):
    found = search_run(run, unit_rows(1, 16, 3)[0], limit=7)
    first, second = Path(run.root) / "searches" / "1.parquet", Path(run.root) / "searches" / "2.parquet"
    write_search(first, found, ASKED)
    assert read_query(first) == ASKED
    again = read_nearest(first, found.table)
    assert again.rows.tolist() == found.nearest.rows.tolist()
    assert again.similarity.tolist() == found.nearest.similarity.tolist()
    write_search(second, found, ASKED)
    assert set(map(Path, list_searches(run))) == {first, second}


def test_write_search__as_csv_and_as_a_list(run, tmp_path):
    found = search_run(run, unit_rows(1, 16, 3)[0], limit=7)
    for name in ("a.csv", "a.npy"):
        write_search(tmp_path / name, found, ASKED)
        listed = read_uid_list(tmp_path / name)
        assert listed.tolist() == uids.sort(found.table.uids_at(found.nearest.rows)).tolist()
    with pytest.raises(RunError, match="a name ending in"):
        write_search(tmp_path / "a.txt", found, ASKED)


def test_read_nearest__leaves_out_pairs_that_are_gone(run):
    found = search_run(run, unit_rows(1, 16, 3)[0], limit=126)
    write_search(Path(run.root) / "searches" / "a.parquet", found, ASKED)
    Path(run.score_files[1]).unlink()
    assert len(read_nearest(Path(run.root) / "searches" / "a.parquet", ScoreTable.open(run))) == 101


@pytest.mark.parametrize("content", [b"", b"PAR1PAR1", b"nothing"])
def test_read_query__refuses_a_damaged_file(run, tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(RunError, match="search again"):
        read_query(path)
    with pytest.raises(RunError, match="search again"):
        read_nearest(path, ScoreTable.open(run))


def test_read_nearest__a_flipped_bit_exchanges_no_pair(run, tmp_path):
    path, draw, refused = tmp_path / "a.parquet", random.Random(0), []
    found = search_run(run, unit_rows(1, 16, 3)[0], limit=20)
    write_search(path, found, ASKED)
    whole = path.read_bytes()
    for bit in draw.sample(range(8 * len(whole)), 300):
        path.write_bytes(flipped(whole, bit))
        try:
            again = read_nearest(path, found.table)
        except RunError as error:
            refused.append(str(error))
            continue
        assert again.rows.tolist() == found.nearest.rows.tolist(), bit
        assert again.similarity.tolist() == found.nearest.similarity.tolist(), bit
    assert len(refused) > 100
    assert not any("\n" in said for said in refused)


def test_read_vector__takes_one_embedding_only(tmp_path):
    path = tmp_path / "q.npy"
    write_npy(path, np.arange(4, dtype=np.float32))
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


def test_find_row__says_what_is_no_pair(run):
    table = ScoreTable.open(run)
    with pytest.raises(RunError, match="a pair of the run"):
        find_row(table, "0")
    with pytest.raises(UidError):
        find_row(table, "not hex")


# --- of a sample, a pair or a target

DEMO = Path(__file__).parents[3] / "data" / "demo" / "run"
MEMBERS = {"image": "l14_img", "text": "l14_txt"}


@pytest.fixture
def table(pool, tmp_path) -> ScoreTable:
    np.save(tmp_path / "task.npy", unit_rows(33, 16, 5))
    return ScoreTable.open(score(pool, tmp_path / "run", targets={"task": tmp_path / "task.npy"}, batch_size=16))


def all_rows(table: ScoreTable, side: str) -> np.ndarray:
    """The embeddings of every pair in float64, read with numpy alone."""
    parts = [np.load(shard.npz.path)[MEMBERS[side]].astype(np.float64) for shard in table.metadata.pool.shards]
    rows = np.concatenate(parts)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_neighbours__are_those_of_a_search_in_float64(table, side, block, monkeypatch):
    monkeypatch.setattr(vectors, "_BLOCK_BYTES", 4 * 16 * block)
    every = all_rows(table, side)
    for row in (0, 39, 40, 125):
        cosines = every @ every[row]
        cosines[row] = -np.inf
        found = neighbours(table, row, side=side, limit=11)
        assert found.rows.tolist() == np.argsort(-cosines, kind="stable")[:11].tolist()
        np.testing.assert_allclose(found.similarity, cosines[found.rows], atol=3e-7)


def test_neighbours__refuse_a_shard_whose_rows_are_other_pairs_than_were_scored(table):
    path = table.metadata.pool.shards[1].parquet
    assert len(neighbours(table, 3, limit=200)) == 125
    pq.write_table(pq.read_table(path).take(list(range(24, -1, -1))), path)
    with pytest.raises(PoolFormatError, match=r"00000001\.parquet, row 0: expected the pair that was scored"):
        neighbours(table, 3, limit=200)
    assert len(neighbours(table, 3, among=np.arange(40))) == 39


def test_neighbours__look_only_among_the_asked(table):
    among = np.array([3, 5, 50, 64, 65, 120])
    every = all_rows(table, "image")
    expected = sorted(set(among) - {50}, key=lambda row: -(every[row] @ every[50]))
    held = HeldVectors(among, PoolVectors(table, "image", among).read())
    for where in (among, held):
        assert neighbours(table, 50, among=where).rows.tolist() == expected
    assert neighbours(table, 51, among=among, limit=2).rows.tolist() == [
        int(row) for row in among[np.argsort(-(every[among] @ every[51]))][:2]
    ]


def test_nearest__settles_ties_by_row_and_leaves_out_what_cannot_be_scored():
    rows = np.eye(4)[[0, 1, 0, 2, 0, 3]].astype(np.float16)
    rows[3], rows[5, 1] = 0, np.nan
    found = nearest(np.array([2.0, 0, 0, 0]), HeldVectors(np.arange(6) * 10, rows), limit=9)
    assert found.rows.tolist() == [0, 20, 40, 10]
    assert found.similarity.tolist() == [1, 1, 1, 0]


def test_nearest__of_many_that_tie_the_first_rows_come_first():
    rows = np.tile(np.eye(4)[:2], (500, 1)).astype(np.float16)
    found = nearest(np.array([1.0, 0, 0, 0]), HeldVectors(np.arange(1000), rows), limit=1000)
    assert found.rows.tolist() == [*range(0, 1000, 2), *range(1, 1000, 2)]


@pytest.mark.parametrize("stored", [np.float16, np.float32])
def test_nearest__twins_have_a_cosine_of_1_whatever_rounding_made_of_their_length(stored):
    rows = np.repeat(unit_rows(1, 16) * np.float32(1.0004), 3, axis=0).astype(stored)
    rows[1] *= stored(0.995)
    rows[2] *= stored(-1)
    found = nearest(rows[0], HeldVectors(np.arange(3), rows))
    np.testing.assert_allclose(found.similarity, [1, 1, -1], atol=2e-6)
    assert abs(found.similarity).max() <= 1


def test_nearest__reports_how_far_it_is(table):
    told = []
    nearest(np.ones(16), PoolVectors(table), report=lambda done, total, *_: told.append((done, total)))
    assert told == [(40, 126), (65, 126), (126, 126)]


@pytest.mark.parametrize("query", [np.zeros(16), np.full(16, np.nan), np.ones(15), np.ones((1, 16))])
def test_nearest__refuses_a_query_that_is_no_direction(table, query):
    with pytest.raises(RunError, match="the query"):
        nearest(query, PoolVectors(table))


def test_vector_of__a_pair_that_was_set_aside_has_no_neighbours(pool, tmp_path):
    images = np.load(open_pool(pool).shards[1].npz.path)["l14_img"]
    images[2] = np.nan
    rewrite_npz(open_pool(pool).shards[1].npz.path, l14_img=images)
    table = ScoreTable.open(score(pool, tmp_path / "run", on_bad_rows="skip", batch_size=16))
    with pytest.raises(RunError, match="could not be scored"):
        neighbours(table, 42)
    assert 42 not in neighbours(table, 41, limit=200).rows


def test_neighbours__of_a_pool_whose_rows_were_scaled(pool, tmp_path):
    plain = neighbours(ScoreTable.open(score(pool, tmp_path / "plain", batch_size=16)), 41, limit=20)
    for shard in open_pool(pool).shards:
        with np.load(shard.npz.path) as archive:
            images = archive["l14_img"]
        rewrite_npz(shard.npz.path, l14_img=images * np.float16(8))
    scaled = neighbours(
        ScoreTable.open(score(pool, tmp_path / "run", on_bad_rows="scale", batch_size=16)), 41, limit=20
    )
    assert scaled.rows.tolist() == plain.rows.tolist()
    np.testing.assert_allclose(scaled.similarity, plain.similarity, atol=1e-3)


def test_pool_vectors__say_that_the_pool_is_gone(table):
    Path(table.run.pool_address).rename(Path(table.run.pool_address).with_name("moved"))
    with pytest.raises(RunError, match="the pool that was scored"):
        vector_of(ScoreTable.open(table.run), 0)


def test_nearest_targets__explain_the_score(table):
    target = unit_rows(33, 16, 5).astype(np.float64)
    scores = table.column("normsim_inf_task")
    for row in range(0, 126, 25):
        found = nearest_targets(table, "task", vector_of(table, row), limit=3)
        cosines = target @ all_rows(table, "image")[row]
        assert found.rows.tolist() == np.argsort(-np.abs(cosines))[:3].tolist()
        assert abs(found.similarity[0]) == pytest.approx(scores[row], abs=1e-6)
        assert not found.pairs


def test_nearest_targets__keep_the_sign_of_an_opposite(pool, tmp_path):
    np.save(tmp_path / "t.npy", -np.load(open_pool(pool).shards[0].npz.path)["l14_img"][:5])
    table = ScoreTable.open(score(pool, tmp_path / "run", targets={"t": tmp_path / "t.npy"}, batch_size=16))
    found = nearest_targets(table, "t", vector_of(table, 3))
    assert found.rows[0] == 3
    assert found.similarity[0] == pytest.approx(-1, abs=1e-3)


def test_nearest_targets__of_a_uid_list_are_pairs_of_the_run(table, tmp_path):
    chosen = np.array([4, 44, 110])
    uids.write_subset(tmp_path / "picked.npy", uids.sort(table.uids_at(chosen)))
    run = score(table.run.pool_address, tmp_path / "again", targets={"mine": tmp_path / "picked.npy"}, batch_size=16)
    again = ScoreTable.open(run)
    found = nearest_targets(again, "mine", vector_of(again, 44))
    assert found.pairs
    assert sorted(found.rows) == chosen.tolist()
    assert found.rows[0] == 44


def test_nearest_targets__say_what_is_wrong_with_the_file(table, tmp_path):
    query = vector_of(table, 0)
    with pytest.raises(RunError, match="one of the targets task"):
        nearest_targets(table, "other", query)
    np.save(tmp_path / "task.npy", unit_rows(9, 16))
    with pytest.raises(TargetError, match="as was scored"):
        nearest_targets(table, "task", query)
    (tmp_path / "task.npy").unlink()
    with pytest.raises(TargetError, match="no such file"):
        nearest_targets(table, "task", query)


def test_neighbours__of_the_demo_are_as_like_as_numpy_says():
    table = ScoreTable.open(Run.open(DEMO))
    images = PoolVectors(table).read().astype(np.float64)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    found = neighbours(table, 1600, limit=5)
    cosines = images @ images[1600]
    cosines[1600] = -1
    np.testing.assert_allclose(found.similarity, np.sort(cosines)[::-1][:5], atol=3e-7)
