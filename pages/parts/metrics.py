"""What does a metric measure, and when does it mislead? Titles and one sentence each, the same on every page."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NORMSIM = re.compile(r"normsim_([^_]+)_(.+)")


@dataclass(frozen=True)
class Metric:
    """A score column in words. selects: whether keeping its highest pairs makes sense. ours: whether we computed it."""

    name: str
    title: str
    measures: str
    misleads: str
    selects: bool = True
    ours: bool = True

    @property
    def help(self) -> str:
        return f"{self.measures} {self.misleads}"


_FIXED = {
    metric.name: metric
    for metric in (
        Metric(
            "clip_score",
            "CLIPScore",
            "Cosine of an image with its own caption; higher is better.",
            "Misleads on images that show their caption as text, and on captions so general that they fit anything.",
        ),
        Metric(
            "s_cliploss",
            "s-CLIPLoss",
            "CLIPScore less what image and caption gain by fitting the rest of their batch; higher is better.",
            "Misleads where a batch is small or full of near duplicates, because twins are marked down for each other.",
        ),
        Metric(
            "r_image",
            "r image",
            "How well the image fits the other captions of its batch; the half of the normalizer that it pays.",
            "A high value says that the image is common or vague, not that the pair is bad.",
            selects=False,
        ),
        Metric(
            "r_text",
            "r text",
            "How well the caption fits the other images of its batch; the half of the normalizer that it pays.",
            "A high value says that the caption is common or vague, not that the pair is bad.",
            selects=False,
        ),
        Metric(
            "normalizer_se",
            "Normalizer error",
            "Standard error of the normalizer over the random divisions; lower is steadier.",
            "Says how much the rank would move under another seed, and nothing about how good the pair is.",
            selects=False,
        ),
    )
}


def describe(name: str) -> Metric:
    """A metric's title and its sentence; an imported column is described by its name alone."""
    if name in _FIXED:
        return _FIXED[name]
    match = _NORMSIM.fullmatch(name)
    if match is None:
        measures = "A column that was imported with the run."
        return Metric(name, name, measures, "Its maker knows what it means.", ours=False)
    p, target = match.groups()
    if p == "inf":
        measures = f"Largest cosine of the image with any image of the target {target}; higher is better."
        misleads = "One odd target image lets all its look-alikes in; captions take no part."
        return Metric(name, f"NormSim ∞ · {target}", measures, misleads)
    measures = f"{p}-norm of the image's cosines with all images of the target {target}; higher is better."
    misleads = "Favours what the target shows most often, grows with the target's size; captions take no part."
    return Metric(name, f"NormSim {p} · {target}", measures, misleads)


def title(name: str) -> str:
    """What people read instead of the column's name."""
    return describe(name).title
