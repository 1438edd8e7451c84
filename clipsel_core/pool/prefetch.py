"""How is slow work kept some items ahead of whoever takes its results, in order and with memory bounded?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Done(NamedTuple, Generic[Result]):
    """A result that is there, for `in_order`: a future would take as long as a simple step itself."""

    value: Result

    def result(self) -> Result:
        """It."""
        return self.value


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one shorter; no more of them is read than the next list."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def in_order(
    items: Iterable[Item],
    submit: Callable[[Item], Future[Result] | Done[Result]],
    depth: int,
    *,
    failed: Callable[[Item, Exception], Result] | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Each item with the result of its work, in the items' order; at most `depth` are under way or waiting.

    failed: gives the result of work that raised; without it the error ends all.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor() as threads:
    ...     list(in_order("ab", lambda item: threads.submit(str.upper, item), depth=2))
    [('a', 'A'), ('b', 'B')]
    """
    rest = iter(items)
    waiting = deque((item, submit(item)) for item in islice(rest, max(1, depth)))
    while waiting:
        item, future = waiting.popleft()
        try:
            result = future.result()
        except Exception as error:
            if failed is None:
                raise
            result = failed(item, error)
        yield item, result
        waiting.extend((item, submit(item)) for item in islice(rest, 1))
