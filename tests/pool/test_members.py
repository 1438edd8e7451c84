"""Does a quick look at a tar's headers find what tarfile finds, in every kind of tar, whole, cut off or damaged?"""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from clipsel_core.pool.sources import members
from clipsel_core.pool.sources.members import Members, TarMember


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
                    found.append(TarMember(entry.name, entry.offset_data, entry.size))
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
        assert not asked
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


def header(kind, size, name="odd"):
    """A header of a kind that tarfile would not write, with the size that it says, of any number of digits."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


def pax(text):
    return header(b"x", len(text)) + text.ljust(-(-len(text) // 512) * 512, b"\0")


def whole(name, size=10):
    return header(b"0", size, name) + bytes(-(-size // 512) * 512)


class Hole(io.RawIOBase):
    """A file with a great hole in it, filled with one byte. Reading it costs what is asked for."""

    def __init__(self, before, hole, after, fill=b"x"):
        self.parts, self.fill, self.at = (before, hole, after), fill, 0
        self.size = len(before) + hole + len(after)

    def seek(self, at, whence=0):
        self.at = at
        return at

    def tell(self):
        return self.at

    def read(self, length=-1):
        before, hole, after = self.parts
        assert length >= 0, "all at once"
        assert length <= 2 << 20, "as much as a header says"
        begin, end = self.at, min(self.at + length, self.size)
        data = before[begin:end]
        data += self.fill * (max(0, min(end, len(before) + hole) - max(begin, len(before))))
        data += after[max(0, begin - len(before) - hole) : max(0, end - len(before) - hole)]
        self.at += len(data)
        return data


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"X"])
def test_members__a_name_of_gigabytes_costs_its_own_file_alone(kind):
    long = 10 << 30
    file = Hole(whole("a.jpg") + header(kind, long), long, whole("b.jpg") + whole("c.jpg") + bytes(1024))
    tar = Members(file, file.size)
    found = list(tar)
    assert [member.name for member in found] == ["a.jpg", "", "c.jpg"]
    assert (found[1].fault, found[1].offset) == ("a header of 10,737,418,240 bytes", 1024)
    assert tar.end_fault() == ""


@pytest.mark.parametrize(
    "hostile",
    [
        header(b"L", 10 << 30),
        header(b"0", -512),
        header(b"0", -5000),
        header(b"0", 8**25),
        header(b"L", 8**25),
        pax(b"29 size=99999999999999999999\n") + whole("a.jpg"),
        pax(b"14 size=-1024\n") + whole("a.jpg"),
        pax(b"5010 size=" + b"9" * 4999 + b"\n") + whole("a.jpg"),
        pax(b"99999999999999999999 path=a\n") + whole("a.jpg"),
        pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n") + whole("a.jpg", 2048),
        pax(b"24 GNU.sparse.map=a,b,c\n") + whole("a.jpg", 2048),
        pax(b"5 a=\n") * 5000 + whole("a.jpg"),
        header(b"L", 3) + b"abc".ljust(512, b"\0"),
        (header(b"L", 3) + b"abc".ljust(512, b"\0")) * 5000,
        (header(b"g", 9) + b"9 a%d=bc\n".ljust(512, b"\0") + whole("a.jpg")) * 3,
    ],
    ids=range(15),
)
def test_members__headers_that_mean_harm(hostile):
    """Each ends: in what is there, or in one of DAMAGE; nothing is read for ever, or as much as a header says."""
    data = whole("first.jpg") + hostile + whole("last.jpg") + bytes(1024)
    file = Hole(data, 0, b"")
    tar, found = Members(file, file.size), []
    try:
        for member in tar:
            found.append(member)
            assert len(found) < 10
        assert isinstance(tar.end_fault(), str)
    except members.DAMAGE:
        pass
    assert found[0].name == "first.jpg"
    assert all(member.size >= 0 for member in found)


def test_members__words_on_all_files_without_end():
    words = b"".join(
        header(b"g", len(line)) + line.ljust(512, b"\0") + whole("a.jpg")
        for line in (b"%d k%05d=%s\n" % (300, number, b"v" * 288) for number in range(500))
    )
    found, _, fault = by_members(words + bytes(1024))
    assert len(found) == 100
    assert fault == (tarfile.ReadError, "a header that makes no sense")


def test_members__sparse_headers_without_end():
    sparse = bytearray(header(b"S", 512))
    sparse[482] = 1
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    file = Hole(whole("a.jpg") + bytes(sparse), 1 << 40, b"", fill=b"1")
    tar = iter(Members(file, file.size))
    assert next(tar).name == "a.jpg"
    with pytest.raises(tarfile.ReadError, match=r"headers of more than 1,048,576 bytes"):
        next(tar)


@pytest.mark.parametrize("first", ["plain", "gnu", "a word on all", "nothing"])
def test_members__of_tars_one_behind_the_other(first):
    data = TARS[first] + TARS["plain"] + TARS["webdataset"]
    found, _, fault = by_members(data)
    names = [member.name for kind in (first, "plain", "webdataset") for member in by_tarfile(TARS[kind])[0]]
    assert ([member.name for member in found], fault) == (names, None)
    assert all(data[member.offset - 512 :].startswith(member.name.encode()) for member in found[-10:])


def test_members__say_what_lies_behind_the_end():
    data = TARS["plain"]
    for stray, said in (
        (b"", ""),
        (bytes(5000), ""),
        (b"?" * 5000, f"behind the end of the tar at byte {len(data):,}"),
    ):
        tar = Members(io.BytesIO(data + stray), len(data + stray))
        assert len(list(tar)) == 10
        assert said in tar.end_fault()
    # What fills the record in which the end mark lies may be anything.
    used = len(data.rstrip(b"\0")) // 512 * 512 + 2048
    tar = Members(io.BytesIO(data[:used] + b"?" * (len(data) - used)), len(data))
    assert (len(list(tar)), tar.end_fault()) == (10, "")
