"""The cores a process may use: by its affinity, by the quotas of its control groups, by torch's own count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipsel_core import cores
from tests.waiting import PATIENCE_S

PERIOD = "cpu/x/cpu.cfs_period_us"


def quota(tmp_path: Path, membership: str, files: dict[str, str]) -> float | None:
    """The least quota found where a process is a member of groups that say this."""
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        (tmp_path / "sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / name).write_text(text)
    return min(cores._quotas(tmp_path / "cgroup", tmp_path / "sys"), default=None)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "150000 50000", "a/b/cpu.max": "max 50000"}, 3.0),
        ("0::/of/the/host\n", {"cpu.max": "400000 100000"}, 4.0),
        ("3:cpu,cpuacct:/x\n1:memory:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000", PERIOD: "100000"}, 0.5),
        ("3:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", PERIOD: "100000"}, None),
        ("3:cpuset:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000", PERIOD: "100000"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_quotas__of_every_group_that_a_process_is_in(tmp_path, membership, files, expected):
    assert quota(tmp_path, membership, files) == expected


def test_quotas__where_there_are_no_control_groups(tmp_path):
    assert list(cores._quotas(tmp_path / "absent", tmp_path)) == []


@pytest.mark.parametrize(("share", "expected"), [(0.5, 1), (1.2, 2), (1e6, None)])
def test_allowed_cores__keeps_to_the_quota(monkeypatch, share, expected):
    monkeypatch.setattr(cores, "_quota", lambda: share)
    assert cores.allowed_cores() == min(expected or 10**6, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("environment", "bind", "expected"), [({"OMP_NUM_THREADS": "2"}, 3, 2), ({}, 1, 1)])
def test_thread_count__are_those_that_the_user_left(environment, bind, expected):
    if len(os.sched_getaffinity(0)) < bind:
        pytest.skip("this process has fewer cores")
    code = f"""
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{bind}])
from clipsel_core.scoring.threads import thread_count
from tests.waiting import PATIENCE_S
print(thread_count())
"""
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", code]
    root = Path(__file__).parent.parent
    options = {"cwd": root, "env": {**kept, **environment}, "timeout": PATIENCE_S}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    assert int(shown.stdout) == expected
