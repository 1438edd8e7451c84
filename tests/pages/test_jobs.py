"""Jobs on the pages: started where something is missing, watched, cancelled, started again, forgotten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clipsel_core import status
from clipsel_core.jobs import control
from clipsel_core.jobs.control import listing
from pages.parts import catalog, state
from pages.parts.jobs import jobs
from pages.parts.search import queries, results
from tests.jobs import stand_in
from tests.jobs.stand_in import ended
from tests.pages.conftest import components, words
from tests.pages.worlds import add_target_by_hand, make_run
from tests.waiting import until


def button(app, label):
    return next(found for found in app.button if found.label == label)


def labels(app):
    return [found.label for found in app.button]


@pytest.fixture
def run(tmp_path, monkeypatch):
    stand_in.install(tmp_path / "home", monkeypatch, "wait")
    return make_run(tmp_path / "world", projection=False)


def test_map__is_made_as_a_job_and_cancelled(run, open_page):
    app = open_page("map", run)
    app.number_input[0].set_value(20)
    button(app, "Make a map").click().run()
    assert not app.exception
    (job,) = listing(catalog.jobs_folder())
    assert job.info.words == ("project", str(run), "--sample=20")
    assert "Make a map" not in labels(app)
    assert "Map of 20 pairs" in words(app)
    until(lambda: "at work" in job.log_tail)
    button(app, "Cancel").click().run()
    assert ended(job) == "cancelled"
    app.run()
    assert "cancelled after" in words(app)
    assert "Make a map" in labels(app)
    button(app, "Start again").click().run()
    (other,) = listing(catalog.jobs_folder())
    assert other.id != job.id
    until(lambda: other.state == "running")
    control.cancel(other)
    ended(other)


def test_panel__shows_who_waits_and_cancels_them(run, tmp_path, open_page):
    app = open_page("map", run)
    button(app, "Make a map").click().run()
    (first,) = listing(catalog.jobs_folder())
    until(lambda: first.state == "running")
    other = make_run(tmp_path / "other", projection=False)
    app = open_page("map", other)
    button(app, "Make a map").click().run()
    assert not app.exception
    waits = listing(catalog.jobs_folder())[0]
    assert waits.info.about == str(other)
    assert words(app).count("waiting, 1 before it") == 2
    assert len(app.get("progress")) == 1
    catalog.allow([other, run])
    overview = open_page("overview", other)
    catalog.allow([other, run])
    assert f"{first.info.title} · world/run" in words(overview.run())
    button(app, "Cancel").click().run()
    assert ended(waits) == "cancelled"
    assert first.state == "running"
    control.cancel(first)
    ended(first)


def test_panel__says_that_a_job_is_another_users(run, open_page, monkeypatch):
    app = open_page("map", run)
    button(app, "Make a map").click().run()
    (job,) = listing(catalog.jobs_folder())

    def refused(pid, birth):
        raise PermissionError

    monkeypatch.setattr(control, "end", refused)
    button(app, "Cancel").click().run()
    assert not app.exception
    assert "another user's" in words(app)
    monkeypatch.undo()
    control.cancel(job)
    ended(job)


def test_panel__shows_a_failed_jobs_error_as_text(run, open_page, monkeypatch):
    monkeypatch.setenv("STAND_IN", "fail")
    app = open_page("overview", run)
    button(app, "Make a map").click().run()
    ended(*listing(catalog.jobs_folder()))
    app.run()
    assert "pool: expected shards, found none" in [code.value for code in app.code]
    assert "clipsel project" in words(app)
    next(found for found in app.button if found.help == "Dismiss").click().run()
    assert listing(catalog.jobs_folder()) == []


def test_panel__shows_what_came_out_as_text(run, open_page, monkeypatch):
    monkeypatch.setenv("STAND_IN", "finish")
    app = open_page("overview", run)
    button(app, "Make a map").click().run()
    ended(*listing(catalog.jobs_folder()))
    app.run()
    assert "pool: 8 of 9 pairs in 1 shard" in [code.value for code in app.code]


def finish(run, monkeypatch, command, title, behaviour="finish", **options):
    monkeypatch.setenv("STAND_IN", behaviour)
    job = control.start(catalog.jobs_folder(), command, [run], options, title=title, about=run)
    ended(job)
    return job


def test_panel__beside_other_things_has_a_line_for_the_last_that_ended(run, open_page, monkeypatch):
    app = open_page("search", run)
    finish(run, monkeypatch, "search", "Images like birds", out=run / "searches" / "birds.parquet")
    finish(run, monkeypatch, "search", "Images like fish", out=run / "searches" / "fish.parquet")
    assert "Images like fish" in words(app.run())
    assert "Images like birds" not in words(app)
    assert "done in" in words(app)
    assert not app.code
    assert "Jobs" not in words(app)
    jobs.looked_at(run / "searches" / "fish.parquet", run)
    assert "Images like birds" in words(app.run())
    jobs.looked_at(run / "searches" / "birds.parquet", run)
    assert "Images like" not in words(app.run())
    overview = words(open_page("overview", run))
    assert "Images like fish" in overview
    assert "Images like birds" in overview


def test_panel__beside_other_things_keeps_why_a_job_failed_behind_a_button(run, open_page, monkeypatch):
    app = open_page("map", run)
    finish(run, monkeypatch, "project", "Map of 9 pairs", behaviour="fail")
    assert "Map of 9 pairs" in words(app.run())
    (why,) = app.get("popover")
    said = "pool: expected shards, found none"
    assert said in [code.value for code in why.code]
    assert [code.value for code in app.code].count(said) == 1
    finish(run, monkeypatch, "project", "Map of 8 pairs")
    assert "Map of 8 pairs" not in words(app.run())


def test_launch__forgets_the_same_that_ended(run, open_page, monkeypatch):
    app = open_page("overview", run)
    button(app, "Make a map").click().run()
    (first,) = listing(catalog.jobs_folder())
    control.cancel(first)
    ended(first)
    app.run()
    button(app, "Make a map").click().run()
    (second,) = listing(catalog.jobs_folder())
    assert second.id != first.id
    assert "Start again" not in labels(app)
    control.cancel(second)
    ended(second)


def test_overview__goes_on_with_an_unfinished_run(tmp_path, run, open_page, monkeypatch):
    monkeypatch.setenv("STAND_IN", "finish")
    unfinished = make_run(tmp_path / "unfinished", finished=1)
    app = open_page("overview", unfinished)
    button(app, "Go on").click().run()
    (job,) = listing(catalog.jobs_folder())
    target = f"--target=task={tmp_path / 'unfinished' / 'task.npy'}"
    assert job.info.words == ("score", str(tmp_path / "unfinished" / "pool"), str(unfinished), "--arch=demo", target)
    ended(job)


def test_titles__are_shown_as_text(run, open_page):
    app = open_page("overview", run)
    job = control.start(catalog.jobs_folder(), "project", [run], title="![x](http://evil.example/a.png)<b>", about=run)
    app.run()
    assert words(app).count("![x](http://evil.example/a.png)&lt;b&gt;") == 2
    assert not any("evil.example" in element.proto.text for element in app.get("progress"))
    control.cancel(job)
    ended(job)


def test_panel__on_the_map_page_knows_only_its_own_run(run, tmp_path, open_page):
    app = open_page("overview", run)
    button(app, "Make a map").click().run()
    other = open_page("map", make_run(tmp_path / "other", projection=False))
    assert "Make a map" in labels(other)
    assert "Cancel" not in labels(other)
    (job,) = listing(catalog.jobs_folder())
    control.cancel(job)
    ended(job)


def test_pages__notice_an_added_target(tmp_path, open_page):
    """The sliders, the gallery and the overview have the new metric as soon as its last shard is there."""
    run = make_run(tmp_path / "world")
    app = open_page("gallery", run)
    assert "NormSim ∞ · more" not in app.selectbox(key="metric").options
    add_target_by_hand(run, "more", complete=False)
    app.run()
    assert "NormSim ∞ · more" not in app.selectbox(key="metric").options
    add_target_by_hand(run, "more")
    app.run()
    assert not app.exception
    assert "NormSim ∞ · more" in app.selectbox(key="metric").options
    app.selectbox(key="metric").set_value("normsim_inf_more").run()
    assert not app.exception
    (cards,) = components(app, "clipsel_cards")
    assert cards["cards"][0]["caption"] == "caption of pair 59"


def test_overview__of_a_run_that_is_finished_while_it_is_drawn_shows_that(tmp_path, open_page, monkeypatch):
    """By a command in a terminal, between the page's look at the run and at how far the scoring is."""
    run, whole, read = make_run(tmp_path / "world", finished=1), make_run(tmp_path / "whole"), status.read_status

    def read_late(path):
        for name in ("scores/00000001.parquet", "run.json", "status.json"):
            shutil.copyfile(whole / name, run / name)
        return read(path)

    monkeypatch.setattr(status, "read_status", read_late)
    app = open_page("overview", run)
    assert not app.exception
    assert "This run is unfinished" not in words(app)
    assert "2 of 2" in [metric.value for metric in app.metric]


def test_search__of_all_pairs_that_ends_while_the_page_is_drawn_leads_to_what_it_found(run, open_page, monkeypatch):
    """Between the look at its file and the look at its job."""
    open_page("search", run)
    (entry,), drawn = catalog.entries(), []

    def at_work(word, about):
        file = Path(word.removeprefix("--out="))
        file.parent.mkdir()
        file.touch()

    monkeypatch.setattr(results, "AT_ONCE", 10)
    monkeypatch.setattr(jobs, "at_work", at_work)
    monkeypatch.setattr(results.search_links, "draw_link", lambda label, *_, **__: drawn.append(label))
    monkeypatch.setattr(results.st, "button", lambda label, **_: drawn.append(label))
    results.offer_full_search(entry, state.open_run(entry), queries.pair_query("0" * 32, 3), "image")
    assert drawn == ["See the best of all 60 pairs"]
