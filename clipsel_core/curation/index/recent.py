"""What was asked for last, kept by name so that it need not be found again. Any thread may ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The answers asked for last, by name. Two that ask for the same at once may both work it out.

    >>> recent = Recent(2)
    >>> recent.get("a", lambda: 1), recent.get("a", lambda: 2), recent.peek("b")
    (1, 1, None)
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, name: Hashable, find: Callable[[], T]) -> T:
        """What is known by this name, else what `find` finds."""
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
                return self._known[name]
        return self.put(name, find())

    def peek(self, name: Hashable) -> T | None:
        """What is known by this name, None where nothing is."""
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
            return self._known.get(name)

    def put(self, name: Hashable, found: T) -> T:
        """Remembers it by this name, and gives it back."""
        with self._lock:
            self._known[name] = found
            self._known.move_to_end(name)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return found

    def forget(self, holds: Callable[[Any], bool]) -> None:
        """Forgets what has such a name."""
        with self._lock:
            for name in [name for name in self._known if holds(name)]:
                del self._known[name]
