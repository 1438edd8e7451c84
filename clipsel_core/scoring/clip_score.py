"""How well does a caption fit its own image?"""

from __future__ import annotations

import torch
from torch import Tensor

from clipsel_core.scoring.checks import check_pairs
from clipsel_core.scoring.threads import for_each

_CPU_BLOCK = 256  # rows whose float64 copies a core's cache holds
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
    rows = _CPU_BLOCK if image.device.type == "cpu" else _BLOCK

    def score(i: int, scratch: Tensor) -> None:
        block = slice(i * rows, (i + 1) * rows)
        out[block] = (image[block].double() * text[block].to(image.device).double()).sum(1)

    for_each(score, -(-len(image) // rows), device=image.device)
    return out
