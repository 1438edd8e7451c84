"""How is a recipe read from YAML and written back? Every mistake is named with its line.

    steps:
      - {metric: s_cliploss, keep_top: 0.30}              # a fraction of the pool, or "of: survivors"
      - {metric: clip_score, at_least: 0.21}              # or at_most
      - {intersect: hype.npy}                             # or union, subtract: a list of uids beside the recipe
      - {keep: [139e4a9b22a614771f06c700a8ebe150]}        # by hand; or drop

Steps run in order from the whole pool; `enabled: false` leaves one out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clipsel_core.curation.recipes.recipe import Recipe, check_metrics
from clipsel_core.curation.recipes.recipe_steps import KINDS, AnyStep, Intersect, Subtract, Union
from clipsel_core.curation.recipes.recipe_yaml import Located, dump_yaml, parse_yaml, shown
from clipsel_core.curation.recipes.uidlists import ENDINGS
from clipsel_core.errors import RecipeError
from clipsel_core.files import write_atomically

_UID = re.compile(r"[0-9a-fA-F]{1,32}")
_STEP_KEYS = ["metric", *KINDS, "of", "enabled"]
_AS_WRITTEN = ("metric", "intersect", "union", "subtract")
_EXPECTED = {
    "metric": "the name of a metric",
    "keep_top": "a number from 0 to 1, with at most 30 decimals",
    "of": "pool or survivors",
    "enabled": "true or false",
    "at_least": "a number",
    "at_most": "a number",
    **dict.fromkeys(("intersect", "union", "subtract"), f"the name of a list of uids, ending in {ENDINGS}"),
    **dict.fromkeys(("keep", "drop"), "a list of uids, each of 1 to 32 hex digits"),
}


def load_recipe(path: str | Path, metrics: Collection[str] | None = None) -> Recipe:
    """The recipe in a YAML file. metrics: those of the run, where they are to be checked.

    Raises: RecipeError naming file and line, what is allowed there and what was found.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(path, expected="text in UTF-8", found=f"byte {error.start} is none") from error
    except OSError as error:
        raise RecipeError(path, expected="a recipe", found=error.strerror or str(error)) from error
    return parse_recipe(text, str(path), metrics, folder=path.parent)


def parse_recipe(
    text: str, where: str = "recipe", metrics: Collection[str] | None = None, *, folder: Path | None = None
) -> Recipe:
    """The recipe that a YAML text says. where: what errors call it. folder: where its uid lists lie.

    Raises: RecipeError as load_recipe.

    >>> parse_recipe("steps: [{metric: clip_score, keep_top: 0.29}]").steps[0].text
    'top 29 % of the pool by clip_score'
    """
    root = parse_yaml(text, where)
    if not isinstance(root.value, dict) or "steps" not in root.value:
        found = f"only {', '.join(map(shown, root.value))}" if isinstance(root.value, dict) else root.text or "nothing"
        remedy = "begin with steps: and a list of them"
        raise RecipeError(f"{where}:{root.line}", expected="steps", found=found, remedy=remedy)
    _check_keys(root, ["name", "steps"], where)
    name, steps = root.value.get("name"), root.value["steps"]
    if name is not None and name.value is not None and (isinstance(name.value, list | dict) or len(name.text) > 200):
        raise RecipeError(f"{where}:{name.line}", expected="a name of at most 200 characters", found=name.shown)
    if not isinstance(steps.value, list) or not steps.value:
        raise RecipeError(f"{where}:{steps.line}", expected="a list of one or more steps", found=steps.shown)
    built = tuple(_step(step, where) for step in steps.value)
    recipe = Recipe(name=name.text if name is not None and name.value is not None else None, steps=built)
    if metrics is not None:
        check_metrics(recipe, metrics)
    return recipe.in_folder(folder or Path())


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, the same text for equal recipes; parse_recipe takes it back."""
    return _dumped(recipe.name, recipe.steps)


def save_recipe(recipe: Recipe, path: str | Path) -> Recipe:
    """Writes a recipe to a file, whole or not at all, its uid lists named from there. Returns it as written."""
    path = Path(path)
    moved = Recipe(name=recipe.name, steps=tuple(_moved(step, recipe.folder, path.parent) for step in recipe.steps))

    def write(aside: Path) -> None:
        aside.write_text(dump_recipe(moved), encoding="utf-8")

    write_atomically(path, write)
    return moved.in_folder(path.parent)


@lru_cache(maxsize=16)
def _dumped(name: str | None, steps: tuple[AnyStep, ...]) -> str:
    """The text, kept for a while: a page asks for the same recipe's more than once, and it takes a millisecond."""
    value: dict[str, Any] = {} if name is None else {"name": name}
    return dump_yaml({**value, "steps": [_said(step) for step in steps]})


