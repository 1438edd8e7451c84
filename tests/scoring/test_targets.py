"""Which embeddings are taken as a target, and how they are made unit length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipsel_core.errors import TargetError
from clipsel_core.scoring.normsim import prepare_target


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_prepare_target__leaves_unit_rows_alone(rows, dtype):
    target = torch.from_numpy(rows(9000, 64, 1, dtype))
    found, scaled = prepare_target(target, name="task", width=64)
    assert found is target
    assert scaled == 0


def test_prepare_target__scales_rows_that_are_a_little_off(rows):
    exact = rows(50, 16, 1)
    off = exact.copy()
    off[7] *= 1.008
    found, scaled = prepare_target(torch.from_numpy(off), name="task", width=16)
    np.testing.assert_allclose(found.numpy(), exact, atol=1e-6)
    assert scaled == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_prepare_target__scales_rows_of_any_length(rows, dtype):
    exact = rows(50, 16, 1)
    found, scaled = prepare_target(torch.from_numpy((exact * 11).astype(dtype)), name="task", width=16)
    np.testing.assert_allclose(found.numpy(), exact, atol=1e-3)
    assert scaled == 50


@pytest.mark.parametrize(("value", "found"), [(0.0, "0"), (np.nan, "nan"), (np.inf, "inf")])
def test_prepare_target__refuses_rows_without_a_length(rows, value, found):
    target = rows(50, 16, 1)
    target[12] *= value
    with pytest.raises(TargetError, match=rf"target task, row 12: expected a row with a length, found {found}"):
        prepare_target(torch.from_numpy(target), name="task", width=16)
    where = lambda row: f"b.pt, row {row - 10}"  # noqa: E731
    with pytest.raises(TargetError, match=rf"^b.pt, row 2: expected a row with a length, found {found}"):
        prepare_target(torch.from_numpy(target), name="task", width=16, where=where)


def test_prepare_target__refuses_other_shapes_and_kinds(rows):
    target = torch.from_numpy(rows(5, 16, 1))
    with pytest.raises(TargetError, match="expected width 32, as the pool's, found 16"):
        prepare_target(target, name="task", width=32)
    with pytest.raises(TargetError, match="at least one row"):
        prepare_target(target[:0], name="task", width=16)
    with pytest.raises(TargetError, match="int64"):
        prepare_target(torch.ones(5, 16, dtype=torch.int64), name="task", width=16)


def test_prepare_target__rounds_float64(rows):
    target = torch.from_numpy(rows(5, 16, 1, np.float64))
    assert prepare_target(target, name="task", width=16)[0].dtype == torch.float32
