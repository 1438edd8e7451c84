"""A synthetic run is the same however many processes write it."""

from __future__ import annotations

from pathlib import Path

from benchmarks import synthetic_run


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_write_run__gives_the_same_bytes_in_processes(tmp_path, monkeypatch):
    asked = {"rows": 1001, "shards": 3, "seed": 7, "bad": 0.1}
    synthetic_run.write_run(tmp_path / "alone", **asked)
    monkeypatch.setattr(synthetic_run, "_FEWEST_IN_PROCESSES", 0)
    synthetic_run.write_run(tmp_path / "together", **asked)
    alone, together = (files_of(tmp_path / name) for name in ("alone", "together"))
    assert len(alone) == 2 + 3 + 3
    assert alone == together
