"""Do processes see the same pixels, and does nothing of them stay?"""

from __future__ import annotations

import gc
import multiprocessing
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from clipsel_core.pool.making import slots as module
from clipsel_core.pool.making.slots import Slots
from tests.pool.deadly import fill
from tests.waiting import PATIENCE_S


def files():
    """How many files in memory this process holds open; threads of others open and close other files meanwhile."""
    held = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            held += os.readlink(file).startswith("/memfd:")
    return held


@pytest.mark.parametrize("named", [False, True])
def test_slots__what_a_process_writes_is_here(monkeypatch, named):
    if named:
        # As on systems without files in memory.
        monkeypatch.delattr(module.os, "memfd_create")
    slots = Slots(5, (2, 3, 3))
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=fill, args=(slots, 3))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert np.array_equal(slots[3].ravel(), np.arange(18))
    assert not slots[2].any()
    slots.close()


def test_slots__each_is_taken_by_one():
    slots = Slots(3, (1, 1, 3))
    taken = [slots.take() for _ in range(3)]
    assert sorted(taken) == [0, 1, 2]
    with pytest.raises(IndexError):
        slots.take()
    slots.give_back(taken[:2])
    assert slots.take() == taken[1]
    slots.close()


def test_slots__nothing_stays():
    before = files()
    for _ in range(3):
        slots = Slots(1000, (64, 64, 3))
        slots[999][...] = 1
        slots.close()
    del slots
    gc.collect()
    assert files() <= before


def test_slots__encoded_pictures_lie_beside_the_pixels():
    slots = Slots(3, (2, 3, 3))
    slots[1][...] = 7
    large = bytes(range(256)) * 1024
    assert slots.lend(1, b"encoded")
    assert slots.lend(2, large)
    assert (slots.lent(1, 7), slots.lent(2, len(large))) == (b"encoded", large)
    assert (slots[1] == 7).all()
    assert not slots.lend(0, large + b"1")
    slots.close()
