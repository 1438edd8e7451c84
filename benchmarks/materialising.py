"""How is the normalizer computed when the B x B matrix is formed, as the paper's published code does?

Written for this comparison, float32 throughout, on all cores: once step by step as the formula reads, and once as well
as that way allows, with every step after the product in place. Both overflow once a cosine passes 0.887 at tau = 0.01.
"""

from __future__ import annotations

from torch import Tensor


def step_by_step(image: Tensor, text: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """r_image and r_text of one batch: (B, D) float32 twice to (B,) float32 twice, with three B x B matrices."""
    logits = image @ text.T / temperature
    e = logits.exp()
    return e.sum(1).log() * (temperature / 2), e.sum(0).log() * (temperature / 2)


def in_place(image: Tensor, text: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The same with one B x B matrix."""
    e = (image @ text.T).div_(temperature).exp_()
    return e.sum(1).log_().mul_(temperature / 2), e.sum(0).log_().mul_(temperature / 2)
