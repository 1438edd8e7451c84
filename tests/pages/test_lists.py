"""Lists of uids become steps, and nothing of a user's file but its uids gets onto the server's disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.curation.selecting.selection import select
from clipsel_core.errors import UidError
from clipsel_core.runs.store import Run
from pages.parts import recipes
from tests.pages.conftest import words
from tests.pages.test_select import kept
from tests.pages.worlds import make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "world")


def first_uids(run, number: int) -> np.ndarray:
    return uids.sort(ScoreTable.open(Run.open(run)).uids_at(np.arange(number)))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("hype.txt", "hype"),
        ("../../etc/cron.d/evil.txt", "evil"),
        ("<script>alert(1)</script>.TXT", "script"),
        ("...txt.txt", "txt"),
        ("\u202e\u0000 x" + "long" * 99 + ".txt", "x" + "long" * 9 + "lon"),
        ("....txt", "list"),
    ],
)
def test_store__keeps_a_list_under_a_name_of_our_own(run, name, stem):
    opened, listed = Run.open(run), first_uids(run, 5)
    said = recipes.store_list(opened, name, "\n".join(uids.to_hex(listed).to_pylist()).encode())
    file = Path(opened.recipes_dir) / said
    assert file.parent == Path(opened.recipes_dir) / "lists"
    assert file.name.startswith(stem)
    assert file.name.isascii()
    assert np.array_equal(read_uid_list(file), listed)
    assert said in recipes.list_files(opened)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(("name", "content"), [("a.txt", b"no uid"), ("a.npy", b"junk"), ("a.pkl", b""), ("a", b"1")])
def test_store__refuses_what_is_no_list(run, name, content):
    opened = Run.open(run)
    with pytest.raises(UidError, match=f"^{name}"):
        recipes.store_list(opened, name, content)
    assert recipes.list_files(opened) == []


def test_known__leaves_out_what_lies_elsewhere(run, tmp_path):
    opened = Run.open(run)
    uids.write_subset(tmp_path / "outside.npy", first_uids(run, 3))
    (Path(opened.recipes_dir) / "link.npy").symlink_to(tmp_path / "outside.npy")
    uids.write_subset(Path(opened.exports_dir) / "mine.npy", first_uids(run, 3))
    assert recipes.list_files(opened) == ["../exports/mine.npy"]


@pytest.mark.parametrize(
    ("rule", "key"), [("only those in", "intersect"), ("add those in", "union"), ("leave out those in", "subtract")]
)
def test_adder__adds_a_list_of_the_run(run, open_page, rule, key):
    uids.write_subset(run / "recipes" / "some.npy", first_uids(run, 50))
    app = open_page("select", run)
    app.button_group(key="list rule").set_value(rule).run()
    app.selectbox(key="list file").set_value("some.npy").run()
    app.button(key="add list").click().run()
    assert not app.exception
    assert "50 listed, 0 not in this run" in words(app)
    start = "{metric: s_cliploss, keep_top: 0.3}, {metric: normsim_inf_task, keep_top: 0.2}"
    recipe = parse_recipe(f"steps: [{start}, {{{key}: some.npy}}]", folder=run / "recipes")
    assert kept(app) == len(select(Run.open(run), recipe))


def test_adder__counts_repeats_where_that_is_asked(run, open_page):
    np.save(run / "recipes" / "some.npy", np.repeat(first_uids(run, 60), 2))
    app = open_page("select", run)
    app.selectbox(key="list file").set_value("some.npy").run()
    app.toggle(key="list counts").set_value(True).run()
    app.button(key="add list").click().run()
    assert not app.exception
    start = "{metric: s_cliploss, keep_top: 0.3}, {metric: normsim_inf_task, keep_top: 0.2}"
    recipe = parse_recipe(f"steps: [{start}, {{intersect: some.npy, counts: true}}]", folder=run / "recipes")
    samples = select(Run.open(run), recipe).samples
    assert f"not in this run; {samples:,} samples" in words(app)
    assert samples == 2 * kept(app)
