"""Small runs for the page tests: pools with drawn images, scores to check by hand, and every way to lack some."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clipsel_core import uids
from clipsel_core.runs.columns import Column
from clipsel_core.runs.store import AddedColumn, AddedTarget, RunConfig, ShardInfo, TargetInfo, write_config
from tests.pages import hostile

METRICS = ("clip_score", "s_cliploss", "r_image", "r_text", "normalizer_se", "normsim_inf_task", "normsim_2_task")
HOSTILE = hostile.strings()
HOSTILE_NAMES = hostile.file_names()
HOSTILE_NAME = "<img src=x onerror=window.pwned=1>"

# Runs that lack something, by name: how make_run makes them.
LACKING: dict[str, dict] = {
    "without_images": {"images": False},
    "without_projection": {"projection": False},
    "without_target": {"target": False},
    "no_pair": {"pairs": (0,), "projection": False},
    "one_pair": {"pairs": (1,)},
    "equal_scores": {"changed": {"s_cliploss": np.full(60, 0.25)}},
    "equal_large_scores": {"changed": {"r_image": np.full(60, 2.0**62)}},
    "no_scores": {"changed": {name: np.full(60, np.nan) for name in ("clip_score", "s_cliploss")}},
}


def scores(pairs: int) -> dict[str, np.ndarray]:
    """Scores of row i that grow or fall with i, so that who is kept is known: clip_score = i / pairs and so on."""
    rise = (np.arange(pairs) / max(pairs, 1)).astype(np.float32)
    return {
        "clip_score": rise,
        "s_cliploss": rise - 0.5,
        "r_image": 0.2 + rise / 10,
        "r_text": 0.3 - rise / 10,
        "normalizer_se": np.full(pairs, 0.002, np.float32),
        "normsim_inf_task": 1 - rise,
        "normsim_2_task": 9 + rise,
    }


def make_run(
    folder: Path,
    *,
    pairs: Sequence[int] = (40, 20),
    finished: int | None = None,
    images: bool = True,
    projection: bool = True,
    target: bool = True,
    captions: Sequence[str] = (),
    urls: Sequence[str] = (),
    kinds: Sequence[str] = (),
    changed: dict[str, np.ndarray] | None = None,
    more: dict[str, list] | None = None,
) -> Path:
    """Writes folder/pool and folder/run and returns the run.

    pairs: rows of each shard. finished: shards that are scored, all by default. captions, urls,
    kinds: of the first rows.
    changed: (N,) values in place of the usual ones, by metric. more: further columns of the metadata.
    """
    pool, run = folder / "pool", folder / "run"
    for part in (pool / "metadata", pool / "shards", run / "scores", run / "recipes"):
        part.mkdir(parents=True)
    total, start = sum(pairs), 0
    keys = _keys(total)
    metrics = METRICS if target else METRICS[:5]
    columns = {**scores(total), **(changed or {})}
    described = _metadata(keys, captions, urls, kinds) | (more or {})
    for number, rows in enumerate(pairs):
        part = slice(start, start + rows)
        _write_pool_shard(pool, f"{number:08d}", {name: column[part] for name, column in described.items()}, images)
        if finished is None or number < finished:
            table = {"uid_hi": keys["f0"][part].copy(), "uid_lo": keys["f1"][part].copy()}
            table |= {name: columns[name][part].astype(np.float32) for name in metrics}
            pq.write_table(pa.table(table), run / "scores" / f"{number:08d}.parquet")
        start += rows
    if projection:
        angle = np.linspace(0, 6, total).astype(np.float32)
        table = {"uid_hi": keys["f0"].copy(), "uid_lo": keys["f1"].copy(), "x": np.cos(angle), "y": np.sin(angle)}
        pq.write_table(pa.table(table), run / "projection.parquet")
    _write_description(run, pairs, metrics, finished)
    return run


def add_target_by_hand(run: Path, name: str, *, complete: bool = True) -> None:
    """Writes what add-target writes; the pairs' similarity rises with their row."""
    folder, start = run / "added" / name, 0
    folder.mkdir(parents=True, exist_ok=True)
    target = TargetInfo(name=name, path=f"targets/{name}.npy", kind="uids", sha256="1" * 64, rows=3, width=8)
    metrics = (f"normsim_inf_{name}", f"normsim_2_{name}")
    added = AddedTarget(target=target, norms=("inf", "2"), device="cpu", metrics=metrics, complete=complete)
    for file in sorted((run / "scores").iterdir()):
        keys = pq.read_table(file, columns=["uid_hi", "uid_lo"])
        values = pa.array(np.arange(start, start + len(keys), dtype=np.float32))
        pq.write_table(keys.append_column(metrics[0], values).append_column(metrics[1], values), folder / file.name)
        start += len(keys)
    (folder / "target.json").write_text(added.model_dump_json(), encoding="utf-8")


