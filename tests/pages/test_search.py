"""The Search page finds what a float64 search does, asks the teacher once, and says what is missing."""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clipsel_core import uids
from clipsel_core.curation.exploring.searches import SearchQuery, read_vector, search_run, write_search
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import TeacherError
from clipsel_core.jobs import encoders
from clipsel_core.pool.images import open_images
from clipsel_core.pool.layout import open_pool
from clipsel_core.runs.store import Run
from pages.parts.jobs import jobs
from pages.parts.search import queries, results
from tests.pages.conftest import components, words
from tests.pages.worlds import make_run
from tests.pool.pictures import drawn, encoded
from tests.waiting import PATIENCE_S

DEMO = Path(__file__).parents[2] / "data" / "demo"


@pytest.fixture
def run(tmp_path):
    """A copy of the demo without its images."""
    shutil.copytree(DEMO, tmp_path / "demo", ignore=shutil.ignore_patterns("shards", "exports", "cache"))
    return tmp_path / "demo" / "run"


@pytest.fixture
def images(run):
    parts = [
        np.load(shard.npz.path)["demo_img"].astype(np.float64)
        for shard in ScoreTable.open(Run.open(run)).metadata.pool.shards
    ]
    rows = np.concatenate(parts)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def asked(monkeypatch):
    """What the teacher was asked for; it answers all with the same direction."""
    asked = []

    def answer(self, question):
        asked.append(question)
        return answered()

    monkeypatch.setattr(encoders.Encoder, "text", answer)
    monkeypatch.setattr(encoders.Encoder, "image", answer)
    return asked


def found(app, place: int = 0) -> list[str]:
    return [card["uid"] for card in components(app, "clipsel_cards")[place]["cards"]]


def answered() -> Future:
    done = Future()
    done.set_result(np.eye(64, dtype=np.float32)[0])
    return done


def earlier(app):
    """The field with what was found in the whole pool."""
    return next(field for field in app.selectbox if field.label == "Found in the whole pool")


def upload(app, name: str, content: bytes) -> None:
    """Chooses to search by a picture, and uploads it."""
    app.button_group(key="by").set_value("a picture").run()
    app.file_uploader(key="picture").set_value((name, content, "image/png")).run(timeout=PATIENCE_S)


def names(run, rows) -> list[str]:
    return uids.to_hex(ScoreTable.open(Run.open(run)).uids_at(np.asarray(rows))).to_pylist()


def test_search__begins_with_nothing_in_a_run_without_pairs(tmp_path, open_page):
    app = open_page("search", make_run(tmp_path / "world", pairs=(0,), projection=False))
    assert not app.exception
    assert [card for gallery in components(app, "clipsel_cards") for card in gallery["cards"]] == []


def test_search__begins_with_pairs_until_something_is_asked(run, asked, open_page):
    app = open_page("search", run)
    first, known = found(app), set(names(run, range(3_800)))
    assert len(set(first)) == 12
    assert set(first) <= known
    assert found(app.run()) == first
    others = found(app.button(key="other beginnings").click().run())
    assert len(set(others)) == 12
    assert set(others) <= known
    assert set(others) != set(first)
    app.text_input(key="q").set_value("two red birds").run()
    assert len(found(app)) == 48
    assert "Or begin with a pair" not in words(app)
    app.text_input(key="q").set_value("").run()
    assert found(app) == others


def test_search__by_pair_finds_its_neighbours(run, images, open_page):
    app = open_page("search", run)
    app.button_group(key="by").set_value("a pair").run()
    app.text_input(key="like").set_value(names(run, [70])[0]).run()
    assert not app.exception
    cosines = images @ images[70]
    cosines[70] = -1
    best = np.argsort(-cosines)[:48]
    assert len(found(app)) == 48
    assert len(set(found(app)) & set(names(run, best))) >= 47
    assert found(app)[:3] == names(run, best[:3])
    assert "of all 3,800 pairs" in words(app)


