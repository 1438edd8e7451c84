"""Each page opens without an exception on every run there can be, and says what to do where something is missing."""

from __future__ import annotations

import json
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from clipsel_core.runs.store import Outcome, Planned, Run, ShardInfo, write_config
from pages.parts import catalog, messages, state
from tests.pages.conftest import MAIN, PAGES, words
from tests.pages.worlds import HOSTILE, LACKING, add_recipe, make_run
from tests.waiting import PATIENCE_S

DEMO = Path(__file__).parents[2] / "data" / "demo" / "run"
WORLDS = {
    "usual": {},
    **LACKING,
    "unfinished": {"finished": 1},
    "nothing_finished": {"finished": 0, "projection": False},
    "hostile": {"captions": HOSTILE, "urls": HOSTILE, "kinds": HOSTILE},
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("world", WORLDS)
def test_page__opens_on_any_run(world, page, tmp_path, open_page):
    app = open_page(page, make_run(tmp_path / "world", **WORLDS[world]))
    assert not app.exception
    assert app.title[0].value.lower() == page or "scored" in words(app)


@pytest.mark.parametrize("page", PAGES)
def test_page__opens_on_the_demo(page, open_page):
    app = open_page(page, DEMO)
    assert not app.exception
    assert app.title[0].value.lower() == page


def test_page__opens_without_any_run(open_page):
    app = open_page("overview")
    assert not app.exception
    assert "clipsel demo" in words(app)
    assert "clipsel score" in words(app)
    assert [found.label for found in app.button] == ["Make a pool", "Score a pool"]


def test_page__names_a_folder_that_holds_no_run(tmp_path, open_page):
    app = open_page("overview", tmp_path / "elsewhere")
    assert str(tmp_path / "elsewhere") in words(app)
    assert not app.exception


def test_page__says_what_is_wrong_with_a_damaged_run(tmp_path, open_page):
    run = make_run(tmp_path / "world")
    (run / "run.json").write_text('{"format": 7}', encoding="utf-8")
    app = open_page("overview", run)
    assert not app.exception
    assert "cannot be shown" in words(app)
    assert "run.json" in words(app)


def test_page__says_what_is_wrong_with_a_damaged_score_file(tmp_path, open_page):
    run = make_run(tmp_path / "world")
    (run / "scores" / "00000000.parquet").write_bytes(b"PAR1 not at all")
    for page in PAGES:
        app = open_page(page, run)
        assert not app.exception
        assert "00000000.parquet" in words(app)


def test_overview__shows_progress_and_how_to_go_on(tmp_path, open_page):
    app = open_page("overview", make_run(tmp_path / "world", finished=1))
    assert "This run is unfinished" in words(app)
    assert "clipsel score" in words(app)
    assert "killed" in words(app)


def test_overview__names_the_command_with_all_that_it_said(tmp_path):
    run = make_run(tmp_path / "a world", finished=1)
    said = shlex.split(messages.score_again(Run.open(run)))
    world = tmp_path / "a world"
    assert said[:3] == ["clipsel", "score", str(world / "pool")]
    assert said[3:] == [str(run), "--arch", "demo", "--target", f"task={world / 'task.npy'}"]


@pytest.mark.parametrize(("age_s", "watched"), [(1, True), (600, False)])
def test_overview__believes_running_only_while_it_is_news(tmp_path, open_page, age_s, watched):
    run = make_run(tmp_path / "world", finished=1)
    status = json.loads((run / "status.json").read_text())
    status |= {"state": "running", "updated_at": (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()}
    (run / "status.json").write_text(json.dumps(status))
    app = open_page("overview", run)
    assert not app.exception
    assert ("This run is unfinished" in words(app)) != watched


def test_overview__writes_many_shards_as_it_writes_pairs(tmp_path, open_page):
    run = make_run(tmp_path / "world", finished=1)
    more = tuple(ShardInfo(name=f"{number:08d}", rows=1) for number in range(2, 1280))
    config = Run.open(run).config
    write_config(run, config.model_copy(update={"shards": (*config.shards, *more)}))
    (shards,) = (found.value for found in open_page("overview", run).metric if found.label == "Shards")
    assert shards == "1 of 1,280"


def test_overview__says_what_the_run_was_to_take_and_took(tmp_path, open_page):
    run = make_run(tmp_path / "world")
    config = Run.open(run).config
    assert "Planned" not in words(open_page("overview", run))
    assert "Took" not in words(open_page("overview", run))
    plan = Planned(bytes_read=39_300_000_000, operations=5 * 10**15, seconds=3725, cpu_seconds=7200)
    outcome = Outcome(pairs=config.pairs, seconds=61, cpu_seconds=120, bytes_read=39_300_000_000, workers=2)
    write_config(run, config.model_copy(update={"plan": plan, "outcome": outcome}))
    said = words(open_page("overview", run))
    assert "1 h 2 min (2 h 0 min of one core); 39.3 GB to read, 5 PFLOP to compute" in said
    assert "1 min 1 s (2 min 0 s of one core); 39.3 GB read, by 2 workers</dd>" in said
    some = outcome.model_copy(update={"pairs": 5, "workers": 1})
    counted_only = plan.model_copy(update={"seconds": None, "cpu_seconds": None})
    write_config(run, config.model_copy(update={"plan": counted_only, "outcome": some}))
    said = words(open_page("overview", run))
    assert "<dd>39.3 GB to read, 5 PFLOP to compute</dd>" in said
    assert f"39.3 GB read; known of 5 of {config.pairs} pairs</dd>" in said


def test_overview__says_all_that_a_saved_recipe_does(tmp_path, open_page):
    run = make_run(tmp_path / "world")
    add_recipe(run, "long", "steps:\n" + "- {metric: s_cliploss, keep_top: 0.5}\n" * 9)
    assert ", then ".join(["top 50 % of the pool by s-CLIPLoss"] * 9) in words(open_page("overview", run))


def test_overview__says_how_to_make_a_map(tmp_path, open_page):
    run = make_run(tmp_path / "world", projection=False)
    for page in ("overview", "map"):
        assert f"clipsel project {run}" in words(open_page(page, run))


def test_overview__says_that_the_pool_is_gone(tmp_path, open_page):
    run = make_run(tmp_path / "world", images=False)
    (tmp_path / "world" / "pool").rename(tmp_path / "world" / "moved")
    for page in PAGES:
        assert not open_page(page, run).exception
    assert "pool is not where the run remembers it" in words(open_page("overview", run))


def test_overview__says_that_the_pool_lies_in_a_store(tmp_path, open_page):
    run = make_run(tmp_path)
    said = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(said | {"pool": "s3://bucket/pool"}))
    app = open_page("overview", run)
    assert "The pool lies in a store" in words(app)
    assert "not where the run remembers it" not in words(app)


def test_overview__says_when_the_scores_were_finished(tmp_path, open_page):
    run = make_run(tmp_path / "world")
    assert "<dt>Scored</dt><dd>not recorded</dd>" in words(open_page("overview", run))
    status = {"state": "done", "updated_at": "2026-03-04T17:05:59+02:00", "pairs_per_s": 1234.4}
    (run / "status.json").write_text(json.dumps(status))
    said = "<dt>Scored</dt><dd>finished 4 Mar 2026, 15:05 UTC, at 1,234 pairs/s</dd>"
    assert said in words(open_page("overview", run))


def test_overview__shows_no_numbers_where_nothing_is_scored(tmp_path, open_page):
    app = open_page("overview", make_run(tmp_path / "world", **LACKING["no_scores"]))
    table = app.dataframe[0].value.set_index("metric")
    assert table.loc[["CLIPScore", "s-CLIPLoss"], ["5 %", "median", "95 %"]].isna().all(axis=None)
    assert table.loc["r image"].notna().all()
    assert "With their r image and its percentile" in words(app)


def test_run__that_is_not_here_is_not_replaced_in_silence(tmp_path, open_page):
    run = make_run(tmp_path / "world")
    app = open_page("overview", run)
    assert "This run is not here" not in words(app)
    other = make_run(tmp_path / "another")
    catalog.allow([other])
    app.run()
    assert "This run is not here" in words(app)
    assert "<dd>world/run</dd>" in words(app)
    assert "<dd>another/run</dd>" in words(app)
    app.switch_page("select.py").run()
    assert "This run is not here" in words(app)
    app.button(key="go on with this").click().run()
    assert "This run is not here" not in words(app)


def test_run__of_a_link_that_is_not_here(tmp_path, open_page, monkeypatch):
    open_page("overview", make_run(tmp_path / "world"))
    app = AppTest.from_file(str(MAIN), default_timeout=PATIENCE_S)
    app.query_params["run"] = "<b>gone</b>/run"
    app.run()
    assert "<dd>&lt;b&gt;gone&lt;/b&gt;/run</dd>" in words(app)
    app.selectbox(key="run").set_value("world/run").run()
    assert not app.exception


def test_open_picker__is_one_for_sessions_that_come_together(tmp_path, monkeypatch):
    entry = catalog.Entry("together", make_run(tmp_path / "world"))
    made = []

    class Slow(state.Picker):
        def __init__(self, table):
            time.sleep(0.2)
            made.append(self)
            super().__init__(table)

    monkeypatch.setattr(state, "Picker", Slow)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(state.open_picker, [entry] * 4))
    assert len(made) == 1
    assert all(picker is made[0] for picker in found)


