"""How is a recipe read from YAML and written back? Every mistake is named with its line.

    steps:
      - {metric: s_cliploss, keep_top: 0.30}              # a fraction of the pool, or "of: survivors"
      - {metric: clip_score, at_least: 0.21}              # or at_most
      - {intersect: hype.npy}                             # or union, subtract: a list of uids beside the recipe
      - {keep: [139e4a9b22a614771f06c700a8ebe150]}        # by hand; or drop

Steps run in order from the whole pool; `enabled: false` leaves one out. Only the plain part of YAML is taken: no tags,
no anchors, no aliases (a few lines of which can stand for gigabytes). Numbers are kept as they are written, so that
0.29 stays 29/100.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from clipsel_core.curation.recipes.recipe import KINDS, AnyStep, ListStep, Recipe, check_metrics, plain_decimal
from clipsel_core.curation.recipes.uidlists import ENDINGS
from clipsel_core.errors import RecipeError, quoted
from clipsel_core.files import write_atomically

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,4})?")
_BREAKS = re.compile(r"[\n\r\x85\u2028\u2029]")
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
}
_DEEPEST = 6
_MOST_CHARACTERS = 1 << 22

_UID = re.compile(r"[0-9a-fA-F]{1,32}")
_LISTS, _HAND = ("intersect", "union", "subtract"), ("keep", "drop")
_STEP_KEYS = ["metric", *KINDS, "of", "enabled"]
_EXPECTED = {
    "metric": "the name of a metric",
    "keep_top": "a number from 0 to 1, with at most 30 decimals",
    "of": "pool or survivors",
    "enabled": "true or false",
    "at_least": "a number",
    "at_most": "a number",
    **dict.fromkeys(_LISTS, f"the name of a list of uids, ending in {ENDINGS}"),
    **dict.fromkeys(_HAND, "a list of uids, each of 1 to 32 hex digits"),
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
    root = _parse_yaml(text, where)
    if not isinstance(root.value, dict) or "steps" not in root.value:
        found = f"only {', '.join(map(quoted, root.value))}" if isinstance(root.value, dict) else root.text or "nothing"
        remedy = "begin with steps: and a list of them"
        raise RecipeError(root.where, expected="steps", found=found, remedy=remedy)
    _check_keys(root, ["name", "steps"])
    name, steps = root.value.get("name"), root.value["steps"]
    if name and name.value is not None and (isinstance(name.value, list | dict) or len(name.text) > 200):
        raise RecipeError(name.where, expected="a name of at most 200 characters", found=name.shown)
    if not isinstance(steps.value, list) or not steps.value:
        raise RecipeError(steps.where, expected="a list of one or more steps", found=steps.shown)
    built = tuple(map(_step, steps.value))
    recipe = Recipe(name=name.text if name and name.value is not None else None, steps=built)
    if metrics is not None:
        check_metrics(recipe, metrics)
    return recipe.in_folder(folder or Path())


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, the same text for equal recipes; parse_recipe takes it back."""
    return _dumped(recipe.name, recipe.steps)


def save_recipe(recipe: Recipe, path: str | Path) -> Recipe:
    """Writes a recipe to a file, whole or not at all, its uid lists named from there. Returns it as written."""
    path = Path(path)
    steps: list[AnyStep] = []
    for step in recipe.steps:
        if isinstance(step, ListStep) and not os.path.isabs(step.value):
            moved = Path(os.path.relpath(recipe.folder / step.value, path.parent)).as_posix()
            step = type(step).model_validate({step.kind: moved, "enabled": step.enabled})
        steps.append(step)
    written = Recipe(name=recipe.name, steps=tuple(steps))
    write_atomically(path, lambda aside: aside.write_text(dump_recipe(written), encoding="utf-8"))
    return written.in_folder(path.parent)


@lru_cache(maxsize=16)
def _dumped(name: str | None, steps: tuple[AnyStep, ...]) -> str:
    """The text, cached: a page asks for the same recipe's more than once, and it takes a millisecond.

    Keys come in the order people write them; those that say the usual are left out.
    """
    recipe: dict[str, Any] = {} if name is None else {"name": name}
    recipe["steps"] = []
    for step in steps:
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in step}
        enabled = values.pop("enabled")
        if values.get("of") == "pool":
            del values["of"]
        recipe["steps"].append(values if enabled else {**values, "enabled": False})
    return yaml.dump(recipe, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30)


@dataclass(frozen=True)
class _Located:
    """A YAML value and where it begins: file and line. value: None, bool, Decimal, str, a list or a dict of _Located.

    text: a scalar as it is written, without quotes; "a list" or "a mapping" otherwise.
    keys: of a dict, where each key stands.
    """

    value: Any
    where: str
    text: str
    keys: dict[str, str]

    @property
    def shown(self) -> str:
        """The value as an error quotes it: text in quotes, so that '0.3' is not taken for 0.3."""
        return quoted(self.text) if isinstance(self.value, str) else self.text or "nothing"


