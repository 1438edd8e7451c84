"""How well does a caption fit its own image, and that beyond how well each of them fits everything?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import tiled
from clipsel_core.scoring.checks import (
    check_count,
    check_finite,
    check_pairs,
    check_precision,
    check_temperature,
    usable_device,
)
from clipsel_core.scoring.reductions import log_sum_exp
from clipsel_core.scoring.threads import for_each
from clipsel_core.tasks import Report, silent

_CPU_BLOCK = 256  # rows whose float64 copies a core's cache holds
_BLOCK = 8192


class Normalizer(NamedTuple):
    """What s-CLIPLoss subtracts from the CLIPScore of each pair; (N,) float32 each, in units of cosine.

    r_image: how well the image fits the captions of its batches, the mean over the divisions.
    r_text: how well the caption fits the images of its batches, likewise.
    standard_error: of r_image + r_text as a mean over random divisions; 0 where there was one division.
    """

    r_image: Tensor
    r_text: Tensor
    standard_error: Tensor


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


def s_cliploss(score: Tensor, r: Normalizer) -> Tensor:
    """s-CLIPLoss: the temperature times the negative CLIP loss of each pair. Higher is better.

    s_cliploss_i = clip_score_i - r_image_i - r_text_i, subtracted in float64.
    score: (N,) float32 CLIPScore. r: its pairs' normalizer.
    Returns: (N,) float32, at most about 0 (0 where a pair fits nothing but itself).
    Raises: ScoringError on unequal N.
    Reference: arXiv 2405.19547, section 3.1, equation 2.
    """
    if score.shape != r.r_image.shape or score.shape != r.r_text.shape:
        found = f"score {tuple(score.shape)}, r_image {tuple(r.r_image.shape)}, r_text {tuple(r.r_text.shape)}"
        raise ScoringError("score and normalizer", expected="equal shapes (N,)", found=found)
    return (score.double() - r.r_image.double() - r.r_text.double()).float()


def normalizer(
    image: Tensor,
    text: Tensor,
    *,
    temperature: float,
    batch_size: int,
    divisions: int,
    seed: int,
    name: str,
    device: str | torch.device = "cpu",
    precision: str = "exact",
    report: Report = silent,
) -> Normalizer:
    """The normalizer of s-CLIPLoss: how well each image fits any caption, and each caption any image. Lower is better.

    r_image_i = tau/2 log sum_j exp(x_i . y_j / tau) and r_text_i = tau/2 log sum_j exp(x_j . y_i / tau), over the j of
    the batch that holds i, the mean over random divisions of the N pairs into batches.

    image, text: (N, D), unit rows, float16, bfloat16 or float32; on the CPU, or already on the device.
    temperature: tau of the teacher, 0.001 to 10.
    batch_size: B, the largest a batch may be. Batches are of equal size but for one pair; N <= B means one batch.
    divisions: K, how often the pairs are divided. One batch is the same every time and is computed once.
    seed, name: which divisions; name is the shard's, so that shards can be scored in any order.
    device: where to compute.
    precision: "exact", or "bf16" on a CPU that multiplies bfloat16: 1.7 times as fast, for ranking, see tiled.
    report: told after each batch how many of N * divisions pairs are done.
    Returns: Normalizer, on the CPU, r within [-1/2, 1/2 + tau/2 log(B)]. Bitwise the same on any number
        of cores.
    Raises: ScoringError where an argument does not fit or a row is not finite.
    Reference: arXiv 2405.19547, section 3.1, equation 2 and algorithm 1.
    """
    check_pairs(image, text)
    check_temperature(temperature)
    check_count("batch_size", batch_size)
    check_count("divisions", divisions)
    check_finite("image", image)
    check_finite("text", text)
    device = usable_device(device)
    check_precision(precision, device)
    image, text = image.to(device), text.to(device)

    n = len(image)
    rounds = 1 if n <= batch_size else divisions
    mean, done = _RunningMean(n), 0
    for order in range(rounds):
        halves = np.empty((2, n), np.float64)
        for batch in division(n, batch_size=batch_size, seed=seed, name=name, index=order):
            rows = torch.from_numpy(batch).to(device)
            if precision == "bf16":
                logs = tiled.rounded_log_sum_exp(image[rows], text[rows], temperature=temperature)
            else:
                logs = log_sum_exp(image[rows], text[rows], temperature=temperature)
            halves[:, batch] = 0.5 * temperature * np.stack([log.cpu().numpy() for log in logs])
            done += len(batch) * (divisions // rounds)
            report(done, n * divisions, "pairs")
        mean.add(halves)
    return mean.normalizer()


def division(n: int, *, batch_size: int, seed: int, name: str, index: int) -> Iterator[np.ndarray]:
    """The batches of one random division of n pairs: disjoint, together all pairs, sizes differing by one at most.

    The division is a function of the arguments alone, on every machine and version: the order of n raw 64-bit draws
    of PCG64, seeded with the SHA-256 of seed, name and index. It does not depend on how many divisions are made.
    Yields: ceil(n / batch_size) ascending int64 arrays.
    """
    digest = hashlib.sha256(f"{seed}\n{index}\n{name}".encode()).digest()
    draws = np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest, "big"))).random_raw(n)
    order = np.argsort(draws, kind="stable")
    for batch in np.array_split(order, -(-n // batch_size)):
        yield np.sort(batch)


class _RunningMean:
    """Mean of both halves over divisions and the spread of their sum, one division at a time (Welford)."""

    def __init__(self, n: int) -> None:
        self._count = 0
        self._halves, self._squares = np.zeros((2, n), np.float64), np.zeros(n, np.float64)

    def add(self, halves: np.ndarray) -> None:
        self._count += 1
        before = halves.sum(0) - self._halves.sum(0)
        self._halves += (halves - self._halves) / self._count
        self._squares += before * (halves.sum(0) - self._halves.sum(0))

    def normalizer(self) -> Normalizer:
        variance = self._squares / max(1, self._count - 1)
        error = np.sqrt(np.maximum(variance, 0.0) / self._count)
        parts = (torch.from_numpy(part.astype(np.float32)) for part in (*self._halves, error))
        return Normalizer(*parts)
