"""What the cache of the pages keeps, forgets, and works out once for all who ask at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pages.parts.state import Cached
from tests.waiting import PATIENCE_S


def test_cached__works_out_anew_only_what_changed():
    worked, stamps = [], {"a": 1, "b": 1}
    double = Cached(lambda name: worked.append(name) or 2 * name, 8, stamps.__getitem__, "")
    assert [double("a"), double("b"), double("a")] == ["aa", "bb", "aa"]
    assert worked == ["a", "b"]
    stamps["a"] = 2
    assert [double("a"), double("b")] == ["aa", "bb"]
    assert worked == ["a", "b", "a"]
    double.clear()
    double("b")
    assert worked == ["a", "b", "a", "b"]


def test_cached__forgets_what_was_not_asked_for_the_longest():
    worked = []
    same = Cached(lambda name: worked.append(name), 2, lambda name: 0, "")
    for name in ("a", "b", "a", "c", "a", "b"):
        same(name)
    assert worked == ["a", "b", "c", "b"]


def test_cached__who_asks_at_the_same_time_gets_the_same():
    begun, may_end = threading.Event(), threading.Event()

    def work(name: str) -> object:
        begun.set()
        assert may_end.wait(PATIENCE_S)
        return object()

    shared = Cached(work, 2, lambda name: 0, "")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared, "a")
        assert begun.wait(PATIENCE_S)
        second = pool.submit(shared, "a")
        may_end.set()
        assert first.result(PATIENCE_S) is second.result(PATIENCE_S)


def test_cached__an_error_is_not_kept():
    wrong = [ValueError("gone")]

    def work(name: str) -> str:
        if wrong:
            raise wrong.pop()
        return name

    shared = Cached(work, 2, lambda name: 0, "")
    with pytest.raises(ValueError, match="gone"):
        shared("a")
    assert shared("a") == "a"
