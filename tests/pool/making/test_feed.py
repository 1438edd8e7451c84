"""Do records come in order from any cursor on, each once, and is it known where they have got to?"""

from __future__ import annotations

import itertools

import pytest

from clipsel_core.pool.making.feed import Cursor, Feed
from clipsel_core.pool.places import Place
from clipsel_core.pool.sources.record import Record, Source

PARTS = [3, 0, 4, 1, 0]


@pytest.fixture
def source():
    def read(part):
        return (Record(f"{part}-{number}", "", position=10 * number) for number in range(PARTS[part]))

    names = tuple(map(str, range(len(PARTS))))
    return Source("folder", Place.of("."), names, tuple(10 * size for size in PARTS), read, "", "", "")


def keys(records):
    return [record.key for record in records]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize("resumed", [False, True])
def test_feed__shards_of_any_size_hold_every_record_once(source, size, resumed):
    feed, cursor, found, lengths = Feed(source, Cursor()), Cursor(), [], []
    while True:
        feed = Feed(source, cursor) if resumed else feed.continued(cursor)
        some = keys(itertools.islice(feed, size))
        found, lengths, cursor = found + some, [*lengths, len(some)], feed.following()
        if feed.exhausted():
            break
    assert found == keys(record for part in range(len(PARTS)) for record in source.read(part))
    assert set(lengths[:-1]) <= {size}


def test_feed__goes_on_only_where_it_stands(source):
    feed = Feed(source, Cursor())
    assert keys(itertools.islice(feed, 4)) == ["0-0", "0-1", "0-2", "2-0"]
    assert not feed.exhausted()
    assert feed.following() == Cursor(2, 1)
    assert feed.continued(Cursor(2, 1)) is feed
    other = feed.continued(Cursor(0, 2))
    assert other is not feed
    assert next(other).key == "0-2"
    assert next(feed).key == "2-1"


def test_feed__reached__from_the_start_and_from_a_cursor(source):
    whole, ends = Feed(source, Cursor()), [0, 30, 30, 70, 80]
    reached = [whole.reached(record, number) for number, record in enumerate(whole, 1)]
    assert reached == [ends[part] + 10 * number for part in range(5) for number in range(PARTS[part])]
    late = Feed(source, Cursor(2, 2))
    assert [late.reached(record, number) for number, record in enumerate(late, 1)] == reached[5:]
    assert late.handed_out == 3
