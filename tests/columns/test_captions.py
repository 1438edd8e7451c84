"""Columns that follow from captions, addresses and hashes, against plain Python on each text by itself."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipsel_core import uids
from clipsel_core.columns import captions
from clipsel_core.columns.captions import COMPUTED, OTHER
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import ColumnError
from clipsel_core.runs.columns import SCORES
from tests.conftest import write_shard
from tests.curation.conftest import hand_run

SIZES = (40, 1, 61)
WORDS = [
    *(
        "a",
        "Dog",
        "dog",
        "dogs",
        "CHAT",
        "été",
        "ÉTÉ",
        "e\u0301te\u0301",
        "Straße",
        "犬が走る",
        "собака",
        "हिन्दी",
        "42",
        "1/2",
        "C++",
    ),
    *("x_y", "don't", "#tag", "…", "!", "👍🏽", "٣", "½", "-"),
]
SPACES = [" ", "  ", "\t", "\n", "\u00a0", "\u3000", "\u2009", "\x85", "\x1c", "\x0b", ", "]
CAPTIONS = ["", " ", "!!", "??", "A dog.", "a  DOG", "a dog", "(A) dog!", "a dogs"]
ADDRESSES = [
    "https://example.org/a.jpg",
    "HTTPS://Example.ORG:8080/b.jpg?x=http://c.net/#y",
    "http://user:secret@images.example.org/a",
    "s3://bucket/key.jpg",
    "http://[2001:db8::1]:80/a.jpg",
    "https://example.org",
    "",
]


def draw_captions(draw: np.random.Generator, count: int) -> list[str]:
    """Some that differ in case, spaces and punctuation alone, and many that hold words of several scripts."""
    few = draw.choice(CAPTIONS, count // 2).tolist()
    sizes = draw.integers(1, 9, count - len(few))
    return few + ["".join(f"{draw.choice(WORDS)}{draw.choice(SPACES)}" for _ in range(size)) for size in sizes]


def make_table(root: Path, **columns: list) -> ScoreTable:
    """A run over a pool of three shards with these columns."""
    ends = np.cumsum([0, *SIZES])
    shards = []
    for seed, rows in enumerate(SIZES):
        part = {name: values[ends[seed] : ends[seed + 1]] for name, values in columns.items()}
        parquet, _ = write_shard(root / "pool", f"{seed:08d}", rows, seed=seed, columns=part)
        names = uids.from_hex(pq.read_table(parquet, columns=["uid"])["uid"].combine_chunks())
        shards.append((names, {"clip_score": np.linspace(0, 1, rows)}))
    return ScoreTable.open(hand_run(root / "run", shards))


def is_space(character: str) -> bool:
    return not character.split()


TRUTHS = {
    "caption_characters": len,
    "caption_words": lambda text: len(text.split()),
    "caption_nonletters": lambda text: sum(not is_space(c) and unicodedata.category(c)[0] not in "LM" for c in text),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_computed__numbers_of_a_caption(tmp_path, name):
    texts = draw_captions(np.random.default_rng(3), sum(SIZES))
    told = []
    values, categories = COMPUTED[name].values(make_table(tmp_path, text=texts), report=lambda *said: told.append(said))
    expected = [TRUTHS[name](text) if text else np.nan for text in texts]
    np.testing.assert_array_equal(values, np.array(expected, np.float32))
    assert (values.dtype, categories) == (np.float32, ())
    assert told[-1] == (sum(SIZES), sum(SIZES), "pairs")


def test_computed__caption_copies_counts_the_same_words(tmp_path):
    texts = draw_captions(np.random.default_rng(4), sum(SIZES))

    def words(text: str) -> str:
        """Letters, marks and digits in lower case, anything between them as one space."""
        kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.lower())
        return " ".join(kept.split()) or text

    counts = Counter(map(words, texts))
    values, _ = COMPUTED["caption_copies"].values(make_table(tmp_path, text=texts))
    expected = [counts[words(text)] if text else np.nan for text in texts]
    np.testing.assert_array_equal(values, np.array(expected, np.float32))
    # Captions of signs alone are the same only where the signs are.
    assert counts["a dog"] > counts["!!"] > 1


def test_computed__image_copies_counts_the_same_bytes(tmp_path):
    hashes = [f"{n:064x}" if n else None for n in np.random.default_rng(5).integers(0, 40, sum(SIZES)).tolist()]
    values, _ = COMPUTED["image_copies"].values(make_table(tmp_path, sha256=hashes))
    counts = Counter(hashes)
    np.testing.assert_array_equal(values, np.array([counts[h] if h else np.nan for h in hashes], np.float32))


def test_computed__url_host(tmp_path):
    draw = np.random.default_rng(6)
    addresses = [*draw.choice(ADDRESSES, sum(SIZES) - 1).tolist(), "no address"]
    values, hosts = COMPUTED["url_host"].values(make_table(tmp_path, url=addresses))
    assert list(hosts) == sorted(hosts)
    for address, value in zip(addresses, values.tolist(), strict=True):
        host = urlsplit(address).hostname
        assert (None if np.isnan(value) else hosts[int(value)].strip("[]")) == host, address


@pytest.mark.parametrize(("most", "others"), [(5, 0), (4, 2), (2, 4), (1, 5)])
def test_computed__url_host_puts_what_is_rare_together(tmp_path, monkeypatch, most, others):
    """Five hosts of which two are equally frequent; the first by name goes first."""
    monkeypatch.setattr(captions, "_MOST_HOSTS", most)
    hosts = ["e"] * 50 + ["b"] * 30 + ["d"] * 8 + ["c"] * 8 + ["a"] * 6
    np.random.default_rng(7).shuffle(hosts)
    values, named = COMPUTED["url_host"].values(make_table(tmp_path, url=[f"http://{host}/" for host in hosts]))
    kept = sorted("ebcda"[: most - 1] if others else "ebcda")
    assert list(named) == ([*kept, OTHER] if others else kept)
    assert [named[int(value)] for value in values] == [host if host in kept else OTHER for host in hosts]


def test_computed__a_pool_without_such_texts_or_none_at_hand(tmp_path):
    table = make_table(tmp_path)
    with pytest.raises(ColumnError, match=r"expected a column of sha256s, found uid, url, text; image_copies takes it"):
        COMPUTED["image_copies"].values(table)
    (tmp_path / "pool").rename(tmp_path / "away")
    with pytest.raises(ColumnError, match="expected the run's pool, found none"):
        COMPUTED["caption_words"].values(ScoreTable.open(table.run))


def test_computed__every_column_says_what_it_is():
    for name, computed in COMPUTED.items():
        column = computed.column
        assert (column.name, column.origin) == (name, "computed")
        assert re.fullmatch(r"[A-Z].*\.", column.measures)
        assert re.fullmatch(r"[A-Z].*\.", column.misleads)
        assert column.title
    assert not set(COMPUTED) & set(SCORES)
