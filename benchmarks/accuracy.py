"""How far are the scores from their float64 formulas, on 20,000 CLIP-like pairs?"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.pools import clip_like_pairs
from benchmarks.table import Row, at_least, at_most
from clipsel_core.errors import ScoringError
from clipsel_core.scoring.checks import check_precision
from clipsel_core.scoring.normsim import metric_name, normsim
from clipsel_core.scoring.s_cliploss import clip_score, division, normalizer, s_cliploss
from tests import reference

PAIRS, BATCH, DIVISIONS, TARGETS, TEMPERATURE = 20_000, 10_000, 2, 5_000, 0.01
OPTIONS = {"batch_size": BATCH, "seed": 0, "name": "00000000"}


def measure() -> list[Row]:
    """Rows for the normalizer, both NormSims and the top 30 %."""
    image, text = clip_like_pairs(PAIRS, seed=3)
    target = clip_like_pairs(TARGETS, seed=4)[0]
    x, y = torch.from_numpy(image), torch.from_numpy(text)
    divisions = [list(division(PAIRS, index=index, **OPTIONS)) for index in range(DIVISIONS)]
    r = normalizer(x, y, temperature=TEMPERATURE, divisions=DIVISIONS, **OPTIONS)
    true_image, true_text, _ = reference.normalizer(image, text, TEMPERATURE, divisions)
    found = r.r_image.double().numpy() + r.r_text.double().numpy()
    own = clip_score(x, y)
    true_own = reference.clip_score(image, text)
    truth = true_own - true_image - true_text
    return [
        at_most("largest error of r_image + r_text", float(np.abs(found - true_image - true_text).max()), 2e-6),
        at_most("largest error of CLIPScore", float(np.abs(own.numpy() - true_own).max()), 1e-6),
        *(_normsim_row(image, target, p) for p in (2.0, np.inf)),
        _top_row(s_cliploss(own, r).numpy(), truth),
        *_rounded_rows(x, y, s_cliploss(own, r).numpy()),
    ]


def _rounded_rows(image: torch.Tensor, text: torch.Tensor, exact: np.ndarray) -> list[Row]:
    """What precision bf16 costs, where this machine has it."""
    try:
        check_precision("bf16", "cpu")
    except ScoringError:
        return []
    r = normalizer(image, text, temperature=TEMPERATURE, divisions=DIVISIONS, precision="bf16", **OPTIONS)
    found = s_cliploss(clip_score(image, text), r).numpy()
    k = 3 * len(exact) // 10
    kept, expected = (set(reference.keep_top(scores, k).tolist()) for scores in (found, exact))
    return [
        Row("bf16, largest difference of s-CLIPLoss from exact", f"{np.abs(found - exact).max():.1e}"),
        at_least("bf16, top 30 % by s-CLIPLoss in common with exact", len(kept & expected) / k, 0.999, digits=4),
    ]


def _normsim_row(image: np.ndarray, target: np.ndarray, p: float) -> Row:
    truth = reference.normsim(image, target, p)
    found = normsim(torch.from_numpy(image), torch.from_numpy(target), p=p).numpy()
    name = metric_name(p, "").rstrip("_")
    return at_most(f"largest relative error of {name}", float((np.abs(found - truth) / truth).max()), 2e-6)


def _top_row(found: np.ndarray, truth: np.ndarray) -> Row:
    """Pairs that only one side keeps, and whether each of them ties with the threshold within the error to hold."""
    k = 3 * len(truth) // 10
    kept, expected = (set(reference.keep_top(scores, k).tolist()) for scores in (found, truth))
    threshold = np.sort(truth)[-k]
    differing = kept ^ expected
    tied = all(abs(truth[row] - threshold) <= 2e-6 for row in differing)
    share = len(kept & expected) / k
    measured = f"{share:.5f}, {len(differing)} pairs differ"
    return Row("top 30 % by s-CLIPLoss in common", measured, ">= 0.9999, 1 but for ties", tied and share >= 0.9999)
