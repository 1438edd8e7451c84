"""What is worked out of an index once, where is it found again? In a file beside it, which anything may delete."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clipsel_core.curation.index.saving import is_as_saved, load, save
from clipsel_core.files import write_atomically

_log = logging.getLogger(__name__)


def kept(file: Path | None, shape: tuple[int, ...], dtype: type, find: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in a file, else what `find` finds, which is then kept there if that is possible.

    file: None where nothing is kept. shape, dtype: of the array; what has others, or is damaged, is found anew.
    """
    if file is None:
        return find()
    try:
        array = load(file)
        if array.shape == shape and array.dtype == dtype and is_as_saved(file, array):
            return array
    except (OSError, ValueError):
        _log.debug("found anew: no %s", file)
    found = find()
    if file.parent.is_dir():
        try:
            write_atomically(file, lambda aside: save(aside, found))
        except OSError as error:
            _log.warning("%s cannot be kept: %s", file, error)
    return found