def test_search__lists_the_best_in_pages_of_48(run, images, open_page):
    app = open_page("search", run)
    app.session_state["by"], app.session_state["like"] = "a pair", names(run, [70])[0]
    app.run()
    app.selectbox(key="search_size").set_value(480).run()
    cosines = images @ images[70]
    cosines[70] = -1
    best, listed = names(run, np.argsort(-cosines)[:480]), found(app)
    for _ in range(9):
        app.button(key="next search_page").click().run()
        listed += found(app)
    assert len(set(listed)) == 480
    assert len(set(listed) & set(best)) >= 478
    assert app.button(key="next search_page").disabled
    app.text_input(key="like").set_value(names(run, [71])[0]).run()
    assert app.number_input(key="search_page").value == 1


def test_search__by_text_asks_the_teacher_once(run, images, asked, open_page):
    app = open_page("search", run)
    app.text_input(key="q").set_value("  two  red birds ").run()
    assert not app.exception
    assert found(app)[:5] == names(run, np.argsort(-images[:, 0])[:5])
    app.selectbox(key="search_size").set_value(24).run()
    assert len(found(app)) == 24
    app.button_group(key="side").set_value("captions").run()
    again = open_page("search", run)
    again.text_input(key="q").set_value("two red birds").run()
    assert len(found(again)) == 48
    assert asked == ["two red birds"]


def test_search__by_text_and_picture_with_the_demos_own_teacher(run, open_page):
    """One process answers all three, and it was loaded before anybody asked."""
    app = open_page("search", run)
    app.session_state["q"] = "two red birds"
    app.run(timeout=PATIENCE_S)
    assert not app.exception
    vector = read_vector(queries.embedding_file(Run.open(run), "texts", b"two red birds"))
    expected = search_run(Run.open(run), vector, limit=48)
    assert found(app) == expected.names
    encoder = queries._encoder(Run.open(run))
    assert encoder.ready
    app.session_state["q"] = "a green house"
    app.run()
    assert found(app) != expected.names
    uid = names(run, [70])[0]
    picture = open_images(open_pool(DEMO / "pool"), run / "index").read(uid)
    upload(app, "a.png", picture)
    assert not app.exception
    assert found(app)[0] == uid
    assert queries._encoder(Run.open(run)) is encoder
    encoders.end_all()


def test_search__says_that_the_teacher_is_not_at_hand(tmp_path, open_page):
    app = open_page("search", make_run(tmp_path / "world"))
    assert "Texts cannot be searched for" in words(app)
    assert "teachers.json" in words(app)
    assert not app.exception


def test_search__says_what_is_wrong_with_a_uid(run, open_page):
    app = open_page("search", run)
    app.button_group(key="by").set_value("a pair").run()
    known = str(UUID(names(run, [0])[0]))
    for wrong, said in (
        ("nonsense <b>", "the pair: expected"),
        ("0" * 32, "expected a pair of the run"),
        (f"{known}0", "the pair: expected"),
        (known.replace("-", "") + "0", "the pair: expected"),
        (known.replace("-", "_"), "the pair: expected"),
    ):
        app.text_input(key="like").set_value(wrong).run()
        assert not app.exception
        assert "This search cannot be made" in words(app)
        assert said in words(app)
        assert "row 0" not in words(app)


@pytest.mark.parametrize("written", [str, str.upper, lambda uid: f"  {UUID(uid)} ", lambda uid: str(UUID(uid)).upper()])
def test_search__takes_a_uid_however_it_is_written(run, open_page, written):
    app = open_page("search", run)
    app.button_group(key="by").set_value("a pair").run()
    uid = names(run, [3])[0]
    app.text_input(key="like").set_value(written(uid)).run()
    assert not app.exception
    assert f"that of pair {uid[:8]}" in words(app)
    assert found(app) == search_run(Run.open(run), uid, limit=96).names[:48]


def test_search__says_that_the_teacher_failed_and_asks_again_when_told(run, open_page):
    weights = run.parent / "teacher" / "open_clip_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(b"no weights")
    app = open_page("search", run)
    app.session_state["q"] = "two red birds"
    app.run(timeout=PATIENCE_S)
    assert not app.exception
    assert "a teacher that open_clip can load" in words(app)
    weights.write_bytes(good)
    app.run()
    assert "a teacher that open_clip can load" in words(app)
    app.button(key="ask teacher again").click().run(timeout=PATIENCE_S)
    assert len(found(app)) == 48
    encoders.end_all()


