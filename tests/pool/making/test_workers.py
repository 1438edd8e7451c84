"""Do the workers give what one process would and outlive a picture that ends one of them?"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clipsel_core.errors import PoolFormatError, WorkerError
from clipsel_core.pool.making.embed import embed_images, embed_pixels, framing_of
from clipsel_core.pool.making.prepare import Preparer
from clipsel_core.pool.making.tokens import Tokens
from clipsel_core.pool.making.workers import Workers
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import Record
from tests.pool.deadly import Deadly, Failing, Killed, Letters
from tests.pool.pictures import drawn
from tests.tasks import Doomed


def pictures(folder, sizes):
    for number, size in enumerate(sizes):
        drawn(number, size).save(folder / f"{number}.png")
    return [Record(str(number), f"{number}.png", "x") for number in range(len(sizes))]


def working(folder, shape=(2, 2, 3), held=100, frame=None, **more):
    return Workers(Preparer(Place.of(folder), frame or Deadly(), None, 10_000), 2, shape, ahead=8, held=held, **more)


def corner(number, size=(8, 8)):
    return np.array(drawn(number, size))[:2, :2]


def test_workers__a_picture_that_ends_its_worker_is_rejected_alone(tmp_path):
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
def test_workers__a_picture_is_tried_alone_before_it_is_called_bad(tmp_path, times, kept):
    """Where memory runs out the machine ends any process, at any picture."""
    (tmp_path / "notes").mkdir()
    sizes = [(8, 8)] * 20
    sizes[11] = (7, 7)
    with working(tmp_path, frame=Killed(str(tmp_path / "notes"), times)) as workers:
        found = [outcome for _, outcome in workers.prepare(pictures(tmp_path, sizes))]
    if not kept:
        assert found.pop(11) == "it ends the program that decodes it: its process ended by SIGKILL"
    assert len([outcome for outcome in found if not isinstance(outcome, str)]) == len(found)


def test_workers__that_are_killed_whatever_they_do_end_the_run(tmp_path):
    remedy = "see whether memory runs out; a script that embeds needs the line if __name__ == '__main__'"
    found = f"expected processes that prepare pictures, found that its process ended by SIGKILL; {remedy}"
    with working(tmp_path, frame=Doomed()) as workers, pytest.raises(PoolFormatError, match=f"^the workers: {found}$"):
        list(workers.prepare(pictures(tmp_path, [(8, 8)] * 40)))


@pytest.mark.parametrize("shape", [(2, 2, 3), None])
def test_workers__one_that_fails_as_nothing_should_says_at_what(tmp_path, shape):
    expected = "25.png: expected an image that can be prepared, found ZeroDivisionError: in between; start it with"
    sizes = [(8, 8)] * 30
    sizes[25] = (7, 7)
    with working(tmp_path, shape, frame=Failing()) as workers, pytest.raises(WorkerError, match=f"^{expected}"):
        list(workers.prepare(pictures(tmp_path, sizes)))


def test_workers__say_nothing_of_huge_pictures(tmp_path, capfd):
    """Pillow warns of 90 million pixels, on stderr; the picture is listed, which is enough."""
    Image.new("1", (9_500, 9_500)).save(tmp_path / "0.png")
    with working(tmp_path) as workers:
        ((_, outcome),) = workers.prepare([Record("0", "0.png", "x")])
    assert outcome == "more than 10,000 pixels"
    assert "Warning" not in capfd.readouterr().err


def test_workers__threads_give_the_same(tmp_path):
    outcomes, records = [], pictures(tmp_path, [(8, 8), (9, 9)])
    for shape in ((2, 2, 3), None):
        with working(tmp_path, shape) as workers:
            outcomes.append(list(workers.prepare(records)))
    for one, other in zip(*outcomes, strict=True):
        assert one[0] == other[0]
        assert one[1].kept == other[1].kept
        assert np.array_equal(one[1].pixels, other[1].pixels)


def test_workers__pixels_stay_until_they_are_released(tmp_path):
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


def test_workers__tokenize_captions_where_they_are_to(tmp_path):
    records = [replace(record, caption=f"{record.key} is it") for record in pictures(tmp_path, [(8, 8)] * 40)]
    records[3], records[7] = replace(records[3], caption=""), replace(records[7], caption="x" * 10_000)
    tokens = Tokens(Letters())
    with working(tmp_path, tokens=tokens) as workers:
        found = [outcome for _, outcome in workers.prepare(records)]
    assert found.pop(3) == "no caption"
    assert [outcome.kept.record.caption for outcome in found] == [each.caption for each in records if each.caption]
    rows = np.stack([np.frombuffer(outcome.tokens, np.int32) for outcome in found])
    assert np.array_equal(rows, tokens([outcome.kept.record.caption for outcome in found]))
    assert len(tokens.cut("x" * 10_000)) == 160


def test_tokens__travel_unless_their_tokenizer_cannot(teachers):
    assert Tokens(teachers[0].tokenizer).travels
    assert not Tokens(lambda captions: captions).travels


def test_framing__is_what_the_teachers_own_preprocessing_does(teachers):
    framing = framing_of(teachers[0])
    pictures = [drawn(number, size) for number, size in enumerate([(24, 20), (16, 16), (101, 33), (33, 101), (16, 40)])]
    pixels = torch.from_numpy(np.stack([framing(picture) for picture in pictures]))
    own = torch.stack([teachers[0].preprocess(picture) for picture in pictures])
    normalize = teachers[0].preprocess.transforms[-1]
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (normalize.mean, normalize.std))
    assert torch.equal(pixels.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std), own)
    assert np.array_equal(embed_pixels(teachers[0], pixels), embed_images(teachers[0], pictures))


@pytest.mark.parametrize("kind", ["squash", "longest"])
def test_framing__other_ways_of_resizing(teachers, kind):
    own = open_clip.image_transform((16, 16), is_train=False, resize_mode=kind)
    framing = framing_of(type(teachers[0])(teachers[0].model, own, teachers[0].tokenizer, teachers[0].device))
    if kind == "longest":
        assert framing is None
    else:
        picture = drawn(3, (50, 30))
        pixels = torch.from_numpy(framing(picture)).permute(2, 0, 1).float().div(255)
        assert torch.equal(own.transforms[-1](pixels), own(picture))
