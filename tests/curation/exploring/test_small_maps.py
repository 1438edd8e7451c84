"""Small maps: the graph that umap-learn makes of exact neighbours, and places that keep neighbours together."""

from __future__ import annotations

import numpy as np
import pytest

from clipsel_core.curation.exploring.small_maps import edges_of, lay_out
from clipsel_core.tasks import silent


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


def test_lay_out__keeps_neighbours_together():
    from sklearn.manifold import trustworthiness

    rng = np.random.default_rng(5)
    images = (4 * np.eye(24)[rng.integers(0, 6, 240)] + rng.standard_normal((240, 24))).astype(np.float32)
    places = lay_out(images, 15, 0, silent)
    assert places.dtype == np.float32
    assert trustworthiness(images, places, n_neighbors=10, metric="cosine") > 0.8
    shuffled = places[rng.permutation(240)]
    assert trustworthiness(images, shuffled, n_neighbors=10, metric="cosine") < 0.6


def test_lay_out__is_the_same_for_a_seed():
    images, told = images_of(40), []
    first = lay_out(images, 15, 3, lambda done, total, *_: told.append((done, total)))
    assert np.array_equal(lay_out(images, 15, 3, silent), first)
    assert not np.array_equal(lay_out(images, 15, 4, silent), first)
    assert told == [(done, 500) for done in range(1, 501)]


@pytest.mark.parametrize(("rows", "width"), [(4, 1), (4, 3), (17, 40), (60, 2)])
def test_lay_out__of_few_rows_and_narrow_ones(rows, width):
    places = lay_out(images_of(rows, width), min(15, rows - 1), 0, silent)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == rows


def test_lay_out__of_equal_images_is_finite():
    assert np.isfinite(lay_out(np.ones((30, 5), np.float32), 15, 0, silent)).all()