def test_search__waiting_for_the_teacher_can_be_stopped(run, open_page, monkeypatch):
    """AppTest cannot click while the script waits: the button's callback is called as the click would call it."""
    stopped = []
    monkeypatch.setattr(queries, "_SECONDS_UNSAID", 0)
    monkeypatch.setattr(encoders.Encoder, "text", lambda self, text: Future())
    monkeypatch.setattr(encoders.Encoder, "stop", lambda self, answer: stopped.append(answer))

    def wait(answers, timeout):
        if timeout and not answers[0].done():
            queries._stop(queries._encoder(Run.open(run)), answers[0])
            answers[0].set_exception(TeacherError("t", expected="an answer", found="stopped"))
        return SimpleNamespace(done=answers[0].done())

    monkeypatch.setattr(queries, "wait", wait)
    app = open_page("search", run)
    app.text_input(key="q").set_value("two red birds").run()
    app.run()
    assert "Stopped before the teacher had answered" in words(app)
    assert len(stopped) == 1
    monkeypatch.setattr(encoders.Encoder, "text", lambda self, text: answered())
    app.button(key="ask teacher again").click().run()
    assert len(found(app)) == 48


def test_search__loads_the_teacher_when_the_page_opens(run, open_page, monkeypatch):
    warmed = []
    monkeypatch.setattr(encoders.Encoder, "warm", lambda self: warmed.append(self))
    app = open_page("search", run)
    assert len(warmed) == 1
    app.button_group(key="by").set_value("a pair").run()
    assert len(warmed) == 1


def test_search__by_an_uploaded_picture(run, images, asked, open_page):
    app = open_page("search", run)
    upload(app, "My <b>picture.png", encoded(drawn(1), "PNG"))
    assert not app.exception
    assert found(app)[:5] == names(run, np.argsort(-images[:, 0])[:5])
    (shown,) = components(app, "clipsel_picture")
    assert shown["src"].startswith("data:image/png;base64,")
    assert "My &lt;b&gt;picture.png" in words(app)
    app.selectbox(key="search_size").set_value(24).run()
    assert asked == [encoded(drawn(1), "PNG")]
    app.switch_page("gallery.py").run()
    app.switch_page("search.py").run()
    assert len(components(app, "clipsel_picture")) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<svg onload='pwned=1'/>", "none of JPEG, PNG, WEBP, GIF"),
        (encoded(drawn(1))[:300], "a broken one"),
        (encoded(Image.new("1", (8001, 8001)), "PNG"), "more than 64,000,000 pixels"),
        (encoded(Image.new("1", (20000, 10000)), "PNG"), "more than 64,000,000 pixels"),
        (encoded(drawn(1), "PPM"), "none of JPEG"),
    ],
)
def test_search__refuses_what_is_no_picture(run, asked, open_page, content, why):
    app = open_page("search", run)
    upload(app, "a.png", content)
    assert not app.exception
    assert "This search cannot be made" in words(app)
    assert why in words(app)
    assert asked == []


def test_search__of_a_large_run_looks_at_a_sample_and_offers_the_rest(run, images, asked, open_page, monkeypatch):
    monkeypatch.setattr(results, "AT_ONCE", 100)
    monkeypatch.setattr(results, "SAMPLE", 500)
    (run / "projection.parquet").unlink()
    started = []
    monkeypatch.setattr(jobs.control, "start", lambda *args, **options: started.append(args))
    app = open_page("search", run)
    app.text_input(key="q").set_value("two red birds").run()
    assert "of the 500 pairs drawn at random" in words(app)
    app.button(key="search all").click().run()
    assert not app.exception
    ((_, command, paths, options),) = started
    assert (command, [str(path) for path in paths]) == ("search", [str(run)])
    assert options["text"] == "two red birds"
    assert Path(options["vector"]).is_file()
    assert Path(options["out"]).parent == run / "searches"
    upload(app, "a picture.png", encoded(drawn(1), "PNG"))
    app.button(key="search all").click().run()
    options = started[-1][3]
    assert Path(options["image"]).read_bytes() == encoded(drawn(1), "PNG")
    assert Path(options["image"]).name.startswith("a-picture-")
    assert Path(options["vector"]).is_file()


