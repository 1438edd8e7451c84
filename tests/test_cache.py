"""Does the cache keep to its size, and never lose what somebody uses?"""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from clipsel_core import cache, doctor
from clipsel_core.cache import Hold, hold, make_room, used_bytes
from clipsel_core.errors import ClipselError

MB = 10**6
_HOLDING = """
import sys, pathlib
from clipsel_core.cache import Hold
held = Hold(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of runs in the cache, of which 10 MB may be used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CLIPSEL_CACHE_GB", "0.01")
    return tmp_path / "clipsel" / "runs"


def fill(run, megabytes, used):
    """Has a run take so much; used: when it was used last."""
    hold(run).release()
    (run / "inner").mkdir()
    (run / "inner" / "index").write_bytes(os.urandom(megabytes * MB))
    os.utime(run / ".in-use", (used, used))


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_hold__removes_what_was_used_least_lately_before_something_new_is_built(folder):
    for name, used in (("b", 2000), ("a", 1000), ("c", 3000)):
        fill(folder / name, 3, used)
    hold(folder / "d", 3 * MB)
    assert names(folder) == {"b", "c", "d"}
    hold(folder / "b")
    hold(folder / "e", 7 * MB)
    assert "c" not in names(folder)
    assert used_bytes() <= 10 * MB


def test_make_room__nothing_is_removed_where_there_is_room(folder):
    fill(folder / "a", 3, 1)
    assert 6 * MB < make_room(6 * MB) <= 7 * MB
    assert names(folder) == {"a"}


def test_make_room__what_another_process_uses_stays(folder):
    fill(folder / "a", 6, 1000)
    fill(folder / "b", 3, 2000)
    user = subprocess.Popen(
        [sys.executable, "-c", _HOLDING, folder / "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert user.stdout.readline() == "held\n"
        os.utime(folder / "a" / ".in-use", (1000, 1000))
        make_room(10 * MB)
        assert names(folder) == {"a"}
        with pytest.raises(OSError, match=r"0\.0 GB are needed, and 0\.0 GB of CLIPSEL_CACHE_GB are free"):
            hold(folder / "c", 5 * MB)
    finally:
        user.communicate()
    make_room(10 * MB)
    assert "a" not in names(folder)


def test_hold__lets_go_when_nobody_has_it_any_more(folder):
    fill(folder / "a", 9, 1000)
    held = Hold(folder / "a")
    make_room(5 * MB)
    assert names(folder) == {"a"}
    del held
    gc.collect()
    make_room(5 * MB)
    assert names(folder) == set()


def test_hold__of_a_folder_elsewhere_is_none(folder, tmp_path):
    assert hold(tmp_path / "run" / "cache", 99 * MB) is None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("said", ["much", "-1", "inf", "nan"])
def test_most_bytes__what_is_no_number_is_said(folder, monkeypatch, said):
    monkeypatch.setenv("CLIPSEL_CACHE_GB", said)
    with pytest.raises(ClipselError, match="CLIPSEL_CACHE_GB: expected a number of GB, found"):
        cache.most_bytes()
    assert next(found for found in doctor.examine() if found.area == "cache").state == "wrong"


def test_most_bytes__unsaid_is_a_quarter_of_the_disk_at_most(folder, monkeypatch):
    monkeypatch.delenv("CLIPSEL_CACHE_GB")
    for total, most in ((40 * 10**9, 10 * 10**9), (10**13, 50 * 10**9)):
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda path, total=total: type("Disk", (), {"total": total}))
        assert cache.most_bytes() == most


def test_doctor__says_how_full_it_is(folder):
    fill(folder / "a", 6, 1)
    said = next(found for found in doctor.examine() if found.area == "cache")
    assert said.value == f"0.0 of 0.0 GB in {folder}"
