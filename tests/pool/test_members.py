"""Does a quick look at a tar's headers find what tarfile finds, in every kind of tar, whole, cut off or damaged?"""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from clipsel_core.pool.sources import members
from clipsel_core.pool.sources.members import Member, Members


def plain(archive):
    for number in range(5):
        add(archive, f"{number:09d}.jpg", number * 300)
        add(archive, f"{number:09d}.json", 512)


def webdatasets(archive):
    """As webdataset's writer leaves them: the time in fractions, so that each file has a pax header."""
    for number in range(5):
        add(archive, f"{number}.png", 700, mtime=1.5e9 + number / 3, uname="bigdata", gname="bigdata", mode=0o444)


def unusual(archive):
    """Long names, names of other alphabets, folders, links, a device, and files as old tars have them."""
    add(archive, "folder", 0, type=tarfile.DIRTYPE)
    add(archive, "folder/a.jpg", 10)
    add(archive, "x" * 90 + "/" + "y" * 60 + ".jpg", 600)
    add(archive, "link", 0, type=tarfile.SYMTYPE, linkname="folder/a.jpg")
    add(archive, "hard", 0, type=tarfile.LNKTYPE, linkname="folder/a.jpg")
    add(archive, "pipe", 0, type=tarfile.FIFOTYPE)
    add(archive, "old.txt", 5, type=tarfile.AREGTYPE)
    add(archive, "Ünïcode 猫.txt", 5, mtime=0.5)
    add(archive, "tight.txt", 5, type=tarfile.CONTTYPE)
    add(archive, "last.jpg", 1000)


def add(archive, name, size, **facts):
    entry = tarfile.TarInfo(name)
    entry.size = size
    for what, value in facts.items():
        setattr(entry, what, value)
    archive.addfile(entry, io.BytesIO(bytes(size)))


def made(fill, kind, **options):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind, **options) as archive:
        fill(archive)
    return file.getvalue()


def owned_by_many(archive):
    """Owners whose numbers need more than octal digits."""
    add(archive, "a.jpg", 900, uid=1 << 33)
    add(archive, "b.jpg", 20)


TARS = {
    "plain": made(plain, tarfile.USTAR_FORMAT),
    "gnu": made(unusual, tarfile.GNU_FORMAT),
    "pax": made(unusual, tarfile.PAX_FORMAT),
    "webdataset": made(webdatasets, tarfile.PAX_FORMAT),
    "owners": made(owned_by_many, tarfile.GNU_FORMAT),
    "a word on all": made(webdatasets, tarfile.PAX_FORMAT, pax_headers={"comment": "from git"}),
    "nothing": made(lambda archive: None, tarfile.USTAR_FORMAT),
}


def by_tarfile(data):
    found, end = [], -1
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for entry in archive:
                if entry.isfile():
                    found.append(Member(entry.name, entry.offset_data, entry.size))
            end = archive.offset
    except Exception as error:
        return found, end, (type(error), str(error))
    return found, end, None


def by_members(data):
    found, end, tar = [], -1, Members(io.BytesIO(data), len(data))
    try:
        found.extend(tar)
        end = tar.end
    except Exception as error:
        return found, end, (type(error), str(error))
    return found, end, None


@pytest.mark.parametrize("kind", TARS)
def test_members__are_tarfiles(kind):
    assert by_members(TARS[kind]) == by_tarfile(TARS[kind])


@pytest.mark.parametrize("kind", TARS)
def test_members__cut_off_anywhere(kind):
    whole = TARS[kind]
    for length in [*range(0, len(whole), 256), *range(1, len(whole), 509)]:
        assert by_members(whole[:length]) == by_tarfile(whole[:length])


@pytest.mark.parametrize("kind", TARS)
def test_members__damaged_anywhere(kind):
    generator, whole = np.random.default_rng(0), TARS[kind]
    for _ in range(300):
        data = bytearray(whole)
        for place in generator.integers(0, len(whole), generator.integers(1, 4)):
            data[place] = generator.choice([0, 32, 48, 49, 55, 57, 120, 255])
        assert by_members(bytes(data)) == by_tarfile(bytes(data))


def test_members__ask_tarfile_for_what_is_unusual_alone(monkeypatch):
    asked, opened = [], tarfile.open
    monkeypatch.setattr(members.tarfile, "open", lambda **how: asked.append(how) or opened(**how))
    for kind in ("plain", "webdataset"):
        assert len(by_members(TARS[kind])[0]) >= 5
        assert len(asked) == 1, "the end mark"
        asked.clear()
    assert len(by_members(TARS["a word on all"])[0]) == len(asked) + 4


def test_members__read_their_bytes_between_headers():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in range(4):
            entry = tarfile.TarInfo(f"{number}.txt")
            entry.size = 2000
            archive.addfile(entry, io.BytesIO(str(number).encode() * 2000))
    tar = Members(file, len(file.getvalue()))
    assert [tar.read(member, 7) for member in tar] == [str(number).encode() * 7 for number in range(4)]
    assert [len(tar.read(member)) for member in Members(file, len(file.getvalue()))] == [2000] * 4
