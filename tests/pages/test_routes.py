"""The routes give out the images and exports of the runs on show, and nothing else of the machine."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin
from starlette.applications import Starlette

from clipsel_core import tasks, uids
from clipsel_core.runs.store import Run
from pages.parts import catalog, component, pictures, routes
from pages.parts.gallery import cards  # noqa: F401
from tests.pages.worlds import make_run, picture
from tests.waiting import PATIENCE_S

FIRST = "00000000000000070000000000000000"


def get(path: str, query: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a GET, asked of the routes without a server."""
    sent: list[dict] = []

    async def receive():
        """The client stays on the line and says nothing more; a file is streamed until somebody hangs up."""
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [],
    }
    asyncio.run(Starlette(routes=routes.ROUTES)({**scope, "http_version": "1.1", "scheme": "http"}, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture
def entry(tmp_path, monkeypatch):
    run = make_run(tmp_path / "world")
    monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("CLIPSEL_RUNS", str(run))
    (run / "exports").mkdir()
    (run / "exports" / "mine.npy").write_bytes(b"the file")
    (tmp_path / "world" / "secret.txt").write_bytes(b"not yours")
    return catalog.entries()[0]


def test_image__comes_by_uid_as_it_lies_in_the_tar(entry):
    status, headers, body = get(f"/pairs/{entry.key}/{FIRST}")
    assert status == 200
    assert body == picture(0)
    assert headers["content-type"] == "image/jpeg"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "uid", ["f" * 32, "0", FIRST[:-1], FIRST + "0", "..", "%2e%2e", FIRST.upper().replace("0", "O")]
)
def test_image__unknown_uid_is_404(entry, uid):
    status, headers, _ = get(f"/pairs/{entry.key}/{uid}")
    assert status == 404
    assert headers["x-content-type-options"] == "nosniff"


def test_image__unknown_run_is_404(entry):
    assert get(f"/pairs/{'0' * 16}/{FIRST}")[0] == 404


def test_image__bytes_that_are_no_picture_are_415(entry, monkeypatch):
    for data in (
        b"<html><script>alert(1)</script>",
        b"",
        picture(0)[:200],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ):
        monkeypatch.setattr(pictures, "read", lambda root, uid, data=data: data)
        status, headers, body = get(f"/pairs/{entry.key}/{FIRST}")
        assert status == 415
        assert headers["content-type"].startswith("text/plain")
        assert b"script" not in body


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_shown__bytes_that_browsers_show_as_they_are(kind):
    data = picture(1, kind)
    assert pictures.shown(data) == (data, f"image/{kind.lower()}")


def test_shown__a_cameras_file_of_several_jpegs():
    one, file = Image.open(io.BytesIO(picture(1))), io.BytesIO()
    one.save(file, "MPO", save_all=True, append_images=[one])
    assert Image.open(file).format == "MPO"
    assert pictures.shown(file.getvalue()) == (file.getvalue(), "image/jpeg")


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "1", "I;16", "F", "RGBA"])
def test_shown__a_tiff_as_jpeg(mode):
    file = io.BytesIO()
    Image.new("L", (40, 20), 255).convert(mode if mode != "I;16" else "I").convert(mode).save(file, "TIFF")
    data, kind = pictures.shown(file.getvalue())
    assert (kind, Image.open(io.BytesIO(data)).format, Image.open(io.BytesIO(data)).size) == (
        "image/jpeg",
        "JPEG",
        (40, 20),
    )


def test_shown__a_wide_tiff_no_larger_than_a_screen(monkeypatch):
    monkeypatch.setattr(pictures, "_WIDEST", 30)
    data, _ = pictures.shown(picture(1, "TIFF"))
    assert max(Image.open(io.BytesIO(data)).size) == 30


