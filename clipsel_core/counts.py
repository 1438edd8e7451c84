"""How is it said how many of something there are?"""

from __future__ import annotations


def counted(number: float, things: str) -> str:
    """So many of them, thousands separated. things: their plural, which ends in a bare s.

    >>> counted(1, "pairs"), counted(12_800_000, "pairs"), counted(0, "tars")
    ('1 pair', '12,800,000 pairs', '0 tars')
    """
    return f"{int(number):,} {things_of(number, things)}"


def things_of(number: float, things: str) -> str:
    """The word alone, for where the number stands elsewhere. number, things: as in counted.

    >>> things_of(1, "pairs"), things_of(2, "pairs")
    ('pair', 'pairs')
    """
    return things.removesuffix("s") if int(number) == 1 else things
