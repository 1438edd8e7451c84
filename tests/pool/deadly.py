"""A way to take pictures that some do not survive. Apart, so that a worker that starts for it imports nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Deadly:
    """Takes a picture's corner, and ends the process where the picture is of one size."""

    shape = (2, 2, 3)

    def __call__(self, picture: Image.Image, _: object) -> np.ndarray:
        if picture.size == (7, 7):
            os._exit(9)
        return np.array(picture)[:2, :2]
