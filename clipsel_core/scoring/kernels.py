"""How are the reductions over X Y^T computed on a GPU's tensor cores?

One Triton program computes one block of products of float16 or bfloat16 rows, accumulated in float32, and reduces it
before it ever reaches memory. Scale and shift come after the product, in float32. Each block writes its row sums and
column sums into a place of its own, and a second kernel adds these places in fixed order in float64: no atomics, so
results are bitwise the same in every run with the same tile sizes on the same device. X and Y are swept in pieces of
at most 32768 rows, which bounds the partial sums to about 50 MB.

The constant shift is that of `tiled`, and rows and columns outside of its range are redone by `tiled`; where it does
not suit the temperature, each block keeps its sums relative to their largest terms. float32 rows are refused: tensor
cores would round them. p_norm is that of `tiled`. Triton's interpreter runs the same kernels on a CPU, for float16
alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import triton
import triton.language as tl
from torch import Tensor

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import tile_sizes as tiles
from clipsel_core.scoring import tiled
from clipsel_core.scoring.tile_sizes import DEPTH, TileSizes
from clipsel_core.scoring.tiled import Tiling

INTERPRETED = triton.knobs.runtime.interpret
DTYPES = (torch.float16,) if INTERPRETED else (torch.float16, torch.bfloat16)  # it multiplies bfloat16's bits
_log = logging.getLogger(__name__)
_CAPABILITY = (8, 0)  # Ampere, from which on tensor cores take bfloat16 too
_PIECES = Tiling(strip=32768, tile=32768, workers=1)
_GROUP = 8
_SMALL = TileSizes(32, 64, 32, warps=4, stages=2)  # for the interpreter, whose time goes by the element
_TIMED_ROWS = 8192


def log_sum_exp(
    x: Tensor, y: Tensor, *, temperature: float, sizes: TileSizes | None = None, pieces: Tiling | None = None
) -> tuple[Tensor, Tensor]:
    """As reductions.log_sum_exp, of checked arguments: float16 or bfloat16 both.

    sizes: of a block; None for the ones that suit the device. pieces: rows of x and of y in one launch.
    Raises: ScoringError on another dtype, or on a device without Triton.
    """
    check_operands(x, y)
    scale, shift = tiled.scale_and_shift(temperature)
    left, right = _ready(x), _ready(y)
    sizes = sizes or sizes_for(x.device, left.shape[1])

    def sweep(cut: Tiling) -> tuple[Tensor, Tensor]:
        if not tiled.constant_shift_suits(temperature):
            return _log_sums(left, right, scale, sizes, cut)
        row, column = _sum_exp2(left, right, scale, shift, sizes, cut)
        redo = tiled.tiling_for(len(x), x.device)
        redo = replace(redo, strip=min(redo.strip, cut.strip), tile=min(redo.tile, cut.tile))
        return tiled.finish(row, x, y, scale, shift, redo), tiled.finish(column, y, x, scale, shift, redo)

    with _launching_on(x.device):
        return tiled.with_smaller_tiles(sweep, pieces or _PIECES, x.device)


def max_abs(x: Tensor, t: Tensor, *, sizes: TileSizes | None = None, pieces: Tiling | None = None) -> Tensor:
    """As reductions.max_abs, of checked arguments: float16 or bfloat16 both. sizes, pieces, Raises: as log_sum_exp."""
    check_operands(x, t)
    left, right = _ready(x), _ready(t)
    sizes = sizes or sizes_for(x.device, left.shape[1])

    def sweep(cut: Tiling) -> Tensor:
        out = torch.zeros(len(x), dtype=torch.float32, device=x.device)
        parts = _buffer(min(cut.strip, len(x)), min(cut.tile, len(t)), sizes.columns, x.device)
        for r, _, xs, ys in _pieces_of(left, right, cut):
            _launch(max_abs_block, sizes, xs, ys, parts, len(xs), len(ys))
            across = -(-len(ys) // sizes.columns)
            largest = parts[: across * len(xs)].view(across, len(xs)).amax(0)
            torch.maximum(out[r], largest, out=out[r])
        return out

    with _launching_on(x.device):
        return tiled.with_smaller_tiles(sweep, pieces or _PIECES, x.device)


p_norm = tiled.p_norm


def check_operands(x: Tensor, y: Tensor) -> None:
    """Raises ScoringError unless the kernels can take both tensors without rounding, where they are."""
    if x.dtype != y.dtype or x.dtype not in DTYPES:
        found = " and ".join(str(rows.dtype).removeprefix("torch.") for rows in (x, y))
        expected = " or ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES) + " on both sides"
        raise ScoringError("impl 'triton'", expected=expected, found=found, remedy="use impl 'tiled'")
    reason = why_not(x.device)
    if reason is not None:
        raise ScoringError("impl 'triton'", expected="a usable NVIDIA GPU", found=reason, remedy="use impl 'tiled'")


@functools.cache
def why_not(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, None where they can; tried once with the smallest of them."""
    if INTERPRETED:
        return None
    if device.type != "cuda" or torch.version.hip is not None:
        return f"{device}"
    if torch.cuda.get_device_capability(device) < _CAPABILITY:
        return f"{torch.cuda.get_device_name(device)}, older than Ampere"
    out = torch.zeros(3, dtype=torch.float64, device=device)
    try:
        with _launching_on(device):
            _add_parts(torch.ones(6, device=device), out, 2)
    except Exception as error:  # a missing C compiler, driver or ptxas: each with an exception of its own
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return None if out.tolist() == [2.0, 2.0, 2.0] else "wrong sums"


