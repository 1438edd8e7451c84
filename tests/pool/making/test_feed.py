"""Is a picture that cannot be had told from a store that is away: the one rejected, the other waited for?"""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from clipsel_core import places as stores
from clipsel_core.errors import PoolFormatError
from clipsel_core.places import Place
from clipsel_core.pool.images import open_images
from clipsel_core.pool.layout import open_pool
from tests.pool.making.test_make import arrays_of, build, bytes_of, csv_of_pictures, table_of, write_tars
from tests.pool.servers import serving

PICTURES = tuple(f"/in/{number}.png" for number in range(9))


@pytest.fixture
def served(tmp_path, waits):
    csv_of_pictures(tmp_path / "in")
    with serving(tmp_path) as server:
        yield server


def rejected(root):
    return {row["file"]: row["reason"] for row in pq.read_table(root / "rejected.parquet").to_pylist()}


@pytest.mark.parametrize("fault", [503, 429, 408, "reset"])
def test_fetcher__what_fails_in_passing_is_asked_again(tmp_path, teachers, served, waits, fault):
    # aiohttp itself asks once more where a connection breaks.
    tries = 4 if fault == "reset" else 2
    served.fault = lambda path, times: fault if path in PICTURES and times <= tries else None
    made = build(f"{served.address}/in/captions.csv", tmp_path / "pool", teachers[0])
    assert (made.kept, len(made.reasons)) == (9, 0)
    assert sorted(set(waits)) == [0.5, 2]
    build(tmp_path / "in/captions.csv", tmp_path / "here", teachers[0])
    assert (arrays_of(tmp_path / "pool", "l14_img") == arrays_of(tmp_path / "here", "l14_img")).all()


@pytest.mark.parametrize(("fault", "tries"), [(404, 1), (410, 1), (403, 1), (500, 4)])
def test_fetcher__one_picture_that_never_comes_is_rejected(tmp_path, teachers, served, fault, tries):
    served.fault = lambda path, times: fault if path == PICTURES[3] else None
    made = build(f"{served.address}/in/captions.csv", tmp_path / "pool", teachers[0])
    assert (made.read, made.kept) == (9, 8)
    reason = "no such file" if fault == 404 else f"it cannot be read: {fault}"
    assert rejected(tmp_path / "pool")["3.png"].startswith(reason)
    assert served.asked[PICTURES[3]] == tries


@pytest.fixture
def impatient(monkeypatch):
    """A server that says nothing for half a second has stalled; as it has after a minute otherwise."""
    monkeypatch.setattr(stores, "_STALLED_S", 0.5)


@pytest.mark.parametrize("fault", ["stall", "half"])
@pytest.mark.parametrize("cured", [True, False])
def test_fetcher__one_picture_that_stalls(tmp_path, teachers, served, impatient, fault, cured):
    served.fault = lambda path, times: fault if path == PICTURES[3] and (times == 1 or not cured) else None
    made = build(f"{served.address}/in/captions.csv", tmp_path / "pool", teachers[0])
    assert (made.read, made.kept) == (9, 9 if cured else 8)
    if not cured:
        assert rejected(tmp_path / "pool")["3.png"] == "it cannot be read: no answer in time"
    assert served.asked[PICTURES[3]] == (2 if cured else 4)


@pytest.mark.parametrize("fault", ["stall", "half"])
def test_fetcher__a_server_that_stalls_in_the_middle_ends_the_run(tmp_path, teachers, served, impatient, fault):
    served.fault = lambda path, times: fault if path in PICTURES[4:] or (path in PICTURES and times > 1) else None
    with pytest.raises(PoolFormatError, match=r"a store that answers, found .*: no answer in time; start again when"):
        build(f"{served.address}/in/captions.csv", tmp_path / "pool", teachers[0])


def test_place__a_file_that_stalls_while_it_is_read_on(tmp_path, served, impatient):
    """As a tar is: in pieces, each asked for by its range."""
    served.fault = lambda path, times: "stall" if times == 2 else None
    with Place.of(f"{served.address}/in/captions.csv").patient(2).open() as file:
        assert file.read() == (tmp_path / "in/captions.csv").read_bytes()


