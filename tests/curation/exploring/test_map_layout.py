"""Maps: the same each time, of the sample asked for, for samples of any size; the graph is that of umap-learn."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core.curation.exploring import map_layout
from clipsel_core.curation.exploring.map_layout import edges_of, lay_out_few, project
from clipsel_core.curation.exploring.projection import read_projection
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import RunError
from clipsel_core.pool.layout import open_pool
from clipsel_core.tasks import silent
from tests.conftest import rewrite_npz
from tests.curation.exploring.test_projection import pool_and_run


def images_of(rows: int, width: int = 24) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, width)).astype(np.float32)


def test_edges_of__are_those_of_umap_learn():
    from sklearn.metrics import pairwise_distances
    from umap.umap_ import fuzzy_simplicial_set

    images = images_of(150)
    distances = pairwise_distances(images, metric="cosine")
    near = np.argsort(distances, 1, "stable")[:, :15]
    given = {"knn_indices": near, "knn_dists": np.take_along_axis(distances, near, 1)}
    graph = fuzzy_simplicial_set(images, 15, np.random.RandomState(0), "cosine", **given)[0].toarray()
    found = np.zeros_like(graph)
    head, tail, weights = edges_of(images, 15)
    found[head, tail] = weights
    np.testing.assert_allclose(found, graph, atol=1e-3)


def test_edges_of__equals_are_linked_for_certain():
    images = images_of(60)
    images[:3] = images[0]
    head, tail, weights = edges_of(images, 15)
    of = {(one, other): weight for one, other, weight in zip(head.tolist(), tail.tolist(), weights, strict=True)}
    assert [of[pair] for pair in ((0, 1), (1, 0), (0, 2), (1, 2))] == pytest.approx([1] * 4, abs=1e-3)
    assert all(of[other, one] == weight for (one, other), weight in of.items())


def test_lay_out_few__keeps_neighbours_together():
    from sklearn.manifold import trustworthiness

    rng = np.random.default_rng(5)
    images = (4 * np.eye(24)[rng.integers(0, 6, 240)] + rng.standard_normal((240, 24))).astype(np.float32)
    places = lay_out_few(images, 15, 0, silent)
    assert places.dtype == np.float32
    assert trustworthiness(images, places, n_neighbors=10, metric="cosine") > 0.8
    shuffled = places[rng.permutation(240)]
    assert trustworthiness(images, shuffled, n_neighbors=10, metric="cosine") < 0.6


def test_lay_out_few__is_the_same_for_a_seed():
    images, told = images_of(40), []
    first = lay_out_few(images, 15, 3, lambda done, total, *_: told.append((done, total)))
    assert np.array_equal(lay_out_few(images, 15, 3, silent), first)
    assert not np.array_equal(lay_out_few(images, 15, 4, silent), first)
    assert told == [(done, 500) for done in range(1, 501)]


@pytest.mark.parametrize(("rows", "width"), [(4, 1), (4, 3), (17, 40), (60, 2)])
def test_lay_out_few__of_few_rows_and_narrow_ones(rows, width):
    places = lay_out_few(images_of(rows, width), min(15, rows - 1), 0, silent)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == rows


def test_lay_out_few__of_equal_images_is_finite():
    assert np.isfinite(lay_out_few(np.ones((30, 5), np.float32), 15, 0, silent)).all()


@pytest.mark.parametrize("few", [0, 3_000])
def test_project__is_the_same_each_time_and_separates_clusters(tmp_path, monkeypatch, few):
    monkeypatch.setattr(map_layout, "_FEW", few)
    run, told = pool_and_run(tmp_path, [60, 41], nan_rows=(4, 7)), []
    first = project(run, report=lambda done, total, _unit, stage: told.append((done / total, stage))).read_bytes()
    assert project(run).read_bytes() == first
    found = read_projection(run)
    assert len(found.rows) == 99
    assert found.rows.tolist() == sorted(set(range(101)) - {4, 7})
    table = ScoreTable.open(run)
    even = table.files.place_in_shard(found.rows) % 2 == 0
    places = np.stack([found.x, found.y], 1)
    centres = places[even].mean(0), places[~even].mean(0)
    own = np.linalg.norm(places - np.where(even[:, None], *centres), axis=1)
    other = np.linalg.norm(places - np.where(even[:, None], centres[1], centres[0]), axis=1)
    assert (own < other).mean() > 0.95
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert {"reading embeddings", "finding neighbours", "laying out", "done"} <= {stage for _, stage in told}


def test_project__draws_the_sample_from_the_seed(tmp_path):
    run = pool_and_run(tmp_path, [70, 50])
    drawn = {}
    for seed in (0, 0, 1):
        project(run, sample=20, seed=seed)
        found = read_projection(run)
        assert len(found.rows) == 20
        drawn.setdefault(seed, found.rows.tolist())
        assert drawn[seed] == found.rows.tolist()
    assert drawn[0] != drawn[1]
    assert found.settings["sample"] == 20
    assert found.settings["seed"] == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17])
def test_project__lays_out_small_pools(tmp_path, size):
    run = pool_and_run(tmp_path, [size])
    project(run)
    found = read_projection(run)
    assert found.rows.tolist() == list(range(size))
    assert np.isfinite(found.x).all()
    assert np.isfinite(found.y).all()
    assert len({*zip(found.x, found.y, strict=True)}) == size


def test_project__lays_out_images_that_are_all_the_same(tmp_path):
    run = pool_and_run(tmp_path, [30])
    rewrite_npz(open_pool(run.pool_address).shards[0].npz.path, l14_img=np.full((30, 16), 0.25, np.float16))
    project(run)
    assert np.isfinite(read_projection(run).x).all()


def test_project__leaves_out_images_that_cannot_be_laid_out(tmp_path):
    run = pool_and_run(tmp_path, [30])
    images = np.full((30, 16), 0.25, np.float16)
    images[3], images[7, 2], images[9, 0] = 0, np.nan, np.inf
    rewrite_npz(open_pool(run.pool_address).shards[0].npz.path, l14_img=images)
    project(run)
    found = read_projection(run)
    assert found.rows.tolist() == sorted(set(range(30)) - {3, 7, 9})
    assert found.settings["pairs"] == 27


def test_project__writes_uids_and_coordinates(tmp_path):
    run = pool_and_run(tmp_path, [3])
    schema = pq.read_schema(project(run))
    assert [(field.name, str(field.type)) for field in schema] == [
        ("uid_hi", "uint64"),
        ("uid_lo", "uint64"),
        ("x", "float"),
        ("y", "float"),
    ]


@pytest.mark.parametrize("sample", [0, -1])
def test_project__refuses_no_sample(tmp_path, sample):
    with pytest.raises(RunError, match="a sample of 1 or more"):
        project(pool_and_run(tmp_path, [3]), sample=sample)


def test_project__refuses_when_all_were_set_aside(tmp_path):
    with pytest.raises(RunError, match="all were set aside"):
        project(pool_and_run(tmp_path, [2], nan_rows=(0, 1)))