def test_search__leads_to_what_a_search_of_everything_found(run, asked, open_page, monkeypatch):
    monkeypatch.setattr(results, "AT_ONCE", 100)
    started = []
    monkeypatch.setattr(jobs.control, "start", lambda *args, **options: started.append(args))
    app = open_page("search", run)
    app.text_input(key="q").set_value("two red birds").run()
    app.button(key="search all").click().run()
    result = search_run(Run.open(run), np.eye(64)[1], limit=60)
    said = SearchQuery(query="two red birds", by="text", side="image", among="pool", pairs=result.pairs)
    write_search(started[0][3]["out"], result, said)
    app.run()
    assert found(app) != result.names[:48]
    assert [link.proto.query_string for link in app.get("page_link")] == [f"kept={started[0][3]['out'].name}"]
    app.query_params["kept"] = started[0][3]["out"].name
    app.run()
    assert not app.exception
    assert found(app) == result.names[:48]
    earlier(app).set_value(None).run()
    assert "kept" not in app.query_params
    assert found(app) != result.names[:48]
    earlier(app).set_value(started[0][3]["out"].name).run()
    assert app.query_params["kept"] == started[0][3]["out"].name
    app.text_input(key="q").set_value("a green house").run()
    assert not app.exception
    assert "“a green house”" in words(app)
    assert "kept" not in app.query_params


def test_search__shows_what_a_job_found_in_the_whole_pool(run, open_page, monkeypatch):
    opened = Run.open(run)
    result = search_run(opened, np.eye(64)[1], limit=60)
    said = SearchQuery(query="<i>cats</i>", by="text", side="image", among="pool", pairs=result.pairs)
    write_search(run / "searches" / "a.parquet", result, said)
    looked_at = []
    monkeypatch.setattr(jobs, "looked_at", lambda *args: looked_at.append(tuple(map(Path, args))))
    app = open_page("search", run)
    assert looked_at == []
    earlier(app).set_value("a.parquet").run()
    assert not app.exception
    assert found(app) == result.names[:48]
    assert "&lt;i&gt;cats" in words(app)
    assert set(looked_at) == {(run / "searches" / "a.parquet", run)}


def test_search__says_that_a_kept_search_is_damaged(run, open_page):
    (run / "searches").mkdir()
    (run / "searches" / "a.parquet").write_bytes(b"no")
    app = open_page("search", run)
    assert not app.exception
    assert "search again" in words(app)


@pytest.mark.parametrize(
    "said",
    [
        b"[]",
        b"{",
        b'{"query": 7, "by": "text", "side": "image", "among": "pool", "pairs": 1}',
        b'{"query": "x", "by": "text", "side": "both", "among": "pool", "pairs": 1}',
        b'{"query": "x", "by": "text", "side": "image", "among": "pool", "pairs": []}',
    ],
)
def test_search__a_damaged_search_hides_no_other_one(run, open_page, said):
    table = ScoreTable.open(Run.open(run))
    result = search_run(Run.open(run), uids.to_hex(table.uids_at(np.array([0])))[0].as_py())
    asked = SearchQuery(query="two red birds", by="text", side="image", among="pool", pairs=result.pairs)
    write_search(run / "searches" / "good.parquet", result, asked)
    whole = pq.read_table(run / "searches" / "good.parquet")
    pq.write_table(whole.replace_schema_metadata({b"clipsel.search": said}), run / "searches" / "bad.parquet")
    app = open_page("search", run)
    assert not app.exception
    assert len([block for block in app.get("code") if "bad.parquet" in block.value]) == 1
    (box,) = [box for box in app.selectbox if box.label == "Found in the whole pool"]
    assert box.options == ["Images like “two red birds”"]