def _step(step: Located, where: str) -> AnyStep:
    if not isinstance(step.value, dict):
        raise RecipeError(
            f"{where}:{step.line}", expected="a step such as {metric: clip_score, keep_top: 0.3}", found=step.shown
        )
    kind = _kind(step, where)
    _check_keys(step, [key for key in _STEP_KEYS if key in KINDS[kind].model_fields], where)
    try:
        built = KINDS[kind].model_validate({key: _plain(key, value) for key, value in step.value.items()})
    except ValidationError as error:
        raise _wrong_value(error, step, where) from error
    return built.read_at(f"{where}:{step.line}")


def _kind(step: Located, where: str) -> str:
    kinds = [key for key in step.value if key in KINDS]
    if len(kinds) == 1:
        return kinds[0]
    _check_keys(step, _STEP_KEYS, where)
    if kinds:
        line = f"{where}:{step.key_lines[kinds[1]]}"
        found = f"{kinds[0]} and {kinds[1]} in one step"
        raise RecipeError(line, expected="one action a step", found=found, remedy="write two steps")
    found = ", ".join(step.value) or "none of them"
    raise RecipeError(f"{where}:{step.line}", expected=f"one of {', '.join(KINDS)}", found=found)


def _check_keys(mapping: Located, allowed: list[str], where: str) -> None:
    for key, line in mapping.key_lines.items():
        if key not in allowed:
            raise RecipeError(f"{where}:{line}", expected=f"one of the keys {', '.join(allowed)}", found=shown(key))


def _wrong_value(error: ValidationError, step: Located, where: str) -> RecipeError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = str(first["loc"][0])
    value = step.value.get(key)
    if value is None:
        return RecipeError(f"{where}:{step.line}", expected=f"a {key} beside {_kind(step, where)}", found="none")
    for item in value.value if key in ("keep", "drop") and isinstance(value.value, list) else []:
        if not _UID.fullmatch(item.text) or isinstance(item.value, list | dict):
            value = item
            break
    return RecipeError(f"{where}:{value.line}", expected=f"{key} to be {_EXPECTED[key]}", found=value.shown)


def _plain(key: str, value: Located) -> Any:
    """A value as the model takes it. Uids, names and paths are text however much they look like numbers."""
    if isinstance(value.value, list):
        return [item.text for item in value.value] if key in ("keep", "drop") else value.value
    return value.text if key in _AS_WRITTEN and not isinstance(value.value, dict) else value.value


def _said(step: AnyStep) -> dict[str, Any]:
    """A step's keys in the order people write them, without those that say the usual."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in step}
    enabled = values.pop("enabled")
    if values.get("of") == "pool":
        del values["of"]
    return values if enabled else {**values, "enabled": False}


def _moved(step: AnyStep, old: Path, new: Path) -> AnyStep:
    if not isinstance(step, Intersect | Union | Subtract):
        return step
    file = Path(getattr(step, step.kind))
    moved = file if file.is_absolute() else Path(os.path.relpath(old / file, new))
    return type(step).model_validate({step.kind: moved.as_posix(), "enabled": step.enabled})
