"""Which columns follow from the pool's table alone: from captions, addresses and hashes of images?

Each is computed when somebody asks for it. To add one, write a function that gives its values, and put it with its
column into COMPUTED. Nothing else names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core import uids
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.errors import ColumnError
from clipsel_core.pool.conventions import WHITE_SPACE
from clipsel_core.runs.columns import Column
from clipsel_core.tasks import Report, check, silent

OTHER = "(other)"
_MOST_HOSTS = 10_000
_HOST = r"^[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]+)"
Texts = Iterator[pa.Array]
Found = tuple[np.ndarray, tuple[str, ...]]


@dataclass(frozen=True)
class Computed:
    """A column that is computed on request.

    source: which texts it is computed from: caption, url, or a column of the pool's table.
    compute: given these texts of all pairs, part by part, "" where a pair has none. It returns (N,) numbers and, of a
        category, the texts that they are the places of.
    """

    column: Column
    source: str
    compute: Callable[[Texts], Found]

    def values(self, table: ScoreTable, *, report: Report = silent) -> Found:
        """Its values of a run's pairs, (N,) float32, NaN where a pair has no text, and the texts of a category.

        report: told how many pairs were read.
        Raises: ColumnError where the pool is not at hand or has no such texts; PoolFormatError where it is not as it
            was scored.
        """
        pool, empty = table.metadata.pool, [np.empty(0, bool)]
        if pool is None:
            remedy = "bring back the pool that was scored"
            raise ColumnError(table.run.pool_root, expected="the run's pool", found="none", remedy=remedy)
        known = {"caption": pool.text_column, "url": pool.url_column}
        source = known.get(self.source, self.source)
        if source not in pool.columns:
            expected, found = f"a column of {self.source}s", ", ".join(pool.columns)
            raise ColumnError(pool.root, expected=expected, found=found, remedy=f"{self.column.name} takes it")

        def texts() -> Texts:
            done = 0
            for part in table.metadata.texts(source):
                check()
                empty.append(pc.equal(part, "").to_numpy(zero_copy_only=False))
                yield part
                done += len(part)
                report(done, len(table), "pairs")

        numbers, categories = self.compute(texts())
        numbers = numbers.astype(np.float32)
        numbers[np.concatenate(empty)] = np.nan
        return numbers, categories


def _characters(texts: Texts) -> Found:
    return _each(texts, pc.utf8_length)


def _words(texts: Texts) -> Found:
    return _each(texts, lambda part: pc.count_substring_regex(part, f"[^{WHITE_SPACE}]+"))


def _nonletters(texts: Texts) -> Found:
    return _each(texts, lambda part: pc.utf8_length(pc.replace_substring_regex(part, rf"[\pL\pM{WHITE_SPACE}]+", "")))


def _each(texts: Texts, count: Callable[[pa.Array], pa.Array]) -> Found:
    """A number that follows from each text by itself."""
    counts = [count(part).to_numpy(zero_copy_only=False).astype(np.float32) for part in texts]
    return np.concatenate([np.empty(0, np.float32), *counts]), ()


def _caption_copies(texts: Texts) -> Found:
    return _copies(_without_punctuation(part) for part in texts)


def _without_punctuation(texts: pa.Array) -> pa.Array:
    """Texts in lower case with one space between words; those without letters and digits as they are."""
    words = pc.replace_substring_regex(pc.utf8_lower(texts), r"[^\pL\pM\pN]+", " ")
    words = pc.utf8_trim_whitespace(words)
    return pc.if_else(pc.equal(words, ""), texts, words)


def _copies(texts: Texts) -> Found:
    """How many pairs have the same text. Texts are told apart by 128 bits of BLAKE2, 16 bytes a pair."""
    parts = [np.empty(0, uids.UID_DTYPE)]
    for part in texts:
        encoded = pc.dictionary_encode(part)
        digests = (blake2b(text.encode(), digest_size=16).digest() for text in encoded.dictionary.to_pylist())
        keys = np.frombuffer(b"".join(digests), uids.UID_DTYPE)
        parts.append(keys[encoded.indices.to_numpy(zero_copy_only=False)])
    keys = np.concatenate(parts)
    order = uids.argsort(keys)
    firsts = np.flatnonzero(~uids.repeats(keys[order]))
    sizes = np.diff(np.append(firsts, len(order)))
    counts = np.empty(len(order), np.float32)
    counts[order] = np.repeat(sizes, sizes)
    return counts, ()


def _hosts(texts: Texts) -> Found:
    """The hosts of addresses, NaN where a text is none; those that are not among the most frequent are one category.

    Of hosts that are equally frequent the first by name are taken.
    """
    codes, places, counted = dict[str, int](), [np.empty(0, np.float32)], Counter[int]()
    for part in texts:
        hosts = pc.struct_field(pc.extract_regex(pc.utf8_lower(part), _HOST), 0)
        encoded = pc.dictionary_encode(hosts)
        here = [codes.setdefault(host, len(codes)) for host in encoded.dictionary.to_pylist()]
        place = encoded.indices.fill_null(len(here)).to_numpy(zero_copy_only=False)
        counted.update(dict(zip(here, np.bincount(place, minlength=len(here) + 1).tolist(), strict=False)))
        places.append(np.array([*here, np.nan], np.float64)[place])
    known = sorted(codes, key=lambda host: (-counted[codes[host]], host))
    kept = sorted(known if len(known) <= _MOST_HOSTS else known[: _MOST_HOSTS - 1])
    named = tuple(kept) if len(kept) == len(known) else (*kept, OTHER)
    place_of = {host: place for place, host in enumerate(kept)}
    # The last one is of pairs without a host.
    final = np.array([*(place_of.get(host, len(kept)) for host in codes), np.nan], np.float32)
    found = np.concatenate(places)
    return final[np.where(np.isnan(found), len(codes), found).astype(np.int64)], named


COMPUTED = {
    computed.column.name: computed
    for computed in (
        Computed(
            Column(
                name="caption_characters",
                title="Caption length",
                measures="Characters in the caption.",
                misleads="Scripts without spaces say more in fewer characters.",
                unit="characters",
                least=0,
            ),
            "caption",
            _characters,
        ),
        Computed(
            Column(
                name="caption_words",
                title="Caption words",
                measures="Words in the caption, parted by white space.",
                misleads="Chinese and Japanese put no spaces between words.",
                unit="words",
                least=0,
            ),
            "caption",
            _words,
        ),
        Computed(
            Column(
                name="caption_nonletters",
                title="Caption non-letters",
                measures="Characters of the caption that are neither letters of any script nor white space.",
                misleads="Digits count, which a caption may need.",
                unit="characters",
                least=0,
            ),
            "caption",
            _nonletters,
        ),
        Computed(
            Column(
                name="caption_copies",
                title="Caption copies",
                measures="Pairs with the same caption, upper and lower case, spaces and punctuation apart; 1 is a "
                "caption of its own.",
                misleads="Short captions are the same by chance.",
                direction="lower",
                unit="pairs",
                least=1,
            ),
            "caption",
            _caption_copies,
        ),
        Computed(
            Column(
                name="image_copies",
                title="Image copies",
                measures="Pairs whose image has the same bytes, by the SHA-256 in the pool's table; 1 is an image of "
                "its own.",
                misleads="An image that was scaled or saved again has other bytes.",
                direction="lower",
                unit="pairs",
                least=1,
            ),
            "sha256",
            _copies,
        ),
        Computed(
            Column(
                name="url_host",
                title="Host",
                measures="The host of the image's address.",
                misleads=f"Of more than {_MOST_HOSTS:,} hosts the most frequent have their name, and all others are "
                f"{OTHER}.",
                kind="category",
            ),
            "url",
            _hosts,
        ),
    )
}
"""What can be computed, by name."""
