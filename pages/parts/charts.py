"""How are scores drawn, and which part of a drawing is marked? From counts that are binned on the server.

A histogram is a component of ours, as the one beside a thumb is; what does not move is drawn by plotly, counts of two
metrics as an image.

A session marks one part of one chart: some bins of a histogram, or some bars. The browser marks it. What is marked is
state of the chart's component, under a number of its own: so it is heard by the next run, where Streamlit ended the one
that it came with.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from PIL import Image

from pages.parts import sessions
from pages.parts.component import component

_OUTLINE = "#e5484d"
# Room for half a number beyond the last tick, which plotly leaves out otherwise.
_MARGIN = {"l": 8, "r": 18, "t": 8, "b": 8}
_CONFIG = {
    "displaylogo": False,
    "scrollZoom": True,
    "modeBarButtonsToRemove": ["toImage", "autoScale2d"],
}


_histogram = component(
    "histogram",
    '<div class="histogram"></div>',
    css=("histogram.css",),
    js=("make.js", "plot.js", "brush.js", "histogram.js"),
)
_bars = component("bars", '<div class="bars"></div>', css=("bars.css",), js=("make.js", "brush.js", "bars.js"))


@dataclass(frozen=True)
class _Inks:
    """What is written and drawn in on one theme. words, accent, red: words in them have 4.5 to 1 or more on the page.

    quiet: for a second curve. behind: for words that lie on a picture. counts: few, more and most of a density, as red,
    green and blue.
    """

    words: str
    accent: str
    quiet: str
    red: str
    behind: str
    counts: tuple[tuple[int, int, int], ...]


_ON_LIGHT = _Inks(
    words="#56616e",
    accent="#08776e",
    quiet="#8b95a5",
    red="#c93439",
    behind="rgba(255, 255, 255, 0.85)",
    counts=((214, 236, 233), (45, 168, 156), (6, 62, 66)),
)
_ON_DARK = _Inks(
    words="#b4bec7",
    accent="#2cb5a6",
    quiet="#98a2b0",
    red="#ff8c8f",
    behind="rgba(15, 20, 24, 0.85)",
    counts=((20, 58, 60), (28, 140, 130), (190, 250, 240)),
)


def _inks() -> _Inks:
    return _ON_DARK if st.context.theme.type == "dark" else _ON_LIGHT


def _show(figure: go.Figure, key: str, **config: object) -> None:
    """Puts a figure on the page, its axes in words that can be read."""
    words = _inks().words
    figure.update_xaxes(tickfont_color=words, title_font_color=words)
    figure.update_yaxes(tickfont_color=words, title_font_color=words)
    st.plotly_chart(figure, key=key, config=config)


def bins_for(points: int) -> int:
    """Bins along each axis: fewer for few points, so that neighbours touch."""
    return int(np.clip(2.5 * np.sqrt(points), 32, 512))


def _density_figure(
    counts: np.ndarray, x_range: tuple[float, float], y_range: tuple[float, float], *, height: int
) -> go.Figure:
    """A figure of one image over its two axes. counts: (x bins, y bins) over the two ranges, in their units.

    Empty cells are clear, full ones in shades of the log count. A marker outside the view is there because plotly
    reports box and lasso only where some trace could be selected.
    """
    level = np.log1p(counts.T[::-1].astype(np.float64))
    level /= level.max() or 1.0
    stops = np.array(_inks().counts, np.float64)
    pixels, file = np.empty((*level.shape, 4), np.uint8), io.BytesIO()
    for channel in range(3):
        pixels[..., channel] = np.interp(level, [0, 0.5, 1], stops[:, channel])
    pixels[..., 3] = np.where(level > 0, 255, 0)
    Image.fromarray(pixels).save(file, "PNG", optimize=False)
    figure = go.Figure(go.Scatter(x=[None], y=[None], mode="markers", hoverinfo="skip", showlegend=False))
    figure.add_layout_image(
        source="data:image/png;base64," + base64.b64encode(file.getvalue()).decode(),
        xref="x",
        yref="y",
        x=x_range[0],
        y=y_range[1],
        sizex=x_range[1] - x_range[0],
        sizey=y_range[1] - y_range[0],
        sizing="stretch",
        layer="above",
    )
    figure.update_layout(
        height=height,
        margin=_MARGIN,
        uirevision="keep",
        hovermode=False,
        modebar={"orientation": "v"},
    )
    figure.update_xaxes(range=list(x_range), zeroline=False)
    figure.update_yaxes(range=list(y_range), zeroline=False)
    return figure


@dataclass(frozen=True)
class Line:
    """A threshold in a density: at a score of the metric across (axis "x") or up ("y"), labelled in our own words."""

    axis: str
    value: float
    label: str


def draw_metric_density(
    counts: np.ndarray,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_title: str,
    y_title: str,
    lines: Sequence[Line] = (),
) -> None:
    """Draws the joint counts of two metrics, axes in score units, and thresholds over them."""
    figure = _density_figure(counts, x_range, y_range, height=520)
    figure.update_xaxes(title=x_title, showgrid=True)
    figure.update_yaxes(title=y_title, showgrid=True)
    inks = _inks()
    for line in lines:
        drawn = {"line_color": _OUTLINE, "line_width": 2, "annotation_text": line.label}
        note = {"annotation_font_color": inks.red, "annotation_font_size": 12}
        if line.axis == "x":
            figure.add_vline(line.value, annotation={"y": 1, "yanchor": "bottom", "xanchor": "center"}, **drawn, **note)
        else:
            note["annotation_bgcolor"] = inks.behind
            figure.add_hline(line.value, annotation_position="top left", **drawn, **note)
    figure.update_layout(margin_t=26)
    _show(figure, "density", **_CONFIG)


def draw_rank_density(counts: np.ndarray, x_title: str, y_title: str) -> None:
    """Draws joint counts of two rankings in percent, with the diagonal on which both agree."""
    figure = _density_figure(counts, (0.0, 100.0), (0.0, 100.0), height=380)
    figure.update_xaxes(title=f"percentile rank by {x_title}", showgrid=True)
    figure.update_yaxes(title=f"percentile rank by {y_title}", showgrid=True)
    figure.add_shape(type="line", x0=0, y0=0, x1=100, y1=100, line={"color": _OUTLINE, "width": 1, "dash": "dot"})
    _show(figure, "rank density", **_CONFIG)


def draw_curves(x: np.ndarray, named: Mapping[str, np.ndarray], x_title: str, y_title: str) -> None:
    """Draws one or two curves over the same x, their names beside their ends."""
    figure, inks = go.Figure(), _inks()
    highest = max(named, key=lambda name: named[name][-1])
    colours = ((inks.accent, inks.accent), (inks.quiet, inks.words))
    for (name, y), (color, word) in zip(named.items(), colours, strict=False):
        figure.add_scatter(x=x, y=y, mode="lines", name=name, line={"color": color, "width": 2.5})
        beside = {"showarrow": False, "xanchor": "left", "xshift": 6, "yshift": 7 if name == highest else -7}
        figure.add_annotation(x=x[-1], y=y[-1], text=name, font_color=word, **beside)
    figure.update_layout(height=360, margin={"l": 8, "r": 90, "t": 8, "b": 8}, showlegend=False, hovermode="x unified")
    figure.update_xaxes(title=x_title, range=[0, 100])
    figure.update_yaxes(title=y_title, tickformat=".3f")
    _show(figure, "curves", displayModeBar=False)


def draw_overlap_curve(percents: np.ndarray, shares: np.ndarray, marked: int) -> None:
    """Draws what two tops of equal size share, and what chance would, against that size; in percent. marked: a size."""
    figure, inks = go.Figure(), _inks()
    figure.add_scatter(x=[0, 100], y=[0, 100], mode="lines", line={"color": inks.quiet, "width": 1.5, "dash": "dot"})
    figure.add_scatter(x=percents, y=shares, mode="lines", line={"color": inks.accent, "width": 2.5})
    figure.add_vline(marked, line={"color": _OUTLINE, "width": 2})
    note = {"text": "by chance", "font_color": inks.words, "showarrow": False, "xanchor": "left", "yanchor": "top"}
    figure.add_annotation(x=52, y=50, **note)
    figure.update_layout(height=300, margin=_MARGIN, showlegend=False, hovermode=False)
    figure.update_xaxes(title="top share of each run, in percent of the pairs that both scored", range=[0, 100])
    figure.update_yaxes(title="in both tops, percent", range=[0, 102])
    _show(figure, "overlap curve", displayModeBar=False)


@dataclass(frozen=True)
class Chart:
    """A chart of a run. run: the key of its entry. key: the component's, another one for other pairs. column: what is
    drawn."""

    run: str
    key: str
    column: str


@dataclass
class _Marked:
    """What a session marked last. chart: None where nothing is marked. first, last: bins or bars, both in it.

    heard: by the keys of charts, the number of what was said last.
    """

    chart: Chart | None = None
    first: int = 0
    last: int = 0
    heard: dict[str, float] = field(default_factory=dict)


def hear_mark(chart: Chart) -> None:
    """Takes in what was marked on a chart, or that nothing is any more, unless that was done."""
    mark = sessions.get(_Marked)
    match (st.session_state.get(chart.key) or {}).get("marked"):
        case {"turn": int() | float() as turn, **said} if turn != mark.heard.get(chart.key):
            match said.get("ends"):
                case [int(first), int(last)] if 0 <= first <= last:
                    mark.chart, mark.first, mark.last = chart, first, last
                case _ if mark.chart == chart:
                    mark.chart = None
            mark.heard[chart.key] = turn


def tell_mark(chart: Chart) -> dict[str, Any]:
    """What a chart's component is told of its mark."""
    hear_mark(chart)
    mark = sessions.get(_Marked)
    part = {"first": mark.first, "last": mark.last} if mark.chart == chart else {}
    return {"heard": mark.heard.get(chart.key, 0), **part}


