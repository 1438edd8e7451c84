"""The normalizer and s-CLIPLoss against float64, their divisions and their seeds."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from benchmarks.pools import clip_like_pairs
from clipsel_core.errors import ScoringError
from clipsel_core.scoring.s_cliploss import Normalizer, clip_score, division, normalizer, s_cliploss
from tests import reference


def normalize(image, text, **options):
    defaults = {"temperature": 0.01, "batch_size": 100, "divisions": 3, "seed": 0, "name": "00000000"}
    return normalizer(torch.from_numpy(image), torch.from_numpy(text), **{**defaults, **options})


def batches(n, batch_size, divisions, seed=0, name="00000000"):
    return [list(division(n, batch_size=batch_size, seed=seed, name=name, index=index)) for index in range(divisions)]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("n", "batch_size"), [(1, 1), (2, 1), (3, 2), (252, 100), (507, 507), (1025, 512), (600, 9999)]
)
def test_normalizer__against_float64(rows, n, batch_size, dtype):
    image, text = rows(n, 32, 1, dtype, 0.3), rows(n, 32, 2, dtype, 0.3)
    found = normalize(image, text, batch_size=batch_size)
    expected = reference.normalizer(image, text, 0.01, batches(n, batch_size, 3))
    for part, truth in zip(found, expected, strict=True):
        assert part.dtype == torch.float32
        assert part.shape == (n,)
        assert np.abs(part.numpy() - truth).max() < 5e-7


def test_normalizer__clip_like_pairs_and_what_is_kept():
    image, text = clip_like_pairs(3000, width=256, seed=1)
    found = normalize(image, text, batch_size=1500, divisions=4)
    divisions = batches(3000, 1500, 4)
    r_image, r_text, _ = reference.normalizer(image, text, 0.01, divisions)
    assert np.abs((found.r_image.double() + found.r_text.double()).numpy() - r_image - r_text).max() < 1e-6
    score = s_cliploss(clip_score(torch.from_numpy(image), torch.from_numpy(text)), found).numpy()
    truth = reference.s_cliploss(image, text, 0.01, divisions)
    kept, expected = (set(reference.keep_top(values, 900)) for values in (score, truth))
    threshold = np.sort(truth)[-900]
    assert all(abs(truth[row] - threshold) < 1e-6 for row in kept ^ expected)


def test_normalizer__one_pair_is_half_its_cosine(rows):
    image, text = rows(4, 8, 1), rows(4, 8, 2)
    found = normalize(image, text, batch_size=1)
    half = reference.clip_score(image, text) / 2
    np.testing.assert_allclose(found.r_image.numpy(), half, atol=1e-7)
    np.testing.assert_allclose(found.r_text.numpy(), half, atol=1e-7)
    assert found.standard_error.tolist() == pytest.approx([0.0] * 4, abs=1e-12)


def test_normalizer__by_hand():
    """Two orthogonal pairs at tau = 1: each sum is e + 1."""
    found = normalize(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), temperature=1.0)
    assert found.r_image.tolist() == pytest.approx([np.log(np.e + 1) / 2] * 2)


def test_normalizer__one_batch_does_not_depend_on_order_seed_or_divisions(rows):
    image, text = rows(300, 24, 1, centre=0.2), rows(300, 24, 2, centre=0.2)
    order = np.random.default_rng(0).permutation(300)
    plain = normalize(image, text, batch_size=300)
    moved = normalize(image[order], text[order], batch_size=4000, divisions=7, seed=5)
    for a, b in zip(plain, moved, strict=True):
        assert torch.allclose(a[order], b, atol=3e-7)
    assert not plain.standard_error.any()


def test_normalizer__same_bits_on_any_number_of_cores(rows):
    image, text = rows(900, 24, 1, centre=0.2), rows(900, 24, 2, centre=0.2)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            found.append(normalize(image, text, batch_size=400))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_normalizer__seed_and_name_decide(rows):
    image, text = rows(300, 24, 1, centre=0.2), rows(300, 24, 2, centre=0.2)
    first, again = normalize(image, text), normalize(image, text)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.r_image, normalize(image, text, seed=1).r_image)
    assert not torch.equal(first.r_image, normalize(image, text, name="00000001").r_image)


def test_normalizer__progress_adds_up_and_can_cancel(rows):
    image, text = rows(250, 8, 1), rows(250, 8, 2)
    told = []
    for batch_size, calls in ((100, 12), (250, 1), (1000, 1)):
        told.clear()
        normalize(image, text, batch_size=batch_size, divisions=4, report=lambda *said: told.append(said))
        assert (len(told), told[-1]) == (calls, (250 * 4, 250 * 4, "pairs"))

    def cancel(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        normalize(image, text, report=cancel)


def test_normalizer__refuses_bad_arguments(rows):
    image, text = rows(5, 8, 1), rows(5, 8, 2)
    for options, message in [
        ({"temperature": 0.0}, "temperature: expected"),
        ({"temperature": float("nan")}, "temperature: expected"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, found 0"),
        ({"divisions": -1}, "divisions: expected"),
        ({"divisions": 2.5}, "divisions: expected"),
        ({"device": "abacus"}, "device abacus: expected"),
    ]:
        with pytest.raises(ScoringError, match=message):
            normalize(image, text, **options)
    with pytest.raises(ScoringError, match="at least one row"):
        normalize(image[:0], text[:0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_normalizer__names_the_row_that_is_not_finite(rows, value):
    image, text = rows(5, 8, 1), rows(5, 8, 2)
    text[3, 2] = value
    with pytest.raises(ScoringError, match="text, row 3: expected finite numbers"):
        normalize(image, text)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (7, 3), (100, 32), (101, 100), (1000, 1), (5, 99)])
def test_division__is_a_partition_into_equal_batches(n, batch_size):
    found = list(division(n, batch_size=batch_size, seed=3, name="a", index=0))
    assert sorted(np.concatenate(found)) == list(range(n))
    assert len(found) == -(-n // batch_size)
    sizes = {len(batch) for batch in found}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_division__is_fixed_for_all_time():
    """Scores of older runs must stay reproducible, whatever the version of numpy."""
    found = np.concatenate(list(division(1000, batch_size=300, seed=0, name="00000000", index=1)))
    assert (
        hashlib.sha256(found.astype("<i8").tobytes()).hexdigest()
        == "0dce589f9f45d6a3f394221b1e3e9a030248d1b840fe48796be1d9dccfcbffa5"
    )


def test_division__is_random_and_each_index_another():
    one, two = (next(division(2000, batch_size=500, seed=0, name="a", index=index)) for index in (0, 1))
    assert not np.array_equal(one, two)
    first = next(division(20000, batch_size=5000, seed=0, name="a", index=0))
    assert abs(np.diff(first).mean() - 4) < 0.1
    assert abs(first.mean() - 10000) < 400


def test_s_cliploss__subtracts_in_float64():
    score = torch.tensor([0.25, 0.3], dtype=torch.float32)
    parts = Normalizer(torch.tensor([0.1, 0.2]), torch.tensor([0.05, 0.1]), torch.zeros(2))
    expected = score.double() - parts.r_image.double() - parts.r_text.double()
    assert torch.equal(s_cliploss(score, parts), expected.float())
    with pytest.raises(ScoringError, match=r"score \(3,\)"):
        s_cliploss(torch.zeros(3), parts)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("n", [1, 2, 507, 8193])
def test_clip_score__against_float64(rows, n, dtype):
    image, text = rows(n, 96, 1, dtype, 0.2), rows(n, 96, 2, dtype, 0.1)
    found = clip_score(torch.from_numpy(image), torch.from_numpy(text))
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - reference.clip_score(image, text)).max() < 5e-8


def test_clip_score__by_hand():
    image = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    assert clip_score(image, text).tolist() == pytest.approx([1.0, 0.6, -1.0])


def test_clip_score__refuses_unequal_shapes():
    with pytest.raises(ScoringError, match=r"image \(3, 4\), text \(2, 4\)"):
        clip_score(torch.ones(3, 4), torch.ones(2, 4))
