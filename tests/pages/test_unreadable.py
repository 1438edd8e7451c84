"""A run that vanishes while it is looked at: one line and a way back, whatever was being drawn or done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pages.parts import unreadable
from tests.pages.conftest import MAIN, press, thumbs, words
from tests.pages.worlds import make_run


def test_pages__draw_nothing_apart_without_a_guard():
    sources = {path.name: path.read_text() for path in MAIN.parent.rglob("*.py")}
    assert [name for name, text in sources.items() if re.search(r"st\.(fragment|dialog)\b", text)] == ["unreadable.py"]


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
    monkeypatch.setattr(unreadable, "show", said.append)
    monkeypatch.setattr(unreadable.st, "fragment", lambda draw, run_every: draw)

    def draw(path: Path) -> None:
        path.read_bytes()

    unreadable.fragment(draw)(Path("/nowhere/run.json"))
    assert unreadable.in_words(said[0]) == "/nowhere/run.json: No such file or directory"
