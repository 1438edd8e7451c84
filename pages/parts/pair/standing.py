"""Where does one pair stand? Each score with its rank and its place on the histogram, and what the normalizer took."""

from __future__ import annotations

import numpy as np

from clipsel_core.curation.index import ranks
from pages.parts import marginals, metrics, state, words
from pages.parts.catalog import Entry
from pages.parts.component import component

_BINS = 64
_standing = component(
    "standing",
    '<div class="standing"></div>',
    css=("histogram.css", "standing.css"),
    js=("make.js", "plot.js", "standing.js"),
)
_PARTS = ("clip_score", "r_image", "r_text", "s_cliploss")


def show(entry: Entry, row: int) -> None:
    """Draws where a pair stands by every metric of the run."""
    table = state.open_table(entry)
    found = {name: float(table.take(name, np.array([row]))[0]) for name in table.metrics}
    parts = [found.get(name, np.nan) for name in _PARTS]
    fall = _fall(entry, *parts) if np.isfinite(parts).all() else None
    scores = [_score(entry, name, value) for name, value in found.items()]
    _standing(data={"scores": scores, "fall": fall}, key="standing")


def _score(entry: Entry, name: str, value: float) -> dict[str, object]:
    """A row of the table: a metric, the pair's score and rank, and the run's histogram with the pair's place on it."""
    metric = metrics.describe(name)
    spread = marginals.marginal(entry, name)
    edges, counts = spread.coarse(_BINS)
    known = {"title": metric.title, "help": metric.help, "value": words.score(value), "counts": counts.tolist()}
    if not np.isfinite(value):
        return {**known, "rank": "not scored", "percentile": "", "at": None}
    stands = ranks.standing(state.metric_bins(entry, name), value)
    return {
        **known,
        "rank": f"{words.count(stands.rank)} of {words.count(stands.scored)}",
        "percentile": "all alike" if spread.alike else words.percentile(stands.percentile),
        "at": min(max((value - edges[0]) / (edges[-1] - edges[0]), 0), 1),
    }


def _fall(entry: Entry, clip_score: float, r_image: float, r_text: float, s_cliploss: float) -> dict[str, object]:
    """The waterfall from CLIPScore down to s-CLIPLoss, and what it means in words."""
    steps = [
        ("CLIPScore", clip_score, 0.0, clip_score, "start"),
        ("− r image", r_image, clip_score, clip_score - r_image, "taken"),
        ("− r text", r_text, clip_score - r_image, clip_score - r_image - r_text, "taken"),
        ("= s-CLIPLoss", s_cliploss, 0.0, s_cliploss, "end"),
    ]
    low = min(0.0, *(min(start, stop) for _, _, start, stop, _ in steps))
    span = max(0.0, *(max(start, stop) for _, _, start, stop, _ in steps)) - low or 1.0
    return {
        "zero": -low / span,
        "steps": [
            {
                "title": title,
                "value": words.score(value),
                "from": (min(start, stop) - low) / span,
                "to": (max(start, stop) - low) / span,
                "kind": kind,
            }
            for title, value, start, stop, kind in steps
        ],
        "text": _in_words(entry, r_image, r_text),
    }


def _in_words(entry: Entry, r_image: float, r_text: float) -> str:
    image, text = (marginals.marginal(entry, name) for name in ("r_image", "r_text"))
    usual = image.quantile(50) + text.quantile(50)
    taken = r_image + r_text
    compared = "about as much as" if abs(taken - usual) < 0.005 else "more than" if taken > usual else "less than"
    return (
        f"The normalizer took {words.score(taken)}, {compared} the {words.score(usual)} that is usual in this run. "
        f"{words.score(r_image)} because the image also fits other captions, "
        f"{_more_so(image, r_image, 'images')}; {words.score(r_text)} because the caption also fits other images, "
        f"{_more_so(text, r_text, 'captions')}."
    )


def _more_so(spread: marginals.Marginal, value: float, others: str) -> str:
    """How many of the others do so less."""
    percent = spread.percentile(value)
    if not percent:
        return f"no more so than any of the {others} do"
    return f"more so than {words.percentage(percent / 100)} of the {others} do"
