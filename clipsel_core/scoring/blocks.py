"""What does one Triton program compute? One block of products, reduced before it ever reaches memory.

`kernels` launches these, says how many there are and where their results go.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _products(x, y, n, m, first, second, WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """The block x[first:first+BM] @ y[second:second+BN].T, float32; past the edges the last row repeats."""
    rows = tl.minimum(first + tl.arange(0, BM), n - 1).to(tl.int64)
    columns = tl.minimum(second + tl.arange(0, BN), m - 1).to(tl.int64)
    depth = tl.arange(0, BK)
    x_block = x + rows[:, None] * WIDTH + depth[None, :]
    y_block = y + columns[None, :] * WIDTH + depth[:, None]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for _ in range(0, WIDTH, BK):
        total = tl.dot(tl.load(x_block), tl.load(y_block), total)
        x_block += BK
        y_block += BK
    return total


@triton.jit
def _place(n, m, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """The block that this program computes: down GROUP blocks, then right, so that neighbours share rows in the L2."""
    number = tl.program_id(0)
    down, across = tl.cdiv(n, BM), tl.cdiv(m, BN)
    first = number // (GROUP * across) * GROUP
    height = tl.minimum(down - first, GROUP)
    inside = number % (GROUP * across)
    return first + inside % height, inside // height


@triton.jit
def sum_exp2(
    x,
    y,
    row_parts,
    column_parts,
    n,
    m,
    scale,
    shift,
    WIDTH: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
):
    """row_parts (across, n) and column_parts (down, m): sums of 2^(scale x_i . y_j - shift) within one block."""
    down, across = _place(n, m, BM, BN, GROUP)
    products = _products(x, y, n, m, down * BM, across * BN, WIDTH, BM, BN, BK)
    rows, columns = down * BM + tl.arange(0, BM), across * BN + tl.arange(0, BN)
    inside = (rows < n)[:, None] & (columns < m)[None, :]
    e = tl.where(inside, tl.exp2(products * scale - shift), 0.0)
    tl.store(row_parts + across.to(tl.int64) * n + rows, tl.sum(e, 1), mask=rows < n)
    tl.store(column_parts + down.to(tl.int64) * m + columns, tl.sum(e, 0), mask=columns < m)


@triton.jit
def log2_sum(
    x,
    y,
    row_tops,
    row_parts,
    column_tops,
    column_parts,
    n,
    m,
    scale,
    WIDTH: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Of one block, the largest scale x_i . y_j of each row and column, and the sum of 2^(scale x_i . y_j - largest).

    row_tops, row_parts: (across, n); column_tops, column_parts: (down, m). No product is too large or too small.
    """
    down, across = _place(n, m, BM, BN, GROUP)
    products = _products(x, y, n, m, down * BM, across * BN, WIDTH, BM, BN, BK)
    rows, columns = down * BM + tl.arange(0, BM), across * BN + tl.arange(0, BN)
    inside = (rows < n)[:, None] & (columns < m)[None, :]
    scaled = tl.where(inside, products * scale, -3e38)
    row_place, column_place = across.to(tl.int64) * n + rows, down.to(tl.int64) * m + columns
    top = tl.max(scaled, 1)
    tl.store(row_tops + row_place, top, mask=rows < n)
    tl.store(row_parts + row_place, tl.sum(tl.exp2(scaled - top[:, None]), 1), mask=rows < n)
    top = tl.max(scaled, 0)
    tl.store(column_tops + column_place, top, mask=columns < m)
    tl.store(column_parts + column_place, tl.sum(tl.exp2(scaled - top[None, :]), 0), mask=columns < m)


@triton.jit
def max_abs(
    x,
    y,
    row_parts,
    n,
    m,
    WIDTH: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
):
    """row_parts (across, n): the largest |x_i . y_j| within one block. A repeated last column changes no maximum."""
    down, across = _place(n, m, BM, BN, GROUP)
    products = _products(x, y, n, m, down * BM, across * BN, WIDTH, BM, BN, BK)
    rows = down * BM + tl.arange(0, BM)
    tl.store(row_parts + across.to(tl.int64) * n + rows, tl.max(tl.abs(products), 1), mask=rows < n)


@triton.jit
def add_parts(parts, out, count, n, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """out (n,) float64 += the sum over the first axis of parts (count, n) float32, PARTS at a time, in order."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), dtype=tl.float64)
    for start in range(0, count, PARTS):
        index = start + tl.arange(0, PARTS)
        inside = (index < count)[:, None] & (columns < n)[None, :]
        part = tl.load(parts + index.to(tl.int64)[:, None] * n + columns[None, :], mask=inside, other=0.0)
        total += tl.sum(part.to(tl.float64), 0)
    before = tl.load(out + columns, mask=columns < n, other=0.0)
    tl.store(out + columns, before + total, mask=columns < n)
