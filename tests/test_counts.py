"""Is one thing said as one?"""

from __future__ import annotations

import pytest

from clipsel_core import terminal
from clipsel_core.counts import counted, things_of


@pytest.mark.parametrize(("number", "said"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs"), (1234, "1,234 pairs")])
def test_counted__one_is_no_plural(number, said):
    assert counted(number, "pairs") == said
    assert said.endswith(" " + things_of(number, "pairs"))


@pytest.mark.parametrize("told", [(1, 1, "pairs"), (7, 7, "", counted(1, "pairs"))])
def test_meter__a_plain_line_of_one_pair(told, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "_err", terminal.Console(stderr=True, force_terminal=False))
    with terminal.Meter("embedding") as meter:
        meter.report(*told)
    assert capsys.readouterr().err.splitlines()[0] in (
        "embedding: 100 % (1 of 1 pair)",
        "embedding: 100 % (1 pair)",
    )
