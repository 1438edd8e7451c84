"""Small pools, written the way DataComp writes them, for whoever tests something that reads one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings

from clipsel_core import places, uids
from tests.pool.servers import Served, storing

# The same examples everywhere, and no verdict that depends on how busy the machine is.
settings.register_profile(
    "everywhere", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("everywhere")

# What tests embed is nothing that this user named.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="clipsel-state-")

# Triton reads this when it is first imported, which other packages do, too: hence here, before any test's imports.
if not list(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")


def unit_rows(n: int, width: int, seed: int | Sequence[int] = 0) -> np.ndarray:
    """n random unit rows around a common mean, as embeddings are: (n, width) float16."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, width)) + 0.6
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def write_shard(
    root: Path,
    name: str,
    rows: int,
    *,
    width: int = 16,
    seed: int = 0,
    arch: str = "l14",
    names: tuple[str, str] = ("{}_img", "{}_txt"),
    columns: dict[str, Sequence[object]] | None = None,
    save: Callable[..., None] = np.savez,
) -> tuple[Path, Path]:
    """Writes metadata/<name>.parquet and .npz and returns their paths; columns replace or add to the usual ones."""
    folder = root / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 7])
    halves = rng.integers(0, 2**64, (rows, 2), dtype=np.uint64)
    hexes = uids.to_hex(uids.from_halves(halves[:, 0], halves[:, 1])).to_pylist()
    table: dict[str, Sequence[object]] = {
        "uid": hexes,
        "url": [f"https://example.org/{uid}.jpg" for uid in hexes],
        "text": [f"caption {row} of {name}" for row in range(rows)],
    }
    pq.write_table(pa.table({**table, **(columns or {})}), folder / f"{name}.parquet")
    image, text = unit_rows(rows, width, [seed, 1]), unit_rows(rows, width, [seed, 2])
    save(folder / f"{name}.npz", **{names[0].format(arch): image, names[1].format(arch): text})
    return folder / f"{name}.parquet", folder / f"{name}.npz"


def rewrite_npz(npz: str | Path, *, compressed: bool = False, **changed: np.ndarray | None) -> None:
    """Replaces (or with None removes) arrays of an npz."""
    with np.load(npz) as archive:
        arrays: dict[str, np.ndarray | None] = {name: archive[name] for name in archive.files}
    arrays.update(changed)
    save = np.savez_compressed if compressed else np.savez
    save(npz, **{name: array for name, array in arrays.items() if array is not None})


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A pool of three shards of different sizes, width 16, one teacher l14, no images."""
    root = tmp_path / "pool"
    for seed, rows in enumerate((40, 25, 61)):
        write_shard(root, f"{seed:08d}", rows, seed=seed)
    return root


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    """A store that s3:// leads to meanwhile, see `storing`, and nothing that is remembered of another test's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with storing(monkeypatch) as served:
        yield served


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a store was waited for, in place of waiting."""
    waits: list[float] = []
    monkeypatch.setattr(places, "sleep", waits.append)
    return waits
