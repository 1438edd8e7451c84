"""Tile sizes are timed once and remembered, and a damaged memory does no harm."""

from __future__ import annotations

import json
import logging
import math
import threading

import pytest

from clipsel_core.errors import ScoringError
from clipsel_core.scoring import tile_sizes
from clipsel_core.scoring.tile_sizes import CANDIDATES, cache_file, fastest, use
from tests.waiting import join

KEY = "NVIDIA Drawn, width 768, triton 3.9.0"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder and a process that has chosen nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tile_sizes, "_chosen", {})
    tile_sizes._warn_of_cache.cache_clear()
    return tmp_path


def forget(monkeypatch):
    """As a new process would begin."""
    monkeypatch.setattr(tile_sizes, "_chosen", {})


def third_is_fastest(sizes):
    return 0.5 if sizes == CANDIDATES[2] else 1.0


def must_not_measure(sizes):
    raise AssertionError("measured again")


def test_fastest__takes_the_fastest_and_remembers_it(monkeypatch):
    assert fastest(KEY, third_is_fastest) == CANDIDATES[2]
    assert fastest(KEY, must_not_measure) == CANDIDATES[2]
    forget(monkeypatch)
    assert fastest(KEY, must_not_measure) == CANDIDATES[2]


def test_fastest__keeps_the_entries_of_other_devices(monkeypatch):
    fastest(KEY, third_is_fastest)
    fastest("another", lambda sizes: 1.0)
    forget(monkeypatch)
    assert fastest(KEY, must_not_measure) == CANDIDATES[2]
    assert fastest("another", must_not_measure) == CANDIDATES[0]


def test_fastest__skips_what_does_not_fit():
    assert fastest(KEY, lambda sizes: 1.0 if sizes == CANDIDATES[-1] else math.inf) == CANDIDATES[-1]


def test_fastest__says_when_nothing_fits():
    with pytest.raises(ScoringError, match="none of the sizes fits"):
        fastest(KEY, lambda sizes: math.inf)
    assert not cache_file().exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 1}',
        '{"format": 1, "tiles": []}',
        json.dumps({"format": 0, "tiles": {KEY: CANDIDATES[1].as_dict()}}),
        json.dumps({"format": 1, "tiles": {KEY: {**CANDIDATES[1].as_dict(), "rows": 4096}}}),
        json.dumps({"format": 1, "tiles": {KEY: 3}}),
        "[" * 100_000,
        "\x00\xff",
    ],
)
def test_fastest__ignores_a_damaged_cache_and_mends_it(text):
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(text, encoding="latin-1")
    assert fastest(KEY, third_is_fastest) == CANDIDATES[2]
    assert json.loads(cache_file().read_text())["tiles"] == {KEY: CANDIDATES[2].as_dict()}


def test_fastest__does_without_a_cache_it_cannot_write(cache, caplog):
    (cache / "clipsel").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert fastest(KEY, third_is_fastest) == CANDIDATES[2]
        assert fastest("another", third_is_fastest) == CANDIDATES[2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_fastest__measures_once_for_many_threads():
    measured = []

    def measure(sizes):
        measured.append(sizes)
        return 1.0

    threads = [threading.Thread(target=fastest, args=(KEY, measure)) for _ in range(8)]
    for thread in threads:
        thread.start()
    join(threads)
    assert measured == list(CANDIDATES)


def test_use__goes_before_the_cache():
    fastest(KEY, third_is_fastest)
    use(KEY, CANDIDATES[1].as_dict())
    assert fastest(KEY, must_not_measure) == CANDIDATES[1]


def test_use__refuses_unknown_sizes():
    with pytest.raises(ScoringError, match="tiles: expected tile sizes of this version"):
        use(KEY, {"rows": 1})


def test_cache_file__ignores_a_relative_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_file().is_absolute()


def test_candidates__can_be_launched():
    for sizes in CANDIDATES:
        assert tile_sizes.DEPTH % sizes.depth == 0
        assert all(side & (side - 1) == 0 and side >= 16 for side in (sizes.rows, sizes.columns, sizes.depth))