def _step(step: _Located) -> AnyStep:
    if not isinstance(step.value, dict):
        expected = "a step such as {metric: clip_score, keep_top: 0.3}"
        raise RecipeError(step.where, expected=expected, found=step.shown)
    kinds = [key for key in step.value if key in KINDS]
    if len(kinds) != 1:
        _check_keys(step, _STEP_KEYS)
        if kinds:
            found, remedy = f"{kinds[0]} and {kinds[1]} in one step", "write two steps"
            raise RecipeError(step.keys[kinds[1]], expected="one action a step", found=found, remedy=remedy)
        found = ", ".join(step.value) or "none of them"
        raise RecipeError(step.where, expected=f"one of {', '.join(KINDS)}", found=found)
    kind = KINDS[kinds[0]]
    _check_keys(step, [key for key in _STEP_KEYS if key in kind.model_fields])
    try:
        built = kind.model_validate({key: _plain(key, value) for key, value in step.value.items()})
    except ValidationError as error:
        key = str(error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0])
        if key not in step.value:
            raise RecipeError(step.where, expected=f"a {key} beside {kinds[0]}", found="none") from error
        wrong = value = step.value[key]
        if key in _HAND and isinstance(value.value, list):
            uids = (
                item for item in value.value if isinstance(item.value, list | dict) or not _UID.fullmatch(item.text)
            )
            wrong = next(uids, value)
        raise RecipeError(wrong.where, expected=f"{key} to be {_EXPECTED[key]}", found=wrong.shown) from error
    return built.read_at(step.where)


def _check_keys(mapping: _Located, allowed: list[str]) -> None:
    for key, where in mapping.keys.items():
        if key not in allowed:
            raise RecipeError(where, expected=f"one of the keys {', '.join(allowed)}", found=quoted(key))


def _plain(key: str, value: _Located) -> Any:
    """A value as the model takes it. Uids, names and paths are text however much they look like numbers."""
    if isinstance(value.value, list):
        return [item.text for item in value.value] if key in _HAND else value.value
    return value.text if key in ("metric", *_LISTS) and not isinstance(value.value, dict) else value.value


def _parse_yaml(text: str, where: str) -> _Located:
    """The values of a YAML document, with lines. where: what errors call it.

    Raises: RecipeError where the text is not plain YAML, repeats a key, or is too long or too deep to be a recipe.
    """
    if len(text) > _MOST_CHARACTERS:
        found, remedy = f"{len(text):,} characters", "put long lists of uids into a file and intersect with it"
        raise RecipeError(where, expected=f"at most {_MOST_CHARACTERS:,}", found=found, remedy=remedy)
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        number, found = text.count("\n", 0, unprintable.start()) + 1, f"the character {unprintable.group()!r}"
        raise RecipeError(f"{where}:{number}", expected="printable text", found=found)
    try:
        _check_events(text, where)
        node = yaml.compose(text, _LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "something else"
        line = f"{where}:{mark.line + 1 if mark else 1}"
        # Some versions of PyYAML have a limit of their own, and reach it as they look ahead: before an event is given.
        if isinstance(error, RecursionError) or "nesting" in problem:
            raise _too_deep(line) from error
        raise RecipeError(line, expected="YAML", found=problem.removeprefix("but found ")) from error
    return _located(node, where) if node else _Located(None, f"{where}:1", "", {})


def _check_events(text: str, where: str) -> None:
    """Looks at the text piece by piece, before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        line = f"{where}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RecipeError(line, expected="plain YAML", found="an anchor or alias", remedy="write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _too_deep(line)


def _too_deep(where: str) -> RecipeError:
    remedy = "write each step as one mapping, such as {metric: clip_score, keep_top: 0.3}"
    found = f"lists or mappings within others, more than {_DEEPEST} deep"
    return RecipeError(where, expected="a list of steps", found=found, remedy=remedy)


def _located(node: yaml.Node, file: str) -> _Located:
    where = f"{file}:{node.start_mark.line + 1}"
    if node.tag not in _PLAIN_TAGS:
        raise RecipeError(where, expected="plain YAML", found=f"the tag {quoted(node.tag)}")
    if isinstance(node, yaml.SequenceNode):
        items = [_located(item, file) for item in node.value]
        return _Located(items, where, "a list" if items else "an empty list", {})
    if not isinstance(node, yaml.MappingNode):
        return _Located(_scalar(node), where, node.value, {})
    values: dict[str, _Located] = {}
    keys: dict[str, str] = {}
    for key, value in node.value:
        line = f"{file}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(line, expected="a key", found="a list or mapping")
        if key.value in values:
            found = f"{quoted(key.value)} twice"
            raise RecipeError(line, expected="each key once", found=found, remedy="remove one")
        values[key.value], keys[key.value] = _located(value, file), line
    return _Located(values, where, "a mapping", keys)


def _scalar(node: yaml.ScalarNode) -> Any:
    if node.style:
        return node.value
    if node.tag.endswith(":null"):
        return None
    if node.tag.endswith(":bool"):
        return node.value.lower() in ("true", "yes", "on", "y")
    return Decimal(node.value) if _NUMBER.fullmatch(node.value) else node.value


class _Dumper(yaml.SafeDumper):
    """Writes each mapping inside a list on one line, and decimals in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_decimal(self, data: Decimal) -> yaml.Node:
        text = plain_decimal(data)
        return self.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)

    def represent_text(self, data: str) -> yaml.Node:
        # Only double quotes keep line breaks, Unicode's three among them, as they are.
        style = '"' if _BREAKS.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_list_of_mappings(self, data: list[Any]) -> yaml.Node:
        node = self.represent_sequence("tag:yaml.org,2002:seq", data)
        for item in node.value:
            item.flow_style = True if isinstance(item, yaml.MappingNode) else None
        node.flow_style = not any(isinstance(item, yaml.MappingNode) for item in node.value)
        return node


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(Decimal, _Dumper.represent_decimal)
_Dumper.add_representer(list, _Dumper.represent_list_of_mappings)
