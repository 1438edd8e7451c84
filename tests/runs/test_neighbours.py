"""The neighbours of a target's images are those that sorting all cosines in float64 finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsel_core.errors import ScoringError, TargetError
from clipsel_core.runs import whole_pool
from clipsel_core.runs.local import score
from clipsel_core.runs.whole_pool import neighbour_ranks
from tests.conftest import unit_rows
from tests.runs.test_dynamic import OPTIONS, images_of


def expected_of(image: np.ndarray, target: np.ndarray, most: int, usable: np.ndarray | None = None) -> np.ndarray:
    """By sorting: (N,) float64."""
    cosines = target.astype(np.float64) @ image.T
    if usable is not None:
        cosines[:, ~usable] = -np.inf
    places = np.argsort(np.argsort(-cosines, axis=1, kind="stable"), axis=1) + 1.0
    best = places.min(0)
    return np.where((best <= most) & (True if usable is None else usable), best, np.nan)


@pytest.mark.parametrize("most", [1, 7, 500])
def test_neighbour_ranks__equal_those_of_sorted_cosines(pool, tmp_path, monkeypatch, most):
    monkeypatch.setattr(whole_pool, "_READ_AT_ONCE", 16)
    monkeypatch.setattr(whole_pool, "_TILE", 8)
    run, told = score(pool, tmp_path / "run", **OPTIONS), []
    target = unit_rows(20, 16, 3)
    found = neighbour_ranks(run, torch.from_numpy(target), most=most, report=lambda done, *_: told.append(done))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected_of(images_of(pool), target, most))
    assert told == sorted(told)
    assert told[-1] == run.config.pairs


def test_neighbour_ranks__pairs_that_were_set_aside_are_nobodys_neighbours(pool, tmp_path):
    npz = min((pool / "metadata").glob("*.npz"))
    arrays = dict(np.load(npz))
    arrays["l14_img"][3] = np.nan
    np.savez(npz, **arrays)
    run = score(pool, tmp_path / "run", on_bad_rows="skip", **OPTIONS)
    target = unit_rows(20, 16, 3)
    image = images_of(pool)
    usable = ~np.isnan(image).any(1)
    found = neighbour_ranks(run, torch.from_numpy(target), most=40)
    np.testing.assert_array_equal(found, expected_of(np.nan_to_num(image), target, 40, usable))
    assert np.isnan(found[~usable]).all()


def test_neighbour_ranks__wrong_arguments_are_errors(pool, tmp_path):
    run = score(pool, tmp_path / "run", **OPTIONS)
    with pytest.raises(ScoringError, match="neighbours"):
        neighbour_ranks(run, torch.from_numpy(unit_rows(2, 16, 3)), most=0)
    with pytest.raises(TargetError, match="width 16"):
        neighbour_ranks(run, torch.from_numpy(unit_rows(2, 8, 3)))
