"""Which columns can be chosen on the pages, and what is said of each? What the registry says, one way for all pages.

The run's own columns are known at once. For those of the pool's table the files of all its shards are looked at, which
takes half a second of a thousand shards: pages of runs with many offer them once that was done, in the background.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import streamlit as st

from clipsel_core.errors import ClipselError
from clipsel_core.runs.columns import IN_POOLS, Column, describe, parse_derived, words_of
from pages.parts import state
from pages.parts.catalog import Entry

# Pools of so many shards are looked at before a page is drawn; of others so long after the page was first asked for.
_FEW_SHARDS, _LATER_S = 16, 2.0


class _OfPool:
    """The columns of a run's pool. columns: empty until they were looked for."""

    def __init__(self, entry: Entry) -> None:
        self.columns: dict[str, Column] = {}
        self._entry, self._lock, self._looked = entry, threading.Lock(), False
        self.many = len(state.open_run(entry).config.shards) > _FEW_SHARDS
        if self.many:
            later = threading.Timer(_LATER_S, self._look_ahead)
            later.daemon = True
            later.start()

    def _look_ahead(self) -> None:
        with suppress(ClipselError):  # Whoever asks for them is told.
            self.look()

    def look(self) -> dict[str, Column]:
        """Looks for them, once; where the pool is not at hand it has none."""
        with self._lock:
            if not self._looked:
                table = state.open_table(self._entry)
                self.columns = {name: column for name, column in table.columns.items() if column.origin == "pool"}
                self._looked = True
        return self.columns


@state.per_run(4)
def _of_pool(entry: Entry) -> _OfPool:
    return _OfPool(entry)


@state.per_run(8)
def _own(entry: Entry) -> dict[str, Column]:
    return state.open_run(entry).columns


def column_of(entry: Entry, name: str) -> Column:
    """What is known of a column: of the run, of its pool's table, or made of others, whose name says how."""
    own = _own(entry)
    if name in own:
        return own[name]
    if parse_derived(name) is not None:
        said = "Made of other columns when it is asked for."
        return Column(name=name[:200], title=words_of(name, partial(title, entry)), measures=said, origin="mix")
    return _of_pool(entry).columns.get(name) or IN_POOLS.get(name) or describe(name)


def title(entry: Entry, name: str) -> str:
    """What people read instead of a column's name: its title, with its name where another column has the same."""
    return titles(entry)(name)


def titles(entry: Entry) -> Callable[[str], str]:
    """The same for many names."""
    known: Mapping[str, Column] = {**_of_pool(entry).columns, **_own(entry)}
    times = Counter(column.shown for column in known.values())

    def shown(name: str) -> str:
        found = known.get(name) or column_of(entry, name)
        return found.shown if times[found.shown] < 2 else f"{found.shown} ({name})"

    return shown


def offered(entry: Entry, *kinds: str, keys: tuple[str, ...] = (), wait: bool = False) -> list[str]:
    """The columns that people may choose from, the run's own first. kinds: of columns; those of numbers where none.

    keys: of the widgets that offer them; what was chosen there, or is in the address, is looked for in the pool at
    once. wait: the same for whatever the pool has.
    """
    own, pool = _own(entry), _of_pool(entry)
    if wait or not pool.many or _asked(keys) - {*own, *(column.shown for column in own.values())}:
        pool.look()
    known = (own | pool.columns).items()
    return [name for name, column in known if (column.kind in kinds if kinds else column.is_number)]


def _asked(keys: tuple[str, ...]) -> set[str]:
    """What these widgets are set to, in the session or the address."""
    said = [value for key in keys for value in (st.session_state.get(key), *st.query_params.get_all(key))]
    return {name for value in said for name in (value if isinstance(value, list | tuple) else [value]) if name}


def own_numbers(entry: Entry) -> list[str]:
    """The run's own columns that hold numbers: scores, and what was added."""
    return [name for name, column in _own(entry).items() if column.is_number]


def unit_of(column: Column) -> str:
    """What its numbers are called beside an axis."""
    return column.unit or ("score" if column.origin in ("computed", "target", "mix") else "value")
