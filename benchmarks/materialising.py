"""How is the normalizer computed when the B x B matrix is formed, as the paper's published code does?

Written for this comparison, as well as that way allows: float32 throughout, one matrix, every step after the product
in place, all cores.
"""

from __future__ import annotations

import torch
from torch import Tensor


def batch_normalizer(image: Tensor, text: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """r_image and r_text of one batch: (B, D) float32 twice to (B,) float32 twice. Overflows at a cosine of 0.887."""
    e = torch.mm(image, text.T).div_(temperature).exp_()
    return e.sum(1).log_().mul_(temperature / 2), e.sum(0).log_().mul_(temperature / 2)
