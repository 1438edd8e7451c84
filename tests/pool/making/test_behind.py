"""Is work done while its giver goes on, one piece at a time, and does what fails in it come out?"""

from __future__ import annotations

from threading import Event

import pytest

from clipsel_core.pool.making.behind import Behind
from tests.waiting import PATIENCE_S


def failing():
    raise OSError("no room")


def test_behind__goes_on_while_a_piece_is_done_and_waits_before_the_next():
    allowed, done = Event(), []
    with Behind() as behind:
        behind.do(lambda: done.append(allowed.wait(PATIENCE_S)))
        behind.check()
        assert not done
        allowed.set()
        behind.do(lambda: done.append("second"))
        assert done[0] is True
        behind.wait()
        assert done == [True, "second"]


@pytest.mark.parametrize("call", ["check", "wait", "do"])
def test_behind__what_fails_is_raised_by_the_next_call(call):
    with Behind() as behind:
        behind.do(failing)
        behind._thread.submit(int).result(PATIENCE_S)
        with pytest.raises(OSError, match="no room"):
            getattr(behind, call)(*[failing] * (call == "do"))


def test_behind__ends_a_piece_that_is_begun():
    done, allowed = [], Event()
    with Behind() as behind:
        behind.do(lambda: done.append(allowed.wait(PATIENCE_S)))
        allowed.set()
    assert done == [True]
