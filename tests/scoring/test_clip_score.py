"""CLIPScore against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsel_core.errors import ScoringError
from clipsel_core.scoring.clip_score import clip_score
from tests import reference


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