DAMAGED = [b"", b"{", b"null", b"[]", b"7", b'"done"', b'{"state": "running", "pairs_done": "many"}', b"\xff\xfe{}"]
DAMAGED += [
    b'{"state": 7}',
    b'{"updated_at": 3e400}',
    b'{"updated_at": "2026-01-01T00:00:00"}',
    b'{"pairs_done": -5, "pairs_total": 0, "pairs_per_s": NaN}',
    b'{"message": {"a": 1}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("said", DAMAGED)
def test_overview__goes_on_without_a_status_that_can_be_read(tmp_path, open_page, said):
    run = make_run(tmp_path / "world", finished=len(said) % 2 + 1)
    (run / "status.json").write_bytes(said)
    app = open_page("overview", run)
    assert not app.exception
    (line,) = [block.value for block in app.get("code") if "status.json" in block.value]
    assert "expected how far the run is" in line
    assert "\n" not in line
    assert "How it was made" in words(app)


def test_overview__goes_on_with_a_status_that_says_little(tmp_path, open_page):
    run = make_run(tmp_path / "world", finished=1)
    for said in ("{}", '{"pairs_total": 0}', '{"more": 1, "pairs_done": 100, "pairs_total": 60}'):
        (run / "status.json").write_text(said)
        app = open_page("overview", run)
        assert not app.exception
        assert "status.json" not in words(app)


@pytest.mark.parametrize("file", ["job.json", "status.json", "log"])
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b'{"state": "running", "done": -1, "total": 5, "per_s": 1e999}',
        b'{"title": "x", "words": [], "about": "/x", "created": "2026-01-01T00:00:00Z"}',
        b'{"title": "x", "words": ["score"], "about": "\\u0000", "created": "2026-01-01T00:00:00"}',
    ],
)
def test_page__goes_on_beside_a_damaged_job(tmp_path, open_page, file, said):
    run = make_run(tmp_path / "world")
    folder = tmp_path / "nothing" / ".jobs" / "20260101-000000-000000-abcd"
    folder.mkdir(parents=True)
    info = {"title": "x", "words": ["score"], "about": str(run), "created": "2026-01-01T00:00:00Z", "pid": 1}
    (folder / "job.json").write_text(json.dumps({**info, "birth": "x"}))
    (folder / file).write_bytes(said)
    app = open_page("overview", run)
    assert not app.exception
    assert app.title[0].value == "Overview"
