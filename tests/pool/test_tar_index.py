"""Do processes find in tars what one finds, in the same order, and say what is wrong with one?"""

from __future__ import annotations

import os
import subprocess

import pytest

from clipsel_core.errors import LostWorkerError, PoolFormatError
from clipsel_core.places import Place
from clipsel_core.pool import tar_index
from clipsel_core.pool.sources.members import damage_at_a_glance
from clipsel_core.pool.tar_index import index_tars
from tests import traps
from tests.pool.pictures import sample, write_tar


@pytest.fixture
def tars(tmp_path):
    found = []
    for tar in range(4):
        members = {}
        for number in range(3 * tar, 3 * tar + (3 if tar != 2 else 0)):
            members |= sample(number, ("JPEG", "PNG", "WEBP")[number % 3], uid=f"{number:032x}")
        found.append(write_tar(tmp_path / f"{tar}.tar", members or {"readme.txt": b"no pairs"}))
    return found


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(tar_index, "_LEAST_BYTES", 1)
    monkeypatch.setattr(tar_index, "_MOST_TARS", 2)
    monkeypatch.setattr(tar_index, "allowed_cores", lambda: 2)


def as_python(found):
    return [(tar, table.to_pydict(), damage) for tar, table, damage in found]


def test_index_tars__processes_find_what_one_finds(tars, monkeypatch):
    monkeypatch.setattr(tar_index, "_elsewhere", lambda *_: pytest.fail("few tars are not worth a process"))
    alone = as_python(index_tars(tars))
    assert [len(found["uid_lo"]) for _, found, _ in alone] == [3, 3, 0, 3]
    assert [damage for _, _, damage in alone] == [""] * 4
    assert alone[1][1]["uid_lo"] == [3, 4, 5]
    monkeypatch.undo()
    monkeypatch.setattr(tar_index, "_LEAST_BYTES", 1)
    monkeypatch.setattr(tar_index, "allowed_cores", lambda: 2)
    monkeypatch.setattr(tar_index, "_index_tar", lambda _: pytest.fail("it was done here"))
    assert as_python(index_tars(tars)) == alone


@pytest.mark.parametrize("alone", [False, True])
def test_index_tars__a_damaged_one_costs_itself_alone(tars, monkeypatch, alone):
    if not alone:
        monkeypatch.setattr(tar_index, "_LEAST_BYTES", 1)
        monkeypatch.setattr(tar_index, "allowed_cores", lambda: 2)
    (_, images, _), *_ = index_tars(tars[1:2])
    second = images["offset"][1].as_py()
    tars[0].write_bytes(b"")
    tars[1].write_bytes(tars[1].read_bytes()[: second + 9])
    tars[2].write_bytes(b"<html>" * 200)
    found = as_python(index_tars(tars))
    assert [len(images["uid_lo"]) for _, images, _ in found] == [0, 1, 0, 3]
    damages = [damage for _, _, damage in found]
    assert damages[0] == "the tar cannot be read at all: empty file"
    assert damages[1] == f"the tar cannot be read on at byte {second + 9:,}: unexpected end of data"
    assert damages[2].startswith("the tar cannot be read at all: ")
    assert damages[3] == ""
    told = [damage_at_a_glance(Place.of(tar)) for tar in tars]
    assert told[0] == "it cannot be read: empty file"
    assert [bool(damage) for damage in told] == [True, True, True, False]
    assert told[1] == "it has no end mark: it may be cut off"


def test_index_tars__keys_as_the_source_splits_them(tmp_path):
    """Images and uids never mixed; what the rule merges or cannot tell is said."""
    json = {n: b'{"uid": "%032x"}' % n for n in range(1, 9)}
    files = [("A.JPG", b"1"), ("A.JSON", json[1]), ("A.JPG", b"22"), ("A.JSON", json[2])]
    files += [("b/c.1.jpg", b"333"), ("b/c.1.json", json[3]), ("b/c.2.jpg", b"333"), ("b/c.2.json", json[3])]
    files += [("./d.tiff", b"4444"), ("e.jpg", b"55555"), ("e.seg.png", b"mask"), ("d.json", json[4])]
    files += [("e.json", json[5]), ("f.jpg", b"666666"), ("f.json", json[6]), ("f.jpg", b"7777777"), ("._g.jpg", b"x")]
    ((_, images, damage),) = index_tars([write_tar(tmp_path / "0.tar", files)])
    assert (images["uid_lo"].to_pylist(), images["length"].to_pylist()) == ([1, 2, 4, 5], [1, 2, 4, 5])
    assert damage.startswith("4 images left out, first b/c.1: its name has another dot: b/c.1.jpg is the file .1.jpg ")


@pytest.mark.usefixtures("small_groups")
def test_index_tars__a_process_that_ends_without_a_word(tars, monkeypatch):
    monkeypatch.setattr(tar_index.sys, "executable", "/bin/false")
    expected = (
        r"0\.tar: expected a tar whose images can be found, found that its process ended with exit status 1; see "
    )
    with pytest.raises(LostWorkerError, match=expected):
        list(index_tars(tars))


@pytest.mark.usefixtures("small_groups")
def test_index_tars__a_process_that_is_killed_names_its_tar(tars, tmp_path, monkeypatch):
    monkeypatch.setattr(tar_index, "_groups", lambda tars: [tars[:1], tars[1:]])
    for name, value in traps.setting(tars[3], tmp_path / "hook").items():
        monkeypatch.setenv(name, value)
    expected = r"3\.tar: expected a tar whose images can be found, found that its process ended by SIGKILL; see "
    with pytest.raises(LostWorkerError, match=expected):
        list(index_tars(tars))


@pytest.mark.usefixtures("small_groups")
def test_index_tars__a_tar_that_vanishes(tars, monkeypatch):
    monkeypatch.setattr(tar_index, "_groups", lambda tars: os.unlink(tars[2]) or [tars[:1], tars[1:]])
    expected = r"/2\.tar: expected a whole tar, found No such file or directory; download it again$"
    with pytest.raises(PoolFormatError, match=expected):
        list(index_tars(tars))


@pytest.mark.usefixtures("small_groups")
def test_index_tars__ends_its_processes_when_it_is_stopped(tars, monkeypatch):
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):
        def __init__(self, command, **options):
            # The first tars are read; whoever reads the others would take an hour.
            super().__init__(command if "0.tar" in command[-1] else ["sleep", "3600"], **options)
            started.append(self)

    monkeypatch.setattr(tar_index, "_groups", lambda tars: [[tar] for tar in tars])
    monkeypatch.setattr(tar_index.subprocess, "Popen", Noted)
    found = index_tars(tars)
    assert next(found)[0].path == str(tars[0])
    found.close()
    assert len(started) >= 1
    assert all(process.wait(10) is not None for process in started)