def test_image__a_tiff_is_shown_by_the_route(entry, monkeypatch):
    monkeypatch.setattr(pictures, "read", lambda root, uid: picture(0, "TIFF"))
    status, headers, body = get(f"/pairs/{entry.key}/{FIRST}")
    assert (status, headers["content-type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")


def test_shown__refuses_other_formats_and_cut_files(monkeypatch):
    """EPS above all: Pillow would start Ghostscript for it."""
    monkeypatch.setattr(EpsImagePlugin, "EpsImageFile", lambda *_: pytest.fail("it was opened"))
    for kind in ("EPS", "PPM", "TGA", "ICO", "PCX"):
        data = picture(1, kind)
        assert pictures.shown(data) is None
        assert pictures.fault(data) == "bytes that are none of JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(noise, "PNG")
    assert pictures.shown(noise.getvalue()[:-200]) is None


def test_shown__decodes_so_many_pixels_at_once_and_in_turn(monkeypatch):
    """Twenty threads: what is under way is never above the limit, but for one picture alone; all come through."""
    under_way, most, lock = [], [], threading.Lock()

    def load(self):
        with lock:
            under_way.append(self.size[0] * self.size[1])
            most.append(list(under_way))
        Event().wait(0.01)
        with lock:
            under_way.remove(self.size[0] * self.size[1])

    monkeypatch.setattr(pictures, "_room", pictures._Room(1000))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    files = []
    for side in (10, 20, 40):
        files.append(io.BytesIO())
        Image.new("L", (side, side)).save(files[-1], "PNG")
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(pictures.shown, [file.getvalue() for file in files] * 10))
    assert all(found)
    assert all(sum(sizes) <= 1000 or sizes == [1600] for sizes in most)
    assert max(map(len, most)) > 1


def test_shown__refuses_a_decompression_bomb():
    """A PNG of a few hundred bytes that says it is 60,000 pixels wide and high."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    assert pictures.shown(bomb) is None


def export(entry, name: str, sha256: str) -> tuple[int, dict[str, str], bytes]:
    path, _, query = routes.export_url(entry, name, sha256).partition("?")
    return get(path, query.encode())


def test_export__is_a_download(entry):
    status, headers, body = export(entry, "mine.npy", hashlib.sha256(b"the file").hexdigest())
    assert (status, body) == (200, b"the file")
    assert headers["content-disposition"] == 'attachment; filename="mine.npy"'
    assert headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "name",
    [
        "../run.json",
        "..%2frun.json",
        "%2e%2e",
        "..",
        ".",
        "nothing.npy",
        "../../secret.txt",
        "/etc/passwd",
        ".mine.npy.1.partial",
        "mine.npy\0",
        "\0",
        "x" * 300,
    ],
)
def test_export__gives_nothing_else(entry, name):
    (entry.root / "exports" / ".mine.npy.1.partial").write_bytes(b"half")
    assert get(f"/exports/{entry.key}/{name}")[0] == 404


def test_export__is_the_subset_that_was_asked_for_or_none(entry):
    """Somebody else exports under the same name: also with as many bytes, or when another subset was there before."""
    folder = Path(entry.root / "exports")
    digests = []
    for content in (b"the file", b"the pile", b"the file, longer"):
        fresh = folder / "fresh"
        fresh.write_bytes(content)
        fresh.replace(folder / "mine.npy")
        digests.append(hashlib.sha256(content).hexdigest())
        (folder / "mine.npy.manifest.json").write_text(json.dumps({"sha256": digests[-1]}))
        for name in ("mine.npy", "mine.npy.manifest.json"):
            assert [export(entry, name, digest)[0] for digest in digests] == [*[409] * (len(digests) - 1), 200]
        assert export(entry, "mine.npy", digests[-1])[2] == content
    assert b"another name" in export(entry, "mine.npy", digests[0])[2]
    for damaged in ("[]", "{", "{}"):
        (folder / "mine.npy.manifest.json").write_text(damaged)
        assert export(entry, "mine.npy.manifest.json", digests[-1])[0] == 409


def test_export__follows_no_link_out_of_the_folder(entry, tmp_path):
    Path(entry.root / "exports" / "link.npy").symlink_to(tmp_path / "world" / "secret.txt")
    assert get(f"/exports/{entry.key}/link.npy")[0] == 404


def test_export__folder_that_is_a_link_gives_nothing(entry, tmp_path, monkeypatch):
    """A run that somebody else made may say that its exports lie in another's home."""
    home = tmp_path / "home"
    Path(entry.root / "exports").rename(home)
    Path(entry.root / "exports").symlink_to(home)
    assert get(f"/exports/{entry.key}/mine.npy")[0] == 404
    monkeypatch.setenv("CLIPSEL_READ", str(home))
    assert get(f"/exports/{entry.key}/mine.npy")[0] == 200


