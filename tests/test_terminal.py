"""Does whoever watches a command see what goes on now?"""

from __future__ import annotations

import pytest

from clipsel_core import terminal
from clipsel_core.errors import counted
from clipsel_core.status import read_status


@pytest.fixture
def status(tmp_path):
    terminal.report_to(tmp_path / "status.json")
    yield tmp_path / "status.json"
    terminal.report_end("done")


def test_meter__of_two_the_one_that_was_updated_last_is_told(status):
    with terminal.Meter("finding images") as finding, terminal.Meter("embedding") as meter:
        finding.report(5, 10)
        found = read_status(status)
        assert (found.what, found.unit, found.total) == ("finding images", "", 0)
        finding.report(7, 10, "", "on")
        found = read_status(status)
        assert (found.what, found.done, found.total) == ("finding images", 7, 10)
        meter.report(0, 300, "pairs", "on")
        found = read_status(status)
        assert (found.what, found.unit, found.total) == ("embedding", "pairs", 300)


def test_meter__of_nobody_knows_how_many_no_share_is_said(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_err", terminal.Console(stderr=True, force_terminal=False))
    with terminal.Meter("adding") as meter:
        meter.report(50, 0, "values")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("told", [(1, 1, "pairs"), (7, 7, "", counted(1, "pairs"))])
def test_meter__a_plain_line_of_one_pair(told, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_err", terminal.Console(stderr=True, force_terminal=False))
    with terminal.Meter("embedding") as meter:
        meter.report(*told)
    assert capsys.readouterr().err.splitlines()[0] in (
        "embedding: 100 % (1 of 1 pair)",
        "embedding: 100 % (1 pair)",
    )
