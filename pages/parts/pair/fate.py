"""What shall become of many pairs at once? Kept or dropped by the recipe, or a target that the run is compared with."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.curation.recipes.recipe_steps import AnyStep, Drop, Keep, Subtract, Union
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import empty, lists, recipes, state, unreadable, words
from pages.parts.catalog import Entry
from pages.parts.jobs import forms, targets

# So many uids are written into the recipe itself; more go into a list beside it.
_MOST_INLINE = 100
_FAILED = "fate failed"


def actions(
    entry: Entry, run: Run, rows: np.ndarray, more: Callable[[], None] | None = None, *, called: str = "pairs"
) -> None:
    """Buttons that take many pairs into the recipe at once, or make a target of them. more: draws another one.

    called: what they are, in a few words; a list of them is named after it.
    """
    with st.container(horizontal=True, gap="small", key="fate"):
        for kind, icon in (("keep", ":material/check:"), ("drop", ":material/block:")):
            act = partial(_add, entry, run, rows, kind, called)
            st.button(f"{kind.capitalize()} these", icon=icon, key=f"{kind} these", on_click=act)
        if forms.button("Use as target", "picked", ":material/my_location:", disabled=not run.finished):
            targets.ask_for_pairs(run, state.open_table(entry).uids_at(rows), "picked")
        if more is not None:
            more()
    if _FAILED in st.session_state:
        empty.show_error(st.session_state.pop(_FAILED), "This could not be written")


@unreadable.doing
def _add(entry: Entry, run: Run, rows: np.ndarray, kind: str, called: str) -> None:
    """Keeps or drops the pairs as the last step of the recipe, in place of what that one said of them."""
    names = uids.sort(state.open_table(entry).uids_at(rows))
    try:
        step = _step(run, names, kind, called)
    except (ClipselError, OSError) as error:
        st.session_state[_FAILED] = empty.not_written(error, run.recipes_dir)
        return
    steps = recipes.draft(entry, run)
    last = next(reversed(steps), None)
    if last is not None and _same_pairs(steps[last], step):
        recipes.change_step(entry, run, last, None)
    recipes.add_step(entry, run, step)
    done = "kept by hand" if kind == "keep" else "dropped by hand"
    st.toast(f"{words.pairs(len(rows))} {done}: the last step on the Select page", icon=":material/check:")


def _same_pairs(one: AnyStep, other: AnyStep) -> bool:
    """Whether two steps are about the same pairs, whatever shall become of them."""
    alike = any(isinstance(one, kinds) and isinstance(other, kinds) for kinds in (Keep | Drop, Union | Subtract))
    return alike and getattr(one, one.kind) == getattr(other, other.kind)


def _step(run: Run, names: np.ndarray, kind: str, called: str) -> AnyStep:
    if len(names) <= _MOST_INLINE:
        made = Keep if kind == "keep" else Drop
        return made.model_validate({kind: uids.to_hex(names).to_pylist()})
    listed = Union if kind == "keep" else Subtract
    return listed.model_validate({listed.kind: lists.store(run, f"{called}.npy", _as_file(names))})


def _as_file(names: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, names, allow_pickle=False)
    return file.getvalue()
