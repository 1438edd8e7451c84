"""What is worked out once and kept for all sessions? What a function returned last, while its files are the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from typing import Any, Generic, ParamSpec, TypeVar

import streamlit as st

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


# By function: a page's script defines its functions anew whenever it is run.
_results: dict[tuple[str, str], OrderedDict[Hashable, Any]] = {}
_lock = threading.Lock()


class _Slot:
    """Room for one result, which one session works out and the others wait for."""

    def __init__(self) -> None:
        self.lock, self.filled, self.result = threading.Lock(), False, None


class Cached(Generic[Arguments, Result]):
    """A function that keeps its last `most` results. They are shared between sessions: nobody may write to them.

    stamp: told the arguments; a result is kept by them and by what this returns. spinner: said while it is worked out.
    Streamlit's own caches take a millisecond to name a result, and a moved thumb asks for dozens.
    """

    def __init__(
        self, work: Callable[Arguments, Result], most: int, stamp: Callable[..., Hashable], spinner: str
    ) -> None:
        self._work, self._most, self._stamp, self._spinner = work, most, stamp, spinner
        code = work.__code__
        self._slots = _results.setdefault((code.co_filename, code.co_qualname), OrderedDict())

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        name = args, tuple(kwargs.items()), self._stamp(*args, **kwargs)
        with _lock:
            slot = self._slots.setdefault(name, _Slot())
            self._slots.move_to_end(name)
            while len(self._slots) > self._most:
                self._slots.popitem(last=False)
        with slot.lock:
            if not slot.filled:
                with st.spinner(self._spinner) if self._spinner else nullcontext():
                    slot.result, slot.filled = self._work(*args, **kwargs), True
        return slot.result

    def clear(self) -> None:
        """Forgets all results."""
        with _lock:
            self._slots.clear()
