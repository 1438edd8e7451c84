"""Jobs outlive what they were started from: the page, the browser, the server."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest
from playwright.sync_api import expect

from clipsel_core.jobs.control import listing, read_job
from clipsel_core.runs.store import Run
from tests.browser.conftest import ROOT, serving, settle, visit
from tests.pages.worlds import make_run
from tests.pool.pictures import image
from tests.pool.servers import storing, upload
from tests.waiting import until


@pytest.fixture
def data(tmp_path):
    """A data folder with the demo, its map taken away."""
    left_out = shutil.ignore_patterns("exports", "cache", "projection.parquet")
    shutil.copytree(ROOT / "data" / "demo", tmp_path / "data" / "demo", ignore=left_out)
    return tmp_path / "data"


def test_job__started_reloaded_finished_beside_an_open_pair(browser, data):
    with serving(data) as url:
        page = browser.new_page(base_url=url)
        visit(page, "map")
        page.get_by_label("Pairs on it").fill("300")
        page.get_by_role("button", name="Make a map").click()
        expect(page.locator(".st-key-jobs")).to_contain_text("Map of 300 pairs")
        (job,) = listing(data / ".jobs")
        until(lambda: job.state == "running", "the job runs")
        os.kill(read_job(job.folder).info.pid, signal.SIGSTOP)  # it lasts until it was seen on another page
        expect(page.get_by_role("button", name="Make a map")).to_have_count(0)
        page.reload()
        expect(page.locator(".st-key-jobs")).to_contain_text("Map of 300 pairs")
        page.close()
        assert job.state == "running"
        page = browser.new_page(base_url=url)
        visit(page, "gallery")
        expect(page.get_by_test_id("stSidebar")).to_contain_text("Map of 300 pairs")
        page.locator(".card").nth(2).click()
        expect(page.get_by_role("dialog")).to_contain_text("3 of 3,800 in this gallery")
        os.kill(read_job(job.folder).info.pid, signal.SIGCONT)
        expect(page.get_by_test_id("stSidebar")).not_to_contain_text("Map of 300 pairs")
        settle(page)
        expect(page.get_by_role("dialog")).to_contain_text("3 of 3,800 in this gallery")
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("dialog")).to_contain_text("4 of 3,800 in this gallery")
        page.keyboard.press("Escape")
        expect(page.locator(".card").nth(3)).to_be_focused()
        page.get_by_role("link", name="Map").click()
        expect(page.locator("canvas, .nsewdrag, .map").first).to_be_visible()
        expect(page.get_by_text("No map yet")).to_have_count(0)
        assert job.state == "done"
        visit(page, "overview")
        expect(page.locator(".st-key-jobs")).to_contain_text("done in")
        page.close()


def test_job__goes_on_without_the_server_and_is_cancelled_from_the_next(browser, data):
    with serving(data) as url:
        page = browser.new_page(base_url=url)
        visit(page, "overview")
        page.get_by_role("button", name="Make a map").click()
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        page.close()
    (job,) = listing(data / ".jobs")
    until(lambda: job.state == "running", "the job runs")
    with serving(data) as url:
        page = browser.new_page(base_url=url)
        visit(page, "overview")
        cancel = page.get_by_role("button", name="Cancel")
        expect(cancel).to_be_enabled()
        cancel.click()
        expect(page.locator(".st-key-jobs")).to_contain_text("cancelled after")
        assert job.state == "cancelled"
        until(lambda: not job.active)
        expect(page.get_by_role("button", name="Make a map")).to_be_visible()
        settle(page)
        page.close()


def test_job__waits_through_a_restart_of_the_server(browser, data):
    """The second job is started while the first runs, and its turn comes although the server was another one."""
    with serving(data) as url:
        page = browser.new_page(base_url=url)
        visit(page, "overview")
        page.get_by_role("button", name="Make a map").click()
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        (first,) = listing(data / ".jobs")
        until(lambda: first.begun, "the first job's turn has come")
        os.kill(read_job(first.folder).info.pid, signal.SIGSTOP)  # it lasts until it is cancelled
        page.get_by_role("button", name="Add a target").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("combobox", name="Path").click()
        page.get_by_role("option").first.click()
        expect(dialog.get_by_role("textbox", name="Name")).to_have_value("task-2")
        dialog.get_by_role("button", name="Compare").click()
        expect(page.locator(".st-key-jobs")).to_contain_text("Compare with task-2 waiting, 1 before it")
        expect(page.get_by_test_id("stSidebar")).to_contain_text("waiting, 1 before it")
        page.close()
    target, first = listing(data / ".jobs")
    assert (first.state, target.state) == ("running", "waiting")
    with serving(data) as url:
        page = browser.new_page(base_url=url)
        visit(page, "overview")
        expect(page.locator(".st-key-jobs")).to_contain_text("Compare with task-2 waiting, 1 before it")
        page.get_by_role("button", name="Cancel").first.click()
        expect(page.locator(".st-key-jobs")).to_contain_text("cancelled after")
        expect(page.locator(".st-key-jobs")).to_contain_text("Compare with task-2 done in")
        settle(page)
        page.close()


def test_target__a_path_is_recognised_and_pictures_are_embedded(browser, data):
    rows = np.load(data / "demo" / "target" / "task.npy").astype("f4")
    np.save(data / "demo" / "target" / "moment.npy", rows.T @ rows)
    (data / "demo" / "target" / "shown" / "few").mkdir(parents=True)
    for number in range(8):
        (data / "demo" / "target" / "shown" / "few" / f"{number}.png").write_bytes(image(number, "PNG"))
    with serving(data) as url:
        page = browser.new_page(base_url=url)
        visit(page, "overview")
        page.get_by_role("button", name="Add a target").click()
        dialog = page.get_by_role("dialog")
        for path, name, said in (
            ("demo/target/moment.npy", "moment", "moment: a second moment of width 64: NormSim_2 only"),
            ("demo/target/absent_*.npy", "absent", "expected a file or a folder, found nothing"),
            ("demo/target/shown", "shown", "shown: 8 pictures, which are embedded with"),
        ):
            box = dialog.get_by_role("combobox", name="Path")
            box.fill(path)
            box.press("Enter")
            expect(dialog).to_contain_text(said)
            expect(dialog.get_by_role("textbox", name="Name")).to_have_value(name)
        dialog.get_by_role("button", name="Compare").click()
        expect(dialog).to_have_count(0)
        expect(page.locator(".st-key-jobs")).to_contain_text("Compare with shown done in")
        settle(page)
        page.close()
    (target,) = Run.open(data / "demo" / "run").added_targets
    assert (target.target.kind, target.target.rows) == ("pictures", 8)


def test_pair__more_like_these_becomes_a_metric(browser, data):
    with serving(data) as url:
        page = browser.new_page(base_url=url)
        visit(page, "gallery")
        page.locator(".card").first.focus()
        page.keyboard.press("k")
        # The page moves while it is drawn anew, and the button with it.
        expect(page.get_by_role("button", name="More like these")).to_be_visible()
        settle(page)
        page.get_by_role("button", name="More like these").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name").fill("fish")
        dialog.get_by_label("Name").press("Enter")
        dialog.get_by_role("button", name="Compare").click()
        expect(dialog).to_have_count(0)
        expect(page.get_by_test_id("stSidebar")).to_contain_text("Compare with fish")
        expect(page.get_by_test_id("stSidebar")).not_to_contain_text("Compare with fish")
        page.get_by_role("link", name="Overview").click()
        expect(page.locator(".st-key-jobs")).to_contain_text("done in")
        visit(page, "gallery")
        page.get_by_role("combobox", name="Metric").click()
        page.get_by_role("option", name="NormSim ∞ · fish").click()
        expect(page.locator(".card").first).to_contain_text("1.00")
        settle(page)
        page.close()


def test_job__of_a_run_in_a_store_goes_on_through_a_restart_and_is_seen_at_its_end(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_run(tmp_path / "world")
    with storing(monkeypatch):
        upload(tmp_path / "world", "s3://bucket/a")
        with serving(tmp_path / "data", "s3://bucket/a/run") as url:
            page = browser.new_page(base_url=url)
            visit(page, "overview", "a/run")
            expect(page.locator(".st-key-glance")).to_contain_text("Metrics7")
            page.get_by_role("button", name="Add a column").click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_role("combobox", name="Where its values come from").click()
            page.get_by_role("option", name="Caption words").click()
            dialog.get_by_role("button", name="Add").click()
            expect(dialog).to_have_count(0)
            expect(page.locator(".st-key-jobs")).to_contain_text("Add Caption words")
            (job,) = listing(tmp_path / "data" / ".jobs")
            until(lambda: job.begun, "the job's turn has come")
            os.kill(read_job(job.folder).info.pid, signal.SIGSTOP)  # it lasts until the other server has shown it
            page.close()
        assert job.info.words == ("add-column", "s3://bucket/a/run", "caption_words")
        assert job.state == "running"
        with serving(tmp_path / "data", "s3://bucket/a/run") as url:
            page = browser.new_page(base_url=url)
            visit(page, "overview", "a/run")
            expect(page.locator(".st-key-jobs")).to_contain_text("Add Caption words")
            expect(page.get_by_role("button", name="Cancel")).to_be_enabled()
            os.kill(read_job(job.folder).info.pid, signal.SIGCONT)
            expect(page.locator(".st-key-jobs")).to_contain_text("done in")
            expect(page.locator(".st-key-glance")).to_contain_text("Metrics8")
            settle(page)
            page.close()
