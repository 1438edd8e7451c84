"""Does a write that fails name the file that was asked for, and does one that was killed leave nothing for ever?"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core.files import and_at_last, locked, remove_abandoned, write_atomically
from tests.waiting import PATIENCE_S


def by_python(aside):
    (aside / "within").write_text("a")


def by_arrow(aside):
    pq.write_table(pa.table({"a": [1]}), aside / "within")


@pytest.mark.parametrize("write", [by_python, by_arrow])
def test_write_atomically__an_error_names_the_file_that_was_meant(tmp_path, write):
    with pytest.raises(OSError, match="directory") as caught:
        write_atomically(tmp_path / "a.parquet", write)
    assert caught.value.filename == str(tmp_path / "a.parquet")


def test_write_atomically__another_file_s_error_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "a", lambda aside: (tmp_path / "source").read_bytes())
    assert caught.value.filename == str(tmp_path / "source")


def saved(table, path):
    with open(path, "wb") as file:
        np.savez(file, a=table["a"].to_numpy())


@pytest.mark.parametrize("write", [pq.write_table, saved])
def test_write_atomically__a_full_disk_is_said_with_the_file_that_was_meant(tmp_path, write):
    table = pa.table({"a": np.zeros(10_000)})

    def fill(aside):
        aside.unlink()
        aside.symlink_to("/dev/full")  # which Arrow would remove
        write(table, aside)

    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomically(tmp_path / "a.parquet", fill)
    assert (caught.value.filename, caught.value.strerror) == (str(tmp_path / "a.parquet"), "No space left on device")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", [False, True])
def test_and_at_last__an_error_within_is_the_one_that_is_raised(fails):
    written = []

    def write():
        written.append(1)
        raise OSError("of the write")

    def work():
        with and_at_last(write):
            if fails:
                raise ValueError("within")

    with pytest.raises(ValueError if fails else OSError, match="within" if fails else "of the write"):
        work()
    assert written == [1]


_WRITING = """
import sys, time
from pathlib import Path
from clipsel_core.files import write_atomically
def write(aside):
    aside.write_text("half")
    print(aside.name, flush=True)
    time.sleep(600)
write_atomically(Path(sys.argv[1]), write)
"""


def test_write_atomically__removes_what_a_killed_process_left_and_nothing_else(tmp_path):
    """Of two processes that write in a folder one is killed: what the other writes stays, and so do others' files."""
    others = [tmp_path / name for name in (".notes.partial", "a.1-2.partial", ".rsync.a.Xy12", ".a.1-2.partial.txt")]
    for other in others:
        other.touch()
    command = [sys.executable, "-c", _WRITING]
    writers = [subprocess.Popen([*command, tmp_path / name], stdout=subprocess.PIPE, text=True) for name in "ab"]
    killed, living = (tmp_path / writer.stdout.readline().strip() for writer in writers)
    try:
        writers[0].kill()
        writers[0].wait(PATIENCE_S)
        assert killed.exists()
        write_atomically(tmp_path / "c", lambda aside: aside.write_text("c"))
        assert sorted(tmp_path.iterdir()) == sorted([*others, living, tmp_path / "c"])
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(PATIENCE_S)
            writer.stdout.close()


def test_remove_abandoned__takes_folders_too_unless_they_are_held(tmp_path):
    left, used = tmp_path / ".images-a1b2c3d4", tmp_path / ".0123456789abcdef.0a1b2c3d.partial"
    for folder in (left, used):
        (folder / "within").mkdir(parents=True)
    with locked(used, is_folder=True):
        remove_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == [used]
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_folder", [False, True])
def test_locked__holds_what_lies_there_where_it_was_removed_before_it_was_held(tmp_path, monkeypatch, is_folder):
    """Another process may look for what is abandoned between the making of a file and its lock."""
    path, lock, calls = tmp_path / ".a.1-2.partial", fcntl.flock, []

    def late(file, how):
        calls.append(how)
        if len(calls) == 1:
            path.rmdir() if is_folder else path.unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(path, is_folder=is_folder):
        remove_abandoned(tmp_path)
        assert path.is_dir() if is_folder else path.is_file()
    remove_abandoned(tmp_path)
    assert not path.exists()


def test_locked__makes_a_folder_again_that_was_removed_before_it_was_opened(tmp_path, monkeypatch):
    path, opened, calls = tmp_path / ".a.1-2.partial", os.open, []

    def late(name, *rest):
        calls.append(name)
        if len(calls) == 1:
            path.rmdir()
        return opened(name, *rest)

    monkeypatch.setattr(os, "open", late)
    with locked(path, is_folder=True):
        assert path.is_dir()
    assert len(calls) == 2
