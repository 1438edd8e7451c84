"""Which part of a chart is marked? Some bins of a histogram, or some bars; a session marks one part of one chart.

The browser marks it. What is marked is state of the chart's component, under a number of its own: so it is heard by the
next run, where Streamlit ended the one that it came with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from pages.parts import sessions


@dataclass(frozen=True)
class Chart:
    """A chart of a run. run: the key of its entry. key: the component's, another one for other pairs. column: what is
    drawn."""

    run: str
    key: str
    column: str


@dataclass
class Mark:
    """What a session marked last. chart: None where nothing is marked. first, last: bins or bars, both in it.

    heard: by the keys of charts, the number of what was said last.
    """

    chart: Chart | None = None
    first: int = 0
    last: int = 0
    heard: dict[str, float] = field(default_factory=dict)


def hear(chart: Chart) -> None:
    """Takes in what was marked on a chart, or that nothing is any more, unless that was done."""
    mark = sessions.get(Mark)
    match (st.session_state.get(chart.key) or {}).get("marked"):
        case {"turn": int() | float() as turn, **said} if turn != mark.heard.get(chart.key):
            match said.get("ends"):
                case [int(first), int(last)] if 0 <= first <= last:
                    mark.chart, mark.first, mark.last = chart, first, last
                case _ if mark.chart == chart:
                    mark.chart = None
            mark.heard[chart.key] = turn


def told(chart: Chart) -> dict[str, Any]:
    """What a chart's component is told of its mark."""
    hear(chart)
    mark = sessions.get(Mark)
    part = {"first": mark.first, "last": mark.last} if mark.chart == chart else {}
    return {"heard": mark.heard.get(chart.key, 0), **part}


def marked(chart: Chart, places: int) -> tuple[int, int] | None:
    """The first and the last bin or bar that is marked, of so many; None where none is."""
    mark = sessions.get(Mark)
    if mark.chart != chart or mark.last >= places:
        return None
    return mark.first, mark.last


def unmark() -> None:
    """Takes the mark away."""
    sessions.get(Mark).chart = None


def interval(low: float, high: float, bins: int, first: int, last: int) -> tuple[float, float, int]:
    """The ends of some bins of a span as short decimals, as brush.js has them, and how many digits are shown of them.

    The ends of the span are rounded outwards, so that all pairs lie in all bins.

    >>> interval(0.1234, 0.8765, 10, 0, 4)
    (0.123, 0.5, 3)
    """
    width = (high - low) / bins
    digits = min(7, max(0, math.ceil(-math.log10(width) - 1e-9))) + 1
    scale = 10.0**digits
    ends = (low + first * width) * scale, (low + (last + 1) * width) * scale
    start = math.floor(ends[0]) if first == 0 else round(ends[0])
    stop = math.ceil(high * scale) if last == bins - 1 else round(ends[1])
    return start / scale, stop / scale, digits
