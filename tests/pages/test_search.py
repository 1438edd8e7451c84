"""The Search page finds what a float64 search does, asks the teacher once, and says what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.score_table import ScoreTable
from clipsel_core.curation.searches import Asked, search_run, write_search, write_vector
from clipsel_core.runs.store import Run
from pages.parts import jobs, sample, teacher
from tests.pages.conftest import components, words
from tests.pages.worlds import make_run

DEMO = Path(__file__).parents[2] / "data" / "demo"


@pytest.fixture
def run(tmp_path):
    """A copy of the demo without its images."""
    shutil.copytree(DEMO, tmp_path / "demo", ignore=shutil.ignore_patterns("shards", "exports", "cache"))
    return tmp_path / "demo" / "run"


@pytest.fixture
def images(run):
    parts = [np.load(shard.npz)["demo_img"].astype(np.float64) for shard in ScoreTable.open(Run.open(run)).pool.shards]
    rows = np.concatenate(parts)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def asked(monkeypatch):
    """Texts that the teacher was asked for; it answers all with the same direction."""
    texts = []

    def ask(run, text, out):
        texts.append(text)
        write_vector(out, np.eye(64, dtype=np.float32)[0])

    monkeypatch.setattr(teacher, "_ask", ask)
    return texts


def found(app, place: int = 0) -> list[str]:
    return [card["uid"] for card in components(app, "clipsel_cards")[place]["cards"]]


def names(run, rows) -> list[str]:
    return uids.to_hex(ScoreTable.open(Run.open(run)).uids_at(np.asarray(rows))).to_pylist()


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


def test_search__by_text_with_the_demos_own_teacher(run, open_page):
    app = open_page("search", run)
    app.session_state["q"] = "two red birds"
    app.run(timeout=120)
    assert not app.exception
    vector = teacher.vector_of_text(Run.open(run), "two red birds")
    expected = search_run(Run.open(run), vector, limit=48)
    assert found(app) == expected.names


def test_search__says_that_the_teacher_is_not_at_hand(tmp_path, open_page):
    app = open_page("search", make_run(tmp_path / "world"))
    assert "Texts cannot be searched for" in words(app)
    assert "teachers.json" in words(app)
    assert not app.exception


def test_search__says_what_is_wrong_with_a_uid(run, open_page):
    app = open_page("search", run)
    app.button_group(key="by").set_value("a pair").run()
    for wrong in ("nonsense <b>", "0" * 32):
        app.text_input(key="like").set_value(wrong).run()
        assert not app.exception
        assert "This search cannot be made" in words(app)


def test_search__says_that_the_teacher_failed(run, open_page):
    (run.parent / "teacher" / "open_clip_model.safetensors").write_bytes(b"no weights")
    app = open_page("search", run)
    app.session_state["q"] = "two red birds"
    app.run(timeout=120)
    assert not app.exception
    assert "a teacher that open_clip can load" in words(app)


def test_search__does_not_wait_for_the_teacher_forever(run, open_page, monkeypatch):
    monkeypatch.setattr(teacher, "_LONGEST_S", 0)
    children = []
    start = teacher.subprocess.Popen
    monkeypatch.setattr(teacher.subprocess, "Popen", lambda *a, **o: children.append(start(*a, **o)) or children[-1])
    app = open_page("search", run)
    app.text_input(key="q").set_value("two red birds").run()
    assert not app.exception
    assert "expected an answer within 0 s" in words(app)
    assert [child.returncode for child in children] == [-9]
    assert teacher._alone.acquire(blocking=False)
    teacher._alone.release()


def test_search__of_a_large_run_looks_at_a_sample_and_offers_the_rest(run, images, asked, open_page, monkeypatch):
    monkeypatch.setattr(sample, "_SMALL", 100)
    monkeypatch.setattr(sample, "_SAMPLE", 500)
    (run / "projection.parquet").unlink()
    started = []
    monkeypatch.setattr(jobs.control, "start", lambda *args, **options: started.append(args))
    app = open_page("search", run)
    app.text_input(key="q").set_value("two red birds").run()
    assert "of the 500 pairs drawn at random" in words(app)
    app.button(key="search all").click().run()
    assert not app.exception
    ((_, command, paths, options),) = started
    assert (command, paths) == ("search", [run])
    assert options["text"] == "two red birds"
    assert Path(options["vector"]).is_file()
    assert options["out"].parent == run / "searches"


def test_search__shows_what_a_job_found_in_the_whole_pool(run, open_page):
    opened = Run.open(run)
    result = search_run(opened, np.eye(64)[1], limit=60)
    said = Asked(query="<i>cats</i>", by="text", side="image", among="pool", pairs=result.pairs)
    write_search(run / "searches" / "a.parquet", result, said)
    app = open_page("search", run)
    app.selectbox(key="kept search").set_value("a.parquet").run()
    assert not app.exception
    assert found(app) == result.names[:48]
    assert "&lt;i&gt;cats" in words(app)


def test_search__says_that_a_kept_search_is_damaged(run, open_page):
    (run / "searches").mkdir()
    (run / "searches" / "a.parquet").write_bytes(b"no")
    app = open_page("search", run)
    assert not app.exception
    assert "search again" in words(app)
