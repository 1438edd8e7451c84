"""What happens side by side: the next item is read and the last one written while one is computed."""

from __future__ import annotations

import threading

import pytest

from clipsel_core.runs.worker import in_turn


def test_in_turn__reads_the_next_and_writes_the_last_meanwhile():
    """Each computation waits until the next item is read; each but the last writing, until the next is computed."""
    read, computed = ([threading.Event() for _ in range(5)] for _ in range(2))
    held, most, seen = set(), [], []

    def reading(item):
        held.add(item)
        most.append(len(held))
        read[item].set()
        return 10 * item

    def computing(item, found):
        assert found == 10 * item
        assert read[min(item + 1, 4)].wait(20), "the next was not read meanwhile"
        held.discard(item)
        computed[item].set()
        return found + 1

    def writing(item, done):
        assert computed[min(item + 1, 4)].wait(20), "the next was not computed meanwhile"
        seen.append((item, done))

    in_turn(range(5), reading, computing, writing)
    assert seen == [(item, 10 * item + 1) for item in range(5)]
    assert max(most) == 2


@pytest.mark.parametrize("fails", ["read", "compute", "write"])
def test_in_turn__finishes_what_came_before_a_failure(fails):
    written = []

    def step(name, item):
        if name == fails and item == 2:
            raise ValueError(name)

    def write(item, done):
        step("write", item)
        written.append(item)

    with pytest.raises(ValueError, match=fails):
        in_turn(range(9), lambda i: step("read", i), lambda i, found: step("compute", i), write)
    assert written == [0, 1]
