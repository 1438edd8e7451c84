"""A run that vanishes while it is looked at: one line and a way back, whatever was being drawn or done."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core.jobs.control import listing
from clipsel_core.runs.added import add_target
from clipsel_core.runs.local import score
from pages.parts import catalog, messages, sessions
from tests.conftest import rewrite_npz, unit_rows, write_shard
from tests.jobs import stand_in
from tests.jobs.stand_in import ended
from tests.pages.conftest import MAIN, PAGES, press, thumbs, words
from tests.pages.worlds import make_run


def test_pages__draw_nothing_apart_without_a_guard():
    sources = {path.name: path.read_text() for path in MAIN.parent.rglob("*.py")}
    assert [name for name, text in sources.items() if re.search(r"st\.(fragment|dialog)\b", text)] == ["sessions.py"]


def act_on_select(app):
    thumbs(app)[0].set_value(10.0).run()


def act_on_gallery(app):
    cards = next(part for part in app.get("bidi_component") if part.proto.component_name == "clipsel_cards")
    press(app, cards.proto.id, "keep", uid="00000000000000070000000000000000")


def jump(app):
    app.number_input(key="jump").set_value(50.0).run()


def change_rule(app):
    app.selectbox(key="rule-0").set_value("at_least").run()


@pytest.mark.parametrize(
    ("page", "act"),
    [("select", act_on_select), ("select", change_rule), ("gallery", act_on_gallery), ("gallery", jump)],
)
@pytest.mark.parametrize("gone", ["run", "run/run.json", "run/scores"])
def test_page__acted_on_after_its_run_is_gone(tmp_path, open_page, page, act, gone):
    make_run(tmp_path / "other")
    run = make_run(tmp_path / "world")
    app = open_page(page, run)
    (tmp_path / "world" / gone).rename(tmp_path / "away")
    act(app)
    assert not app.exception
    said = words(app)
    assert any(line in said for line in ("expected a run's folder", "No shard is finished yet"))


def test_fragment__says_what_is_wrong_in_one_line(monkeypatch):
    said = []
    monkeypatch.setattr(sessions, "show_unreadable", said.append)
    monkeypatch.setattr(sessions.st, "fragment", lambda draw, run_every: draw)

    def draw(path: Path) -> None:
        path.read_bytes()

    sessions.fragment(draw)(Path("/nowhere/run.json"))
    assert messages.error_text(said[0]) == "/nowhere/run.json: No such file or directory"


@pytest.fixture
def whole(tmp_path):
    """A scored run whose files have seals."""
    for seed in range(3):
        write_shard(tmp_path / "pool", f"{seed:08d}", 40, seed=seed)
    for name in ("task", "more"):
        np.save(tmp_path / f"{name}.npy", unit_rows(5, 16, 3))
    targets = {"task": tmp_path / "task.npy"}
    score(tmp_path / "pool", tmp_path / "run", targets=targets, batch_size=32, divisions=2)
    return add_target(tmp_path / "run", "more", tmp_path / "more.npy").root


def flip_a_bit(file, column) -> None:
    """Damages the last value of a column but one."""
    file = Path(file)
    group = pq.ParquetFile(file).metadata.row_group(0)
    chunk = next(found for found in map(group.column, range(group.num_columns)) if found.path_in_schema == column)
    data = bytearray(file.read_bytes())
    data[(chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 6] ^= 1
    file.write_bytes(data)


DAMAGED = "expected scores as written, found other values of"
REMEDY = "start score again as before: it makes shard 00000001 anew and keeps the others"


@pytest.mark.parametrize("column", ["uid_lo", "clip_score", "s_cliploss", "r_image", "normsim_inf_task"])
@pytest.mark.parametrize("page", PAGES)
def test_page__of_a_damaged_run_says_so_in_one_line(whole, open_page, page, column):
    flip_a_bit(whole / "scores" / "00000001.parquet", column)
    app = open_page(page, whole)
    assert not app.exception
    assert [title.value for title in app.title] == [page.capitalize()]
    said = [code.value for code in app.code if "expected scores as written" in code.value]
    assert len(said) == len(app.error)
    assert "does not fit" not in words(app)
    if page in ("overview", "select", "gallery"):
        assert len(said) <= 1
    if page == "overview" or (page, column) in (("gallery", "uid_lo"), ("select", "uid_lo"), ("select", "s_cliploss")):
        assert said == [f"{whole}/scores/00000001.parquet: {DAMAGED} {column}; {REMEDY}"]


def test_gallery__by_a_damaged_metric_leads_back_to_the_others(whole, open_page):
    flip_a_bit(whole / "scores" / "00000001.parquet", "r_image")
    app = open_page("gallery", whole)
    assert not app.error
    app.selectbox(key="metric").set_value("r_image").run()
    assert not app.exception
    assert [code.value.split("; ")[0][-8:] for code in app.code] == [" r_image"]
    app.selectbox(key="metric").set_value("clip_score").run()
    assert not app.error


def test_overview__of_a_damaged_run_goes_on_and_mends_it(whole, open_page, tmp_path, monkeypatch):
    stand_in.install(tmp_path / "home", monkeypatch, "finish")
    flip_a_bit(whole / "scores" / "00000001.parquet", "s_cliploss")
    app = open_page("overview", whole)
    shown = words(app)
    for said in ("How it was made", "Targets", "No recipe saved"):
        assert said in shown
    assert [(metric.label, metric.value) for metric in app.metric][:2] == [
        ("Pairs scored", "120"),
        ("Shards", "3 of 3"),
    ]
    app.button(key="score again").click().run()
    (job,) = listing(catalog.jobs_folder())
    assert job.info.words[:3] == ("score", str(whole.parent / "pool"), str(whole))
    ended(job)
    score(whole.parent / "pool", whole, targets={"task": tmp_path / "task.npy"}, batch_size=32, divisions=2)
    app.run()
    assert not app.error
    assert "A few pairs at random" in words(app)


def test_overview__of_a_damaged_target_says_which_command_mends_it(whole, open_page):
    flip_a_bit(whole / "added" / "more" / "00000001.parquet", "normsim_2_more")
    app = open_page("overview", whole)
    (said,) = (code.value for code in app.code if "expected scores as written" in code.value)
    assert said.startswith(f"{whole}/added/more/00000001.parquet: {DAMAGED} normsim_2_more; start add-target again")
    assert "score again" not in [button.key for button in app.button]


@pytest.mark.parametrize(("how", "scaled", "aside"), [("scale", 3, 1), ("skip", 0, 4)])
def test_overview__counts_rows_that_were_scaled_or_set_aside(tmp_path, open_page, how, scaled, aside):
    _, npz = write_shard(tmp_path / "pool", "00000000", 40)
    with np.load(npz) as archive:
        image = archive["l14_img"]
    image[[1, 5, 9]] *= 3
    image[7] = 0
    rewrite_npz(npz, l14_img=image)
    run = score(tmp_path / "pool", tmp_path / "run", on_bad_rows=how, batch_size=32, divisions=2).root
    said = words(open_page("overview", run))
    assert ("Scaled to unit length: 3 rows of another length." in said) == bool(scaled)
    assert f"Set aside: {aside} row{'s' * (aside > 1)} without embeddings" in said