def sizes_for(device: torch.device, width: int) -> TileSizes:
    """The tile sizes for rows of this width on this device, timed where they are not known yet."""
    if INTERPRETED:
        return _SMALL
    return tiles.fastest(_key(device, width), partial(_seconds, device, _padded(width)))


def check_key(device: torch.device, width: int) -> str:
    """What decides whether the kernels are right: device, width, Triton, tile sizes and their own source."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    sizes = "x".join(str(size) for size in sizes_for(device, width).as_dict().values())
    return f"{_key(device, width)}, tiles {sizes}, kernels {digest.hexdigest()[:12]}"


def use_sizes(device: torch.device, width: int, sizes: Mapping[str, int]) -> None:
    """Takes these tile sizes from now on in this process. Raises ScoringError on sizes that are no candidate."""
    tiles.use(_key(device, width), sizes)


def _key(device: torch.device, width: int) -> str:
    if INTERPRETED:
        return f"interpreter, width {_padded(width)}, triton {triton.__version__}"
    return f"{torch.cuda.get_device_name(device)}, width {_padded(width)}, triton {triton.__version__}"


def _seconds(device: torch.device, width: int, sizes: TileSizes) -> float:
    """The median time of a sweep over drawn rows; inf where the sizes do not fit the device."""
    numbers = torch.Generator(device).manual_seed(0)
    drawn = torch.randn(_TIMED_ROWS, width, generator=numbers, device=device)
    rows = torch.nn.functional.normalize(drawn).half()
    scale, shift = tiled.scale_and_shift(0.01)
    times = []
    with _launching_on(device):
        for _ in range(8):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            try:
                _sum_exp2(rows, rows, scale, shift, sizes, _PIECES)
            except torch.OutOfMemoryError:
                raise  # other programs' doing, and nothing to remember
            except Exception as error:  # too little shared memory, or a compiler that fails at these sizes
                _log.debug("tiles of %s: %s: %s", sizes, type(error).__name__, error)
                return math.inf
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
    return sorted(times[3:])[2]


def _sum_exp2(x: Tensor, y: Tensor, scale: float, shift: float, s: TileSizes, cut: Tiling) -> tuple[Tensor, Tensor]:
    """Sums of 2^(scale x_i . y_j - shift), of each row and of each column, float64."""
    row, column = (torch.zeros(len(rows), dtype=torch.float64, device=x.device) for rows in (x, y))
    n, m = min(cut.strip, len(x)), min(cut.tile, len(y))
    row_parts, column_parts = _buffer(n, m, s.columns, x.device), _buffer(m, n, s.rows, x.device)
    for r, c, xs, ys in _pieces_of(x, y, cut):
        _launch(sum_exp2_block, s, xs, ys, row_parts, column_parts, len(xs), len(ys), scale, shift)
        _add_parts(row_parts, row[r], -(-len(ys) // s.columns))
        _add_parts(column_parts, column[c], -(-len(xs) // s.rows))
    return row, column


def _log_sums(x: Tensor, y: Tensor, scale: float, s: TileSizes, cut: Tiling) -> tuple[Tensor, Tensor]:
    """Natural logarithms of the sums of 2^(scale x_i . y_j), of each row and of each column, float64."""
    row, column = (torch.full((len(rows),), -math.inf, dtype=torch.float64, device=x.device) for rows in (x, y))
    n, m = min(cut.strip, len(x)), min(cut.tile, len(y))
    buffers = [_buffer(*shape, x.device) for shape in ((n, m, s.columns), (m, n, s.rows)) for _ in range(2)]
    for r, c, xs, ys in _pieces_of(x, y, cut):
        _launch(log2_sum_block, s, xs, ys, *buffers, len(xs), len(ys), scale)
        _add_log_parts(row[r], -(-len(ys) // s.columns), *buffers[:2])
        _add_log_parts(column[c], -(-len(xs) // s.rows), *buffers[2:])
    return row.mul_(math.log(2.0)), column.mul_(math.log(2.0))


def _launch(kernel, s: TileSizes, x: Tensor, y: Tensor, *arguments) -> None:
    count = triton.cdiv(len(x), s.rows) * triton.cdiv(len(y), s.columns)
    sizes = {"WIDTH": x.shape[1], "BM": s.rows, "BN": s.columns, "BK": s.depth, "GROUP": _GROUP}
    kernel[(count,)](x, y, *arguments, **sizes, num_warps=s.warps, num_stages=s.stages, enable_fp_fusion=True)


def _add_parts(parts: Tensor, out: Tensor, count: int) -> None:
    columns = 2048 if INTERPRETED else 128
    programs, sizes = triton.cdiv(len(out), columns), {"PARTS": 16, "COLUMNS": columns}
    add_parts_block[(programs,)](parts, out, count, len(out), **sizes, enable_fp_fusion=True)


def _add_log_parts(out: Tensor, count: int, tops: Tensor, sums: Tensor) -> None:
    """out (n,) float64: log2 of itself and of the sums of count blocks, which are relative to their tops."""
    top, part = (buffer[: count * len(out)].view(count, len(out)) for buffer in (tops, sums))
    torch.logaddexp2(out, tiled.add_relative(top, part), out=out)


def _buffer(n: int, m: int, side: int, device: torch.device) -> Tensor:
    """Room for a number per row of one side, n, and block of the other, m; each launch packs it by its own sizes."""
    return torch.empty(triton.cdiv(m, side) * n, dtype=torch.float32, device=device)


def _ready(rows: Tensor) -> Tensor:
    """The rows, contiguous, with zeros added up to a multiple of DEPTH: loads stay aligned, and no sum changes."""
    missing = _padded(rows.shape[1]) - rows.shape[1]
    return torch.nn.functional.pad(rows, (0, missing)) if missing else rows.contiguous()


def _padded(width: int) -> int:
    return -(-width // DEPTH) * DEPTH


def _pieces_of(x: Tensor, y: Tensor, cut: Tiling) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """The places of the pieces of X and of Y that are swept together, and their rows."""
    for rows in (slice(start, start + cut.strip) for start in range(0, len(x), cut.strip)):
        for columns in (slice(start, start + cut.tile) for start in range(0, len(y), cut.tile)):
            yield rows, columns, x[rows], y[columns]


def _launching_on(device: torch.device) -> contextlib.AbstractContextManager:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


# What one Triton program computes: a block of products, reduced before it ever reaches memory.


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
def sum_exp2_block(
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
def log2_sum_block(
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
def max_abs_block(
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
def add_parts_block(parts, out, count, n, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
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
