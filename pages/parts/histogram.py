"""How is one metric's distribution drawn? As layers of binned counts, in the browser, from a few hundred numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pages.parts.component import component

_histogram = component(
    "histogram", '<div class="histogram"></div>', css=("histogram.css",), js=("make.js", "plot.js", "histogram.js")
)


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


def show_histogram(
    title: str,
    note: str,
    edges: np.ndarray,
    layers: list[Layer],
    marks: list[Mark],
    *,
    key: str,
    unit: str = "score",
    log: bool = False,
    height: int = 150,
    aside: str = "",
    legend: bool = True,
) -> None:
    """Draws layers over the same equal bins. edges: (bins + 1,) ascending scores; counts of a layer: (bins,).

    aside: a few words at the right of the title. legend: whether the layers are named below.
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
    }
    _histogram(data=data, key=key)
