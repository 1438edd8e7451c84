"""What is the truth? Every metric straight from its formula, in float64, forming whole matrices.

Plain numpy, nothing shared with the code under test. N pairs, D dimensions, M targets.
"""

from __future__ import annotations

import numpy as np


def clip_score(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """(N,): x_i . y_i."""
    return np.einsum("nd,nd->n", image.astype(np.float64), text.astype(np.float64))


def log_sum_exp(values: np.ndarray, axis: int) -> np.ndarray:
    """log sum exp along an axis, relative to its maximum."""
    top = values.max(axis, keepdims=True)
    return np.log(np.exp(values - top).sum(axis)) + top.squeeze(axis)


def batch_normalizer(image: np.ndarray, text: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """r_image and r_text, (N,) each, of pairs that are one batch."""
    logits = image.astype(np.float64) @ text.astype(np.float64).T / temperature
    return temperature / 2 * log_sum_exp(logits, 1), temperature / 2 * log_sum_exp(logits, 0)


def normalizer(
    image: np.ndarray, text: np.ndarray, temperature: float, divisions: list[list[np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """r_image, r_text and the standard error of their sum, (N,) each, for divisions given as lists of batches."""
    halves = np.empty((len(divisions), 2, len(image)))
    for k, batches in enumerate(divisions):
        for batch in batches:
            halves[k][:, batch] = batch_normalizer(image[batch], text[batch], temperature)
    spread = halves.sum(1).std(0, ddof=1) if len(divisions) > 1 else np.zeros(len(image))
    return halves[:, 0].mean(0), halves[:, 1].mean(0), spread / np.sqrt(len(divisions))


def s_cliploss(
    image: np.ndarray, text: np.ndarray, temperature: float, divisions: list[list[np.ndarray]]
) -> np.ndarray:
    """(N,): CLIPScore less both halves of the normalizer."""
    r_image, r_text, _ = normalizer(image, text, temperature, divisions)
    return clip_score(image, text) - r_image - r_text


def normsim(image: np.ndarray, target: np.ndarray, p: float) -> np.ndarray:
    """(N,): the p-norm of each image's cosines with the target."""
    return np.linalg.norm(image.astype(np.float64) @ target.astype(np.float64).T, ord=p, axis=1)


def keep_top(scores: np.ndarray, k: int) -> np.ndarray:
    """(k,): the rows of the k highest scores, ascending; equal scores by row."""
    return np.sort(np.argsort(-scores, kind="stable")[:k])


def normsim_2d(image: np.ndarray, pool: np.ndarray, *, keep: int, rounds: int, order: np.ndarray) -> np.ndarray:
    """(N,): how many pairs fall out before each; N - keep for those that remain. Of equal images one value is taken."""
    distinct, which = np.unique(image.astype(np.float64), axis=0, return_inverse=True)
    left, place = np.arange(len(image)), np.full(len(image), len(image) - keep)
    per_round, moment = -(-(len(image) - keep) // rounds), pool.astype(np.float64).T @ pool.astype(np.float64)
    while len(left) > keep:
        values = np.einsum("nd,nd->n", distinct @ moment, distinct)[which[left]]
        drop = left[np.lexsort((-order[left], values))][: min(per_round, len(left) - keep)]
        place[drop] = len(image) - len(left) + np.arange(len(drop))
        left = np.setdiff1d(left, drop)
        moment = distinct[which[left]].T @ distinct[which[left]]
    return place
