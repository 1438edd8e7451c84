"""How does long work over all pairs end early? Whoever began it is asked, between its parts, whether it may go on.

The question is set once, for all that the thread does; the loops in the depth need not hand it down to one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
# Raises where the work is not wanted any more.
Question = Callable[[], object]

_question: ContextVar[Question] = ContextVar("may it go on", default=lambda: None)


@contextmanager
def asking(question: Question) -> Iterator[None]:
    """What this thread does meanwhile asks this between its parts; what it raises ends the work."""
    before = _question.set(question)
    try:
        yield
    finally:
        _question.reset(before)


def question() -> Question:
    """What this thread asks, which those who work for it may ask as well."""
    return _question.get()


def handed_on(work: Callable[..., T]) -> Callable[..., T]:
    """The same work, to be done by another thread, which then asks what this one asks."""
    ask = question()

    def asked(*arguments: object) -> T:
        with asking(ask):
            return work(*arguments)

    return asked


def in_threads(threads: Executor, work: Callable[..., T], *items: Iterable) -> list[T]:
    """As list(threads.map(work, *items)), with the question before each answer, and in the work where it asks.

    Where it ends early, parts that were not begun are left, and the others over: what they wrote to is free again.
    """
    ask, work = question(), handed_on(work)
    parts = [threads.submit(work, *part) for part in zip(*items, strict=False)]
    found = []
    try:
        for part in parts:
            ask()
            found.append(part.result())
    except BaseException:
        wait([part for part in parts if not part.cancel()])
        raise
    return found