def test_pictures__are_looked_for_again_where_they_could_not_be_read(entry, monkeypatch):
    """On a full disk the lookup cannot be written; once there is room, nobody has to start the server again."""
    read = pictures.open_images

    def fail(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "open_images", fail)
    assert get(f"/pairs/{entry.key}/{FIRST}")[0] == 404
    monkeypatch.setattr(pictures, "open_images", read)
    assert get(f"/pairs/{entry.key}/{FIRST}")[0] == 404
    later = pictures.time.monotonic() + 11
    monkeypatch.setattr(pictures, "time", SimpleNamespace(monotonic=lambda: later))
    assert get(f"/pairs/{entry.key}/{FIRST}")[0] == 200


def test_image__while_images_are_being_found_nobody_says_that_there_is_none(entry, monkeypatch):
    go_on, find = Event(), pictures.open_images
    monkeypatch.setattr(tasks, "_AT_ONCE_S", 0)
    monkeypatch.setattr(pictures, "_PATIENCE_S", 0)
    monkeypatch.setattr(pictures, "open_images", lambda *given: go_on.wait(PATIENCE_S) and find(*given))
    status, headers, _ = get(f"/pairs/{entry.key}/{FIRST}")
    assert (status, headers["retry-after"]) == (503, "5")
    go_on.set()
    pictures.find_images(entry).work.wait(PATIENCE_S)
    assert get(f"/pairs/{entry.key}/{FIRST}")[0] == 200


def test_pictures__pool_without_images_has_none(tmp_path):
    run = make_run(tmp_path / "world", images=False)
    assert pictures.read(catalog.Entry("world", run), FIRST) is None


def test_pictures__every_pair_has_its_own(entry):
    names = uids.to_hex(uids.from_halves(*_halves(60))).to_pylist()
    assert Run.open(entry.root).pairs == 60
    assert [pictures.read(entry, names[row]) == picture(row % 40) for row in (0, 39, 40, 59)] == [True] * 4


def test_image__of_an_embedded_pool_comes_from_where_it_was_left(tmp_path, monkeypatch):
    run = make_run(tmp_path / "world", images=False)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0.jpg").write_bytes(picture(0))
    (tmp_path / "elsewhere" / "other.jpg").write_bytes(picture(1))
    monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("CLIPSEL_RUNS", str(run))
    entry = catalog.entries()[0]
    assert get(f"/pairs/{entry.key}/{FIRST}")[0] == 404
    high, low = (half[:1] for half in _halves(1))
    where = {"file": pa.array(["0.jpg"]).dictionary_encode(), "offset": [0], "length": [len(picture(0))]}
    table = pa.table({"uid_hi": high, "uid_lo": low, **where})
    (tmp_path / "world" / "pool" / "images").mkdir()
    described = {"base": str(tmp_path / "elsewhere"), "image_column": ""}
    index = tmp_path / "world" / "pool" / "images" / "00000000.parquet"
    pq.write_table(table.replace_schema_metadata(described), index)
    assert get(f"/pairs/{entry.key}/{FIRST}")[0] == 404
    monkeypatch.setenv("CLIPSEL_READ", str(tmp_path / "elsewhere"))
    later = pictures.time.monotonic() + 11
    monkeypatch.setattr(pictures, "time", SimpleNamespace(monotonic=lambda: later))
    assert get(f"/pairs/{entry.key}/{FIRST}")[::2] == (200, picture(0))
    for other in ("other.jpg", "..%2felsewhere%2fother.jpg", uids.to_hex(uids.from_halves(*_halves(2)))[1].as_py()):
        assert get(f"/pairs/{entry.key}/{other}")[0] == 404


