"""Which columns follow from captions and addresses alone? Each is computed when somebody asks for it.

To add one: write a function that gives its values, and put it with its column into COMPUTED. Nothing else names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipsel_core.curation.index.metadata import Metadata
from clipsel_core.errors import ColumnError
from clipsel_core.runs.columns import Column

_MOST_HOSTS = 10_000
_HOST = r"^[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>[^/?#:]+)"
OTHER = "(other)"


@dataclass(frozen=True)
class Computed:
    """A column that is computed on request. source: of the pool's table, caption or url.

    values: from the source's texts, all pairs in one array, "" where a pair has none: (N,) numbers and, of a category,
    what they stand for.
    """

    column: Column
    source: str
    values: Callable[[pa.Array], tuple[np.ndarray, tuple[str, ...]]]

    def compute(self, metadata: Metadata) -> tuple[np.ndarray, tuple[str, ...]]:
        """Its values of a run's pairs, (N,) float32, NaN where there is no text, and the texts of a category.

        Raises: ColumnError where the pool is not at hand or has no such texts; PoolFormatError as Metadata.texts.
        """
        pool = metadata.pool
        if pool is None or not (pool.text_column if self.source == "caption" else pool.url_column):
            found = "none" if pool else "no pool at hand"
            raise ColumnError(self.column.name, expected=f"a pool with {self.source}s", found=found)
        texts = pa.concat_arrays(list(metadata.texts(self.source)))
        values, categories = self.values(texts)
        numbers = values.astype(np.float32)
        numbers[pc.equal(texts, "").to_numpy(zero_copy_only=False)] = np.nan
        return numbers, categories


def _lengths(texts: pa.Array) -> np.ndarray:
    return pc.utf8_length(texts).to_numpy(zero_copy_only=False)


def _count_characters(texts: pa.Array) -> tuple[np.ndarray, tuple[str, ...]]:
    return _lengths(texts), ()


def _count_words(texts: pa.Array) -> tuple[np.ndarray, tuple[str, ...]]:
    return pc.count_substring_regex(texts, r"[^\s\pZ]+").to_numpy(zero_copy_only=False), ()


def _count_nonletters(texts: pa.Array) -> tuple[np.ndarray, tuple[str, ...]]:
    return _lengths(pc.replace_substring_regex(texts, r"[\pL\pM\s\pZ]+", "")), ()


def _count_copies(texts: pa.Array) -> tuple[np.ndarray, tuple[str, ...]]:
    """How many pairs have the same caption, upper and lower case, spaces and punctuation apart."""
    bare = pc.replace_substring_regex(pc.utf8_lower(texts), r"[^\pL\pM\pN]+", " ")
    codes = pc.dictionary_encode(pc.utf8_trim_whitespace(bare)).indices.to_numpy(zero_copy_only=False)
    return np.bincount(codes)[codes], ()


def _hosts(texts: pa.Array) -> tuple[np.ndarray, tuple[str, ...]]:
    """The hosts of addresses; those that are not among the most frequent are one category."""
    found = pc.struct_field(
        pc.extract_regex(pc.utf8_lower(texts), r"^[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>[^/?#:]+)"), 0
    )
    encoded = pc.dictionary_encode(pc.fill_null(found, ""))
    hosts = np.array(encoded.dictionary.to_pylist(), object)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((hosts, -np.bincount(codes, minlength=len(hosts))))
    kept = sorted(hosts[place] for place in order[: _MOST_HOSTS - 1])
    named = tuple(kept) if len(kept) == len(hosts) else (*kept, OTHER)
    place_of = {host: place for place, host in enumerate(named)}
    places = np.array([place_of.get(host, len(named) - 1) for host in hosts], np.float32)
    return places[codes] if len(hosts) else np.empty(0, np.float32), named


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
            ),
            "caption",
            _count_characters,
        ),
        Computed(
            Column(
                name="caption_words",
                title="Caption words",
                measures="Words in the caption, parted by white space.",
                misleads="Chinese and Japanese put no spaces between words.",
                unit="words",
            ),
            "caption",
            _count_words,
        ),
        Computed(
            Column(
                name="caption_nonletters",
                title="Caption non-letters",
                measures="Characters of the caption that are neither letters of any script nor white space.",
                unit="characters",
            ),
            "caption",
            _count_nonletters,
        ),
        Computed(
            Column(
                name="caption_copies",
                title="Caption copies",
                measures="Pairs with the same caption, upper and lower case, spaces and punctuation apart; 1 is a "
                "caption of its own.",
                direction="lower",
                unit="pairs",
            ),
            "caption",
            _count_copies,
        ),
        Computed(
            Column(
                name="url_host",
                title="Host",
                measures=f"The host of the image's address; those beyond the {_MOST_HOSTS - 1:,} most frequent are "
                f"{OTHER}.",
                kind="category",
            ),
            "url",
            _hosts,
        ),
    )
}
