"""Do the workers give what one process would and outlive a picture that ends one of them?"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipsel_core.errors import PoolFormatError, WorkerError
from clipsel_core.places import Place
from clipsel_core.pool.making import decoders as module
from clipsel_core.pool.making.decode import Tokens
from clipsel_core.pool.making.decoders import Decoders, Preparer, Slots
from clipsel_core.pool.sources.record import Record
from tests.pool.deadly import Deadly, Failing, Killed, Letters, fill
from tests.pool.pictures import drawn
from tests.tasks import Doomed
from tests.waiting import PATIENCE_S


def pictures(folder, sizes):
    for number, size in enumerate(sizes):
        drawn(number, size).save(folder / f"{number}.png")
    return [Record(str(number), f"{number}.png", "x") for number in range(len(sizes))]


def working(folder, shape=(2, 2, 3), held=100, frame=None, **more):
    return Decoders(Preparer(Place.of(folder), frame or Deadly(), None, 10_000), 2, shape, ahead=8, held=held, **more)


def corner(number, size=(8, 8)):
    return np.array(drawn(number, size))[:2, :2]


def test_decoders__a_picture_that_ends_its_worker_is_rejected_alone(tmp_path):
    sizes = [(8, 8)] * 30
    sizes[11] = sizes[25] = (7, 7)
    with working(tmp_path) as workers:
        found = list(workers.prepare(pictures(tmp_path, sizes)))
    assert [record.key for record, _ in found] == [str(number) for number in range(30)]
    ended = "it ends the program that decodes it: its process ended with exit status 9"
    assert [number for number, (_, outcome) in enumerate(found) if outcome == ended] == [11, 25]
    for number, (_, outcome) in enumerate(found):
        assert outcome == ended or np.array_equal(outcome.pixels, corner(number))


@pytest.mark.parametrize(("times", "kept"), [(1, True), (2, True), (3, False)])
def test_decoders__a_picture_is_tried_alone_before_it_is_called_bad(tmp_path, times, kept):
    """Where memory runs out the machine ends any process, at any picture."""
    (tmp_path / "notes").mkdir()
    sizes = [(8, 8)] * 20
    sizes[11] = (7, 7)
    with working(tmp_path, frame=Killed(str(tmp_path / "notes"), times)) as workers:
        found = [outcome for _, outcome in workers.prepare(pictures(tmp_path, sizes))]
    if not kept:
        assert found.pop(11) == "it ends the program that decodes it: its process ended by SIGKILL"
    assert len([outcome for outcome in found if not isinstance(outcome, str)]) == len(found)


def test_decoders__that_are_killed_whatever_they_do_end_the_run(tmp_path):
    remedy = "see whether memory runs out; a script that embeds needs the line if __name__ == '__main__'"
    found = f"expected processes that prepare pictures, found that its process ended by SIGKILL; {remedy}"
    with working(tmp_path, frame=Doomed()) as workers, pytest.raises(PoolFormatError, match=f"^the workers: {found}$"):
        list(workers.prepare(pictures(tmp_path, [(8, 8)] * 40)))


@pytest.mark.parametrize("shape", [(2, 2, 3), None])
def test_decoders__one_that_fails_as_nothing_should_says_at_what(tmp_path, shape):
    expected = "25.png: expected an image that can be prepared, found ZeroDivisionError: in between; start it with"
    sizes = [(8, 8)] * 30
    sizes[25] = (7, 7)
    with working(tmp_path, shape, frame=Failing()) as workers, pytest.raises(WorkerError, match=f"^{expected}"):
        list(workers.prepare(pictures(tmp_path, sizes)))


def test_decoders__say_nothing_of_huge_pictures(tmp_path, capfd):
    """Pillow warns of 90 million pixels, on stderr; the picture is listed, which is enough."""
    Image.new("1", (9_500, 9_500)).save(tmp_path / "0.png")
    with working(tmp_path) as workers:
        ((_, outcome),) = workers.prepare([Record("0", "0.png", "x")])
    assert outcome == "more than 10,000 pixels"
    assert "Warning" not in capfd.readouterr().err


def test_decoders__threads_give_the_same(tmp_path):
    outcomes, records = [], pictures(tmp_path, [(8, 8), (9, 9)])
    for shape in ((2, 2, 3), None):
        with working(tmp_path, shape) as workers:
            outcomes.append(list(workers.prepare(records)))
    for one, other in zip(*outcomes, strict=True):
        assert one[0] == other[0]
        assert one[1].record == other[1].record
        assert one[1].ready._replace(pixels=None) == other[1].ready._replace(pixels=None)
        assert np.array_equal(one[1].pixels, other[1].pixels)


def test_decoders__pixels_stay_until_they_are_released(tmp_path):
    """Many times as many pictures as there is room for, some held back, the rejected among them."""
    records = pictures(tmp_path, [(8, 8)] * 300)
    for number in range(0, 300, 7):
        records[number] = replace(records[number], **({"caption": " "} if number % 2 else {"file": "gone.png"}))
    reasons, kept, held = [], [], deque()
    with working(tmp_path, held=20) as workers:
        for record, outcome in workers.prepare(records):
            if isinstance(outcome, str):
                reasons.append(outcome)
                continue
            held.append((int(record.key), outcome))
            if len(held) == 20:
                number, oldest = held.popleft()
                assert np.array_equal(oldest.pixels, corner(number))
                workers.release([oldest])
                kept.append(number)
    assert reasons == ["no such file", "no caption"] * 21 + ["no such file"]
    assert kept == [number for number in range(300) if number % 7][: len(kept)]
    assert len(kept) == 300 - len(reasons) - 19


def test_decoders__tokenize_captions_where_they_are_to(tmp_path):
    records = [replace(record, caption=f"{record.key} is it") for record in pictures(tmp_path, [(8, 8)] * 40)]
    records[3], records[7] = replace(records[3], caption=""), replace(records[7], caption="x" * 10_000)
    tokens = Tokens(Letters())
    with working(tmp_path, tokens=tokens) as workers:
        found = [outcome for _, outcome in workers.prepare(records)]
    assert found.pop(3) == "no caption"
    assert [outcome.record.caption for outcome in found] == [each.caption for each in records if each.caption]
    rows = np.stack([np.frombuffer(outcome.ready.tokens, np.int32) for outcome in found])
    assert np.array_equal(rows, tokens([outcome.record.caption for outcome in found]))
    assert len(tokens.cut("x" * 10_000)) == 160


def files():
    """How many files in memory this process holds open; threads of others open and close other files meanwhile."""
    held = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            held += os.readlink(file).startswith("/memfd:")
    return held


@pytest.mark.parametrize("named", [False, True])
def test_slots__what_a_process_writes_is_here(monkeypatch, named):
    if named:
        # As on systems without files in memory.
        monkeypatch.delattr(module.os, "memfd_create")
    slots = Slots(5, (2, 3, 3))
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=fill, args=(slots, 3))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert np.array_equal(slots[3].ravel(), np.arange(18))
    assert not slots[2].any()
    slots.close()


def test_slots__each_is_taken_by_one():
    slots = Slots(3, (1, 1, 3))
    taken = [slots.take() for _ in range(3)]
    assert sorted(taken) == [0, 1, 2]
    with pytest.raises(IndexError):
        slots.take()
    slots.give_back(taken[:2])
    assert slots.take() == taken[1]
    slots.close()


def test_slots__nothing_stays():
    before = files()
    for _ in range(3):
        slots = Slots(1000, (64, 64, 3))
        slots[999][...] = 1
        slots.close()
    del slots
    gc.collect()
    assert files() <= before


def test_slots__encoded_pictures_lie_beside_the_pixels():
    slots = Slots(3, (2, 3, 3))
    slots[1][...] = 7
    large = bytes(range(256)) * 1024
    assert slots.lend(1, b"encoded")
    assert slots.lend(2, large)
    assert (slots.lent(1, 7), slots.lent(2, len(large))) == (b"encoded", large)
    assert (slots[1] == 7).all()
    assert not slots.lend(0, large + b"1")
    slots.close()
