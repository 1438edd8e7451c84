"""How is the normalizer computed when the B x B matrix is formed, as the paper's published code does?

Written anew for this comparison, float32 throughout, on all cores or on a GPU: once in the steps of the published code
(`cal_new_clip_score` in baselines/vas2.py of github.com/ypwang61/negCLIPLoss_NormSim, at cc0042f), and once as well as
that way allows, with every step after the product in place. Both overflow once a cosine passes 0.887 at tau = 0.01.
"""

from __future__ import annotations

from torch import Tensor


def step_by_step(image: Tensor, text: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """r_image and r_text of one batch: (B, D) float32 twice to (B,) float32 twice, with three B x B matrices.

    All three are there at once, since the published code takes the CLIPScores from the first at the end.
    """
    products = image @ text.T
    e = (products / temperature).exp()
    products.diagonal()
    return e.sum(1).log() * (temperature / 2), e.sum(0).log() * (temperature / 2)


def in_place(image: Tensor, text: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The same with one B x B matrix."""
    e = (image @ text.T).div_(temperature).exp_()
    return e.sum(1).log_().mul_(temperature / 2), e.sum(0).log_().mul_(temperature / 2)
