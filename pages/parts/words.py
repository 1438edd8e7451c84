"""How are numbers put into words? One way for all pages."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from clipsel_core.errors import counted
from clipsel_core.errors import duration as duration


def number(value: float) -> str:
    """A whole number with thousands separators: 12800000 is 12,800,000."""
    return f"{int(value):,}"


def pairs(number: float) -> str:
    """So many pairs: 1 pair, 12,800,000 pairs."""
    return counted(number, "pairs")


def rate(value: float) -> str:
    """So many in a second: 1234.5 is 1,234; a digit behind the point below 10."""
    return number(value) if value >= 10 else f"{value:.1f}"


def share(part: float, whole: float) -> str:
    """A part in percent of the whole, as percentage() says it; nothing of nothing is 0.0 %."""
    return percentage(part / whole if whole else 0)


def percentage(part: float) -> str:
    """A share, 0 to 1, in percent with one decimal. Only all of it is 100.0 %, and only nothing is 0.0 %.

    >>> percentage(1.0), percentage(0.99996), percentage(0.3), percentage(0.00001)
    ('100.0 %', 'over 99.9 %', '30.0 %', 'under 0.1 %')
    """
    if 0 < part < 0.0005:
        return "under 0.1 %"
    if 0.9995 <= part < 1:
        return "over 99.9 %"
    return f"{100 * part:.1f} %"


def percentile(percent: float) -> str:
    """The percentage that lies below, 0 to 100, as a percentile. Rounding makes nobody the first or the last.

    >>> percentile(0), percentile(0.004), percentile(99.61), percentile(99.99999), percentile(100)
    ('P0.0', '<P0.1', 'P99.6', '>P99.9', 'P100.0')
    """
    if 0 < percent < 0.05:
        return "<P0.1"
    return ">P99.9" if 99.95 <= percent < 100 else f"P{percent:.1f}"


def decimal(value: float) -> str:
    """A score to four digits, or a dash where there is none. What rounds to nothing has no sign.

    >>> decimal(0.25), decimal(-0.00001), decimal(1234.5)
    ('0.2500', '0.0000', '1,234.50')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{unsigned_zero(value):.4f}" if abs(value) < 10 else f"{value:,.2f}"


def unsigned_zero(value: float) -> float:
    """A score as it is, but 0.0 where its four digits would say -0.0000."""
    return 0.0 if abs(value) < 0.00005 else value


def as_markdown(text: str) -> str:
    """Somebody else's text, so that a label or a help, which take Markdown, shows it as it is.

    >>> as_markdown("a_b [c](d)")
    'a\\\\_b \\\\[c\\\\]\\\\(d\\\\)'
    """
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>~:$&-])", r"\\\1", text)


def percent(fraction: Decimal) -> str:
    """A fraction in percent as it was written: 0.125 is 12.5 %."""
    return f"{(fraction * 100).normalize():f} %"
