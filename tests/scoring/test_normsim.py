"""NormSim against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.pools import clip_like_pairs
from clipsel_core.errors import ScoringError
from clipsel_core.scoring.normsim import (
    _two_norm_in_float32,
    metric_name,
    normsim,
    normsim_2,
    parse_norm,
    second_moment,
)
from tests import reference


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, np.inf])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 3), (252, 507), (2049, 1), (1, 2049)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_normsim__against_float64(rows, n, m, p, dtype):
    image, target = rows(n, 40, 1, dtype), rows(m, 40, 2, dtype)
    found = normsim(torch.from_numpy(image), torch.from_numpy(target), p=p)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(
        found.numpy(), reference.normsim(image, target, p), rtol=2e-6, atol=0 if p == 2 else 1e-7
    )


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, np.inf])
@pytest.mark.parametrize("m", [1, 20, 64, 65])
def test_normsim__a_few_targets_against_float64(p, m):
    """Up to 64 targets take a way of their own: blocks of 512 images, the last one ragged."""
    image, target = clip_like_pairs(1500, seed=1)[0], clip_like_pairs(m, seed=2)[0]
    found = normsim(torch.from_numpy(image), torch.from_numpy(target), p=p).numpy()
    np.testing.assert_allclose(found, reference.normsim(image, target, p), rtol=2e-6, atol=0 if p == 2 else 1e-7)


def test_normsim__a_few_targets_none_near():
    """Cosines of 0 with all targets, and products of 1e-13 whose powers would underflow."""
    image = torch.eye(3)
    target = torch.tensor([[0.0, 1.0, 1e-13], [0.0, 1.0, -1e-13]])
    for p, many in ((2.0, 2**0.5), (4.0, 2**0.25), (float("inf"), 1.0)):
        assert normsim(image, target, p=p).tolist() == pytest.approx([0.0, many, many * 1e-13], rel=1e-6)


@pytest.mark.parametrize("p", [2.0, np.inf])
def test_normsim__a_few_targets_same_bits_on_any_number_of_cores(p):
    image, target = (torch.from_numpy(clip_like_pairs(n, width=256, seed=n)[0]) for n in (3000, 20))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            found.append(normsim(image, target, p=p))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


@pytest.mark.parametrize("p", [2.0, np.inf])
def test_normsim__clip_like_pairs(p):
    image, target = clip_like_pairs(3000, width=256, seed=1)[0], clip_like_pairs(1300, width=256, seed=2)[0]
    found = normsim(torch.from_numpy(image), torch.from_numpy(target), p=p).numpy()
    np.testing.assert_allclose(found, reference.normsim(image, target, p), rtol=2e-6)


def test_normsim__by_hand():
    image, target = torch.eye(2), torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    assert normsim(image, target, p=float("inf")).tolist() == pytest.approx([0.8, 0.8])
    assert normsim(image, target, p=2).tolist() == pytest.approx([1.0, 1.0])
    assert normsim(image, target, p=1).tolist() == pytest.approx([1.4, 1.4])


@pytest.mark.parametrize("p", [2.0, 3.0, np.inf])
def test_normsim__each_image_on_its_own(rows, p):
    image, target = rows(100, 16, 1), torch.from_numpy(rows(70, 16, 2))
    order = np.random.default_rng(0).permutation(100)
    whole = normsim(torch.from_numpy(image), target, p=p)
    moved = normsim(torch.from_numpy(image[order]), target, p=p)
    parts = torch.cat([normsim(part, target, p=p) for part in torch.from_numpy(image).split(33)])
    assert torch.allclose(whole[order], moved, rtol=1e-6)
    assert torch.allclose(whole, parts, rtol=1e-6)


def test_normsim_2__from_a_kept_second_moment(rows):
    image, target = torch.from_numpy(rows(5000, 16, 1)), torch.from_numpy(rows(4999, 16, 2, np.float16))
    moment = second_moment(target)
    exact = target.double().T @ target.double()
    assert moment.dtype == torch.float64
    # Two ways to add up 4999 products of at most 1 in float64; in float32 they would be 1e-4 apart.
    assert torch.allclose(moment, exact, rtol=0, atol=1e-9)
    assert torch.equal(normsim_2(image, moment), normsim(image, target, p=2))


def test_normsim_2__rounding_below_zero_is_zero():
    moment = torch.diag(torch.tensor([-1e-20, 1.0], dtype=torch.float64))
    assert normsim_2(torch.eye(2), moment).tolist() == [0.0, 1.0]


def test_normsim_2__same_bits_on_any_number_of_cores(rows):
    image, target = torch.from_numpy(rows(5000, 16, 1)), torch.from_numpy(rows(4999, 16, 2))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            moment = second_moment(target)
            found.append((moment, normsim_2(image, moment)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("p", [2.0, 3.0, np.inf])
def test_normsim__progress_adds_up(rows, p):
    told = []
    x, t = torch.from_numpy(rows(300, 8, 1)), torch.from_numpy(rows(5, 8, 2))
    normsim(x, t, p=p, report=lambda *said: told.append(said))
    assert told[-1] == (300, 300, "pairs")


@pytest.mark.parametrize("p", [2.0, 3.0, np.inf])
@pytest.mark.parametrize("side", ["image", "target"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_normsim__names_the_row_that_is_not_finite(rows, p, side, value):
    sets = {"image": rows(30, 8, 1), "target": rows(20, 8, 2)}
    sets[side][11, 3] = value
    with pytest.raises(ScoringError, match=f"{side}, row 11: expected finite numbers"):
        normsim(torch.from_numpy(sets["image"]), torch.from_numpy(sets["target"]), p=p)


def test_normsim__refuses_bad_arguments():
    image = torch.ones(3, 4)
    for p in (0.9, -1, float("nan")):
        with pytest.raises(ScoringError, match="p: expected"):
            normsim(image, image, p=p)
    with pytest.raises(ScoringError, match="width"):
        normsim(image, torch.ones(3, 5), p=2)
    with pytest.raises(ScoringError, match=r"\(4, 4\) float64"):
        normsim_2(image, torch.eye(4))


@pytest.mark.parametrize(
    ("text", "p", "name"), [("inf", np.inf, "inf"), ("2", 2.0, "2"), ("2.0", 2.0, "2"), ("1.5", 1.5, "1.5")]
)
def test_metric_name__of_every_norm(text, p, name):
    assert parse_norm(text) == p
    assert metric_name(parse_norm(text), "imagenet") == f"normsim_{name}_imagenet"


@pytest.mark.parametrize("text", ["", "two", "0.5", "nan", "-inf"])
def test_parse_norm__refuses(text):
    with pytest.raises(ScoringError, match="norm: expected"):
        parse_norm(text)


@pytest.mark.parametrize("m", [3, 30, 2000])
def test_normsim_2__in_float32_as_on_a_gpu(m):
    """Images like the target, and some nearly at right angles to it, whose products cancel."""
    image, target = clip_like_pairs(300, width=64, seed=1)[0], clip_like_pairs(m, width=64, seed=2)[0]
    image = image.astype(np.float32)
    mean = target.astype(np.float64).mean(0)
    image[:100] -= 0.99 * ((image[:100] @ mean) / (mean @ mean))[:, None] * mean
    image[:100] /= np.linalg.norm(image[:100], axis=1, keepdims=True)
    moment = second_moment(torch.from_numpy(target))
    found = _two_norm_in_float32(torch.from_numpy(image), moment).numpy()
    truth = np.sqrt(np.einsum("nd,de,ne->n", *(part.astype(np.float64) for part in (image, moment.numpy(), image))))
    assert (truth < 0.1 * np.sqrt(m)).any()
    np.testing.assert_allclose(found, truth, rtol=2e-6)