def _halves(pairs: int):
    import numpy as np

    return np.arange(1, pairs + 1, dtype=np.uint64) * 7, np.arange(pairs, dtype=np.uint64)


def test_entries__stay_within_the_folders(tmp_path, monkeypatch):
    inside = make_run(tmp_path / "data" / "world")
    outside = make_run(tmp_path / "outside")
    (tmp_path / "data" / "link").symlink_to(outside)
    monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLIPSEL_RUNS", "")
    assert [(entry.label, Path(entry.root)) for entry in catalog.entries()] == [("world/run", inside)]
    catalog.allow([outside])
    assert {Path(entry.root) for entry in catalog.entries()} == {inside, outside}
    assert catalog.by_key("../" + "0" * 13) is None


def test_entries__no_two_labels_are_the_same(tmp_path, monkeypatch):
    runs = [make_run(tmp_path / side / "world") for side in "ab"]
    monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "nothing"))
    catalog.allow([*runs, runs[0], Path(tmp_path / "missing")])
    labels = [entry.label for entry in catalog.entries()]
    assert len(set(labels)) == len(labels) == 3
    assert catalog.missing_runs() == {str(tmp_path / "missing"): ""}


def test_by_key__sees_other_folders_and_new_runs_at_once(tmp_path, monkeypatch):
    first, second = (make_run(tmp_path / side / "world") for side in "ab")
    monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "nothing"))
    catalog.allow([first])
    (entry,) = catalog.entries()
    assert catalog.by_key(entry.key) == entry
    catalog.allow([second])
    assert catalog.by_key(entry.key) is None
    (other,) = catalog.entries()
    assert catalog.by_key(other.key) == other


def test_drawing__is_kept_by_what_is_in_it_until_others_were_drawn():
    address = pictures.keep_drawing(b"a picture").removeprefix(".")
    assert address == pictures.keep_drawing(b"a picture").removeprefix(".")
    status, headers, body = get(address)
    assert (status, headers["content-type"], body) == (200, "image/png", b"a picture")
    assert headers["x-content-type-options"] == "nosniff"
    assert "immutable" in headers["cache-control"]
    for place in range(100):
        pictures.keep_drawing(b"%d" % place)
    status, headers, _ = get(address)
    assert status == 404
    assert "cache-control" not in headers


def test_script__holds_the_styles_and_the_code_of_a_component():
    names = [name for name in component._scripts if name.startswith("cards-")]
    assert len(names) == 1
    status, headers, body = get(f"/scripts/{names[0]}")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert (component._HERE / "gallery" / "cards.js").read_bytes() in body
    assert b".caption" in body
    for other in ("cards.js", "..%2Fcomponent.py", "cards-0000000000000000.js"):
        assert get(f"/scripts/{other}")[0] == 404


@pytest.mark.parametrize(("path", "page"), [("/overview", "./"), ("/home", "./"), ("/Select", "./select")])
def test_guessed__leads_to_the_page(path, page):
    status, headers, _ = get(path)
    assert (status, headers["location"]) == (307, page)


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/nowhere", "./?run=a%2Fb&no_page=nowhere"),
        ("/map/deeper", "../?run=a%2Fb&no_page=map%2Fdeeper"),
        ("/<script>", "./?run=a%2Fb&no_page=%3Cscript%3E"),
    ],
)
def test_unknown__leads_to_overview_which_says_so(path, leads):
    status, headers, _ = get(path, b"run=a/b")
    assert (status, headers["location"]) == (307, leads)


@pytest.mark.parametrize(
    "path",
    ["/", "/map", "/select", "/_stcore/health", "/map/_stcore/health", "/static/js/x.js", "/favicon.png", "/media/x"],
)
def test_unknown__leaves_alone_what_streamlit_answers(path):
    assert get(path)[0] == 404  # by the routes alone: Streamlit's come after them


def test_guessed__keeps_what_stands_behind_the_address():
    status, headers, _ = get("/overview", b"run=demo/run&recipe=//evil.example")
    assert (status, headers["location"]) == (307, "./?run=demo/run&recipe=//evil.example")
