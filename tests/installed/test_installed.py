"""The wheel works where nothing else of the project is: from an empty folder, in an environment of its own.

CLIPSEL_INSTALLED names the command that was installed; `make package` builds, installs and sets it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from clipsel_core.jobs.control import listing
from tests.browser.conftest import browser, settle, visit  # noqa: F401
from tests.waiting import until

pytestmark = pytest.mark.installed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An empty folder, whose name has a space and a letter beyond ASCII."""
    folder = tmp_path_factory.mktemp("a place of its ówn")
    # What lies here must not be taken for what Python brings.
    (folder / "queue.py").write_text("raise SystemExit('the wrong queue')\n")
    return folder


def clipsel(folder: Path, *words: str) -> str:
    done = subprocess.run([command(), *words], cwd=folder, env=clean(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command() -> str:
    return str(Path(os.environ["CLIPSEL_INSTALLED"]).absolute())


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "CLIPSEL_"))}


def test_commands__work_from_an_empty_folder(folder):
    assert clipsel(folder, "--version").strip()
    found = json.loads(clipsel(folder, "doctor", "--json"))
    assert "wrong" not in {one["state"] for one in found}
    clipsel(folder, "demo", "demo")
    clipsel(folder, "score", "demo/pool", "run", "--target", "task=demo/target/task.npy", "--device", "cpu")
    clipsel(folder, "select", "run", "--recipe", "demo/run/recipes/two_steps.yaml", "--out", "subset.npy")
    assert len(np.load(folder / "subset.npy")) == 760  # The recipe keeps 20 % of 3,800.


def test_app__opens_on_the_demo_and_runs_a_job_from_a_form(folder, browser: Browser):  # noqa: F811
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**clean(), "STREAMLIT_SERVER_HEADLESS": "true"}
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [command(), "app", f"--port={port}"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        until(lambda: server.poll() is not None or answers(port), "the dashboard answers")
        assert server.poll() is None, (folder / "server.log").read_text()
        page = browser.new_page(base_url=f"http://127.0.0.1:{port}")
        visit(page, "overview")
        page.screenshot(path=folder / "overview.png")
        page.get_by_role("button", name="Score a pool").click()
        page.get_by_role("dialog").get_by_role("button", name="Check and start").click()
        until(lambda: listing(folder / "data" / ".jobs"), "the job is started")
        (job,) = listing(folder / "data" / ".jobs")
        until(lambda: not job.active, "the job ends")
        assert job.state == "done", job.log_tail
        settle(page)
        page.close()
    finally:
        server.terminate()
        server.wait(60)


def answers(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).status == 200
    except OSError:
        return False