def marked(chart: Chart, places: int) -> tuple[int, int] | None:
    """The first and the last bin or bar that is marked, of so many; None where none is."""
    mark = sessions.get(_Marked)
    if mark.chart != chart or mark.last >= places:
        return None
    return mark.first, mark.last


def unmark() -> None:
    """Takes the mark away."""
    sessions.get(_Marked).chart = None


def marked_interval(low: float, high: float, bins: int, first: int, last: int) -> tuple[float, float, int]:
    """The ends of some bins of a span as short decimals, as brush.js has them, and how many digits are shown of them.

    The ends of the span are rounded outwards, so that all pairs lie in all bins.

    >>> marked_interval(0.1234, 0.8765, 10, 0, 4)
    (0.123, 0.5, 3)
    """
    width = (high - low) / bins
    digits = min(7, max(0, math.ceil(-math.log10(width) - 1e-9))) + 1
    scale = 10.0**digits
    ends = (low + first * width) * scale, (low + (last + 1) * width) * scale
    start = math.floor(ends[0]) if first == 0 else round(ends[0])
    stop = math.ceil(high * scale) if last == bins - 1 else round(ends[1])
    return start / scale, stop / scale, digits


@dataclass(frozen=True)
class Layer:
    """Counts per bin. kind: pool (grey), pass (pale) or kept (solid); a layer without a name has no legend entry."""

    kind: str
    name: str
    counts: np.ndarray


