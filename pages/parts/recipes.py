"""Which recipes are at hand, and which one is being edited? A draft of plain steps a run, kept for the session.

A step is what it is in YAML: {"metric": "s_cliploss", "keep_top": 0.3}. The draft keeps plain dictionaries so that a
half-made step can exist; whatever is counted or exported goes through the core's parser first.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import streamlit as st
import yaml

from clipsel_core.curation.recipe import load_recipe
from clipsel_core.errors import ClipselError
from clipsel_core.runs.store import Run
from pages.parts import metrics
from pages.parts.catalog import Entry

Step = dict[str, Any]
_LIST_VERBS = ("union", "intersect", "subtract")


def saved(run: Run) -> dict[str, Path]:
    """The recipes saved with the run, by name."""
    return {path.stem: path for path in sorted(run.recipes_dir.glob("*.yaml"))}


def suggestion(run: Run) -> list[Step]:
    """The paper's two steps as far as the run has their metrics: top 30 % by s-CLIPLoss, of those 20 % by NormSim."""
    known = run.metrics
    steps: list[Step] = []
    if "s_cliploss" in known:
        steps.append({"metric": "s_cliploss", "keep_top": 0.3})
    near = next((name for name in known if name.startswith("normsim_inf_")), None)
    if near:
        steps.append({"metric": near, "keep_top": 0.2})
    return steps or [{"metric": name, "keep_top": 0.3} for name in known[:1]]


def draft(entry: Entry, run: Run) -> list[Step]:
    """The steps being edited in this session; the suggestion at first. Change it with `replace_draft`."""
    return st.session_state.setdefault(f"draft {entry.key}", suggestion(run))


def replace_draft(entry: Entry, steps: Iterable[Step]) -> None:
    """Puts other steps in the draft's place."""
    st.session_state[f"draft {entry.key}"] = list(steps)


def read_steps(path: Path) -> list[Step]:
    """A saved recipe's steps. Raises RecipeError where it is not one."""
    load_recipe(path)
    return [dict(step) for step in yaml.safe_load(path.read_text(encoding="utf-8"))["steps"]]


def as_yaml(steps: Iterable[Step]) -> str:
    """The recipe of these steps, as it is saved and as it is given to the core."""
    lines = [f"  - {_flow(step)}" for step in steps]
    return "steps:\n" + "\n".join(lines) + "\n" if lines else "steps: []\n"


def in_words(path: Path) -> str:
    """What a saved recipe does, in one line; or what is wrong with it."""
    try:
        return ", then ".join(step_in_words(step) for step in read_steps(path)) or "everything"
    except ClipselError as error:
        return str(error)


def step_in_words(step: Step) -> str:
    """One step as a person would say it."""
    name = metrics.title(step["metric"]) if "metric" in step else ""
    if "keep_top" in step:
        whole = "survivors" if step.get("of") == "survivors" else "pool"
        text = f"top {100 * step['keep_top']:g} % of the {whole} by {name}"
    elif "at_least" in step:
        text = f"{name} ≥ {step['at_least']:g}"
    elif "at_most" in step:
        text = f"{name} ≤ {step['at_most']:g}"
    else:
        verb = next((verb for verb in (*_LIST_VERBS, "keep", "drop") if verb in step), "step")
        what = step.get(verb)
        text = f"{verb} {len(what)} by hand" if isinstance(what, list) else f"{verb} {what}"
    return text if step.get("enabled", True) else f"{text} (off)"


def _flow(step: Step) -> str:
    return yaml.safe_dump(step, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True).strip()