def add_column_by_hand(run: Path, column: Column, values: Sequence[float]) -> None:
    """Writes what add-column writes. values: of each row of the run."""
    folder, start = run / "added" / column.name, 0
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted((run / "scores").iterdir()):
        keys = pq.read_table(file, columns=["uid_hi", "uid_lo"])
        part = np.asarray(values[start : start + len(keys)], np.float32)
        pq.write_table(keys.append_column(column.name, pa.array(part)), folder / file.name)
        start += len(keys)
    added = AddedColumn(column=column, complete=True)
    (folder / "column.json").write_text(added.model_dump_json(), encoding="utf-8")


def add_recipe(run: Path, name: str, text: str) -> None:
    (run / "recipes" / f"{name}.yaml").write_text(text, encoding="utf-8")


def make_hostile_run(folder: Path) -> Path:
    """A run of which every text that somebody else wrote means harm, the name of a recipe too."""
    run = make_run(folder, pairs=(130, 110), captions=HOSTILE, urls=HOSTILE[::-1], kinds=HOSTILE)
    add_recipe(run, HOSTILE_NAME, "steps: [{metric: s_cliploss, keep_top: 0.5}]")
    return run


def make_run_of_hostile_names(folder: Path) -> Path:
    """A run of which every name means harm: its own, those of 200 metadata columns, 200 recipes and 200 uid lists.

    Each list is of 10 pairs; each column says hostile things of the kinds of pairs, too.
    """
    columns = {name: [HOSTILE[(row + place) % 5] for row in range(60)] for place, name in enumerate(HOSTILE_NAMES)}
    run = make_run(folder, more=columns)
    lists = run / "recipes" / "lists"
    lists.mkdir()
    for place, name in enumerate(HOSTILE_NAMES):
        add_recipe(run, name, f"steps: [{{metric: s_cliploss, keep_top: 0.{place:03d}}}]")
        (lists / f"{name}.txt").write_text("".join(f"{uid}\n" for uid in uid_names(60)[place % 50 :][:10]))
    return run.rename(run.with_name(HOSTILE_NAMES[0]))


def uid_names(pairs: int) -> list[str]:
    """The uids of a run of so many pairs, as 32 hex digits, in the order of its rows."""
    return uids.to_hex(_keys(pairs)).to_pylist()


def _keys(pairs: int) -> np.ndarray:
    return uids.from_halves(np.arange(1, pairs + 1, dtype=np.uint64) * 7, np.arange(pairs, dtype=np.uint64))


def _metadata(
    keys: np.ndarray, captions: Sequence[str], urls: Sequence[str], kinds: Sequence[str]
) -> dict[str, list[str]]:
    """The columns of a pool's parquet, for all its rows."""
    names = uids.to_hex(keys).to_pylist()
    usual = {
        "url": [f"http://evil.example/{uid}" for uid in names],
        "text": [f"caption of pair {row}" for row in range(len(names))],
        "fault": ["good" if row % 3 else "<b>odd</b>" for row in range(len(names))],
    }
    given = {"url": urls, "text": captions, "fault": kinds}
    return {"uid": names} | {name: [*given[name], *usual[name][len(given[name]) :]] for name in usual}


def _write_pool_shard(pool: Path, name: str, columns: dict[str, list[str]], images: bool) -> None:
    pq.write_table(pa.table(columns), pool / "metadata" / f"{name}.parquet")
    if images:
        with tarfile.open(pool / "shards" / f"{name}.tar", "w") as tar:
            for row, uid in enumerate(columns["uid"]):
                _add(tar, f"{row:05d}.jpg", picture(row))
                _add(tar, f"{row:05d}.json", json.dumps({"uid": uid}).encode())


def picture(row: int, kind: str = "JPEG") -> bytes:
    """A small plain picture, its colour set by the row."""
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (row * 37 % 256, row * 91 % 256, 120)).save(file, kind)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _write_description(run: Path, pairs: Sequence[int], metrics: Sequence[str], finished: int | None) -> None:
    done = len(pairs) if finished is None else finished
    target = TargetInfo(name="task", path="../task.npy", kind="npy", sha256="0" * 64, rows=9, width=8)
    config = RunConfig(
        pool="../pool",
        arch="demo",
        targets=(target,) if "normsim_inf_task" in metrics else (),
        shards=tuple(ShardInfo(name=f"{number:08d}", rows=rows) for number, rows in enumerate(pairs)),
        pairs=sum(pairs),
        width=8,
        metrics=tuple(metrics),
        skipped_rows=0 if done == len(pairs) else None,
    )
    write_config(run, config)
    status = {
        "state": "done" if done == len(pairs) else "failed",
        "pairs_done": sum(pairs[:done]),
        "pairs_total": sum(pairs),
        "elapsed_s": 3.0,
        "pairs_per_s": 20.0,
        "message": "" if done == len(pairs) else "killed",
    }
    (run / "status.json").write_text(json.dumps(status), encoding="utf-8")
