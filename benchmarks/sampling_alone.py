"""Draws as many samples as there are scores in a .npy, in one way, for a process of its own.

python -m benchmarks.sampling_alone SCORES.npy soft_cap
"""

from __future__ import annotations

import sys

import numpy as np

from clipsel_core.curation.selecting import sampling


def draw(scores: np.ndarray, method: str) -> np.ndarray:
    """Draws with the options of the benchmark."""
    if method == "soft_cap":
        return sampling.soft_cap(scores, len(scores), seed=0)
    if method == "hard_cap":
        return sampling.hard_cap(scores, len(scores), limit=20, seed=0)
    weights = np.array(scores)
    return sampling.proportional(np.exp(weights, out=weights), len(scores), seed=0)


if __name__ == "__main__":
    draw(np.load(sys.argv[1], mmap_mode="r"), sys.argv[2])
