"""How well does a caption fit its own image?"""

from __future__ import annotations

import torch
from torch import Tensor

from clipsel_core.scoring.checks import check_pairs

_BLOCK = 8192


def clip_score(image: Tensor, text: Tensor) -> Tensor:
    """CLIPScore: the cosine of each image and its own caption. Higher is better.

    clip_score_i = x_i . y_i
    image, text: (N, D), unit rows, float16, bfloat16 or float32.
    Returns: (N,) float32 on the device of image, in [-1, 1]; summed in float64, NaN where a row holds NaN.
    Raises: ScoringError where the shapes differ.
    Reference: arXiv 2405.19547, section 2.
    """
    check_pairs(image, text)
    out = torch.empty(len(image), dtype=torch.float32, device=image.device)
    for start in range(0, len(image), _BLOCK):
        block = slice(start, start + _BLOCK)
        out[block] = (image[block].double() * text[block].to(image.device).double()).sum(1)
    return out