@dataclass(frozen=True)
class Mark:
    """A vertical line at a score. kind: line (a threshold) or quantile."""

    value: float
    text: str
    kind: str = "quantile"


def draw_histogram(
    title: str,
    note: str,
    edges: np.ndarray,
    layers: list[Layer],
    marks: list[Mark],
    *,
    chart: Chart,
    of: int = 0,
    log: bool = False,
    height: int = 150,
    aside: str = "",
    legend: bool = True,
    unit: str = "score",
) -> None:
    """Draws layers over the same equal bins. edges: (bins + 1,) ascending scores; counts of a layer: (bins,).

    chart: who it is when a part of it is marked. of: the layer whose pairs are meant then. aside: a few words at the
    right of the title. legend: whether the layers are named below. unit: of the numbers.
    """
    low, high = float(edges[0]), float(edges[-1])
    span = high - low or 1.0
    data = {
        "title": title,
        "note": note,
        "aside": aside,
        "low": low,
        "high": high,
        "unit": unit,
        "log": log,
        "height": height,
        "legend": legend,
        "layers": [{"kind": x.kind, "name": x.name, "counts": np.asarray(x.counts).tolist()} for x in layers],
        "marks": [
            {"at": (mark.value - low) / span, "text": mark.text, "kind": mark.kind}
            for mark in marks
            if low - 1e-9 <= mark.value <= high + 1e-9
        ],
        "mark": tell_mark(chart),
        "of": of,
    }
    _histogram(data=data, key=chart.key, on_marked_change=partial(hear_mark, chart))


@dataclass(frozen=True)
class ValueBar:
    """How many pairs have a value, in words. width: of the bar, in percent."""

    label: str
    count: str
    share: str
    width: float


def draw_bars(title: str, rows: Sequence[ValueBar], chart: Chart) -> None:
    """Draws a bar for each value. title: for who cannot see them. chart: who they are when some are marked."""
    data = {"title": title, "rows": [asdict(row) for row in rows], "mark": tell_mark(chart)}
    _bars(data=data, key=chart.key, on_marked_change=partial(hear_mark, chart))