@pytest.mark.parametrize("fault", [503, 401, "reset"])
def test_fetcher__a_store_that_stays_away_ends_the_run_which_goes_on(tmp_path, teachers, served, waits, fault):
    build(f"{served.address}/in/captions.csv", tmp_path / "whole", teachers[0], shard_size=3, batch_size=2)
    served.asked.clear()
    pictures = lambda: sum(served.asked[path] for path in PICTURES)  # noqa: E731
    served.fault = lambda path, _: fault if path in PICTURES and pictures() > 6 else None
    pool = tmp_path / "pool"
    with pytest.raises(
        PoolFormatError, match=r"/in/\d.png: expected a store that answers, .*; start again when it answers"
    ):
        build(f"{served.address}/in/captions.csv", pool, teachers[0], shard_size=3, batch_size=2)
    assert not (pool / "rejected.parquet").exists()
    served.fault = lambda path, times: None
    made = build(f"{served.address}/in/captions.csv", pool, teachers[0], shard_size=3, batch_size=2)
    assert (made.kept, len(made.reasons)) == (9, 0)
    assert bytes_of(pool) == bytes_of(tmp_path / "whole")


def test_fetcher__a_store_that_gave_the_table_and_no_picture_ends_the_run(tmp_path, teachers, served):
    served.fault = lambda path, times: 503 if any(picture in served.asked for picture in PICTURES) else None
    with pytest.raises(PoolFormatError, match="expected a store that answers"):
        build(f"{served.address}/in/captions.csv", tmp_path / "pool", teachers[0])


def test_fetcher__hosts_that_never_answer_are_rejected_and_soon_not_waited_for(tmp_path, teachers, served, waits):
    rows = "".join(f"http://127.0.0.1:1/{n}.png,a dead link {n}\n" for n in range(200))
    rows += "".join(f"{served.address}{path},a picture\n" for path in PICTURES)
    rows += "reference://x.json,one that is not opened\n"
    (tmp_path / "web.csv").write_text("path,caption\n" + rows)
    made = build(tmp_path / "web.csv", tmp_path / "pool", teachers[0])
    assert (made.read, made.kept) == (210, 9)
    reasons = rejected(tmp_path / "pool")
    assert "it cannot be read" in reasons["http://127.0.0.1:1/0.png"]
    assert "which is not opened" in reasons["reference://x.json"]
    assert len(waits) < 3 * 100


@pytest.mark.parametrize("kind", ["tars", "table"])
def test_open__reading_a_file_goes_on_where_the_connection_broke(tmp_path, teachers, waits, kind):
    source = write_tars(tmp_path / "in") if kind == "tars" else csv_of_pictures(tmp_path / "in")
    build(source, tmp_path / "here", teachers[0])
    with serving(tmp_path) as served:
        served.fault = lambda path, times: 503 if times % 2 else None
        build(f"{served.address}/{source.relative_to(tmp_path)}", tmp_path / "pool", teachers[0])
    assert table_of(tmp_path / "pool") == table_of(tmp_path / "here")


def test_place__whoever_is_not_patient_asks_once(tmp_path, waits):
    (tmp_path / "x").write_bytes(b"data")
    with serving(tmp_path) as served:
        served.fault = lambda path, times: 503 if times == 1 else None
        place = Place.of(f"{served.address}/x")
        with pytest.raises(OSError, match="503"):
            place.read()
        assert (place.read(), waits) == (b"data", [])
        served.asked.clear()
        assert place.patient(2).read() == b"data"
        assert waits == [0.5]


def test_fetch__waits_for_a_store_and_does_not_take_its_images_for_lost(tmp_path, teachers, served):
    build(f"{served.address}/in/captions.csv", tmp_path / "pool", teachers[0])
    pool = open_pool(tmp_path / "pool")
    images, uid = open_images(pool, tmp_path / "cache"), table_of(pool.root)["uid"][3].as_py()
    served.asked.clear()
    served.fault = lambda path, times: 503 if times < 3 else None
    assert images.fetch(uid).image == (tmp_path / "in/3.png").read_bytes()
    served.fault = lambda path, times: 503
    with pytest.raises(OSError, match="503"):
        images.read(uid)
    with pytest.raises(PoolFormatError, match=f"the image of {uid}: expected a store that answers, found 503"):
        images.fetch(uid)
    served.fault = lambda path, times: 404
    assert images.fetch(uid) == (None, b"", True)


def test_fetcher__an_address_whose_package_is_missing_is_rejected_alone(tmp_path, teachers):
    csv_of_pictures(tmp_path / "in")
    with open(tmp_path / "in" / "captions.csv", "a") as file:
        file.write("gs://bucket/x.png,elsewhere\ngibberish://x.png,nowhere\n")
    made = build(tmp_path / "in/captions.csv", tmp_path / "pool", teachers[0])
    assert (made.read, made.kept, made.reasons["its address cannot be opened"]) == (11, 9, 2)
    said = rejected(tmp_path / "pool")["gs://bucket/x.png"]
    assert said.startswith("its address cannot be opened: gs://bucket/x.png: expected the package for gs://, found")
