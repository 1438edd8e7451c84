"""How a recipe's text becomes values that know their lines, and how values become text again.

Only the plain part of YAML is taken: no tags, no anchors, no aliases (a few lines of which can stand for gigabytes).
Numbers are kept as they are written, so that 0.29 stays 29/100.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import yaml

from clipsel_core.errors import RecipeError

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,4})?")
_BREAKS = re.compile(r"[\n\r\x85\u2028\u2029]")
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
}
_DEEPEST = 6
_MOST_CHARACTERS = 1 << 22
_LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Located:
    """A value and the line it begins on. value: None, bool, Decimal, str, a list or a dict of Located.

    text: a scalar as it is written, without quotes; "a list" or "a mapping" otherwise.
    key_lines: of a dict, the line of each key.
    """

    value: Any
    line: int
    text: str
    key_lines: dict[str, int]

    @property
    def shown(self) -> str:
        """The value as an error quotes it: text in quotes, so that '0.3' is not taken for 0.3."""
        return shown(self.text) if isinstance(self.value, str) else self.text or "nothing"


def shown(text: str) -> str:
    """Text from outside as an error quotes it: on one line, without control characters, not too long."""
    quoted = repr(text)
    return quoted if len(quoted) <= _LONGEST_SHOWN else f"{quoted[:_LONGEST_SHOWN]}..."


def parse_yaml(text: str, where: str) -> Located:
    """The values of a YAML document, with lines. where: what errors call it.

    Raises: RecipeError where the text is not plain YAML, repeats a key, or is too long or too deep to be a recipe.
    """
    if len(text) > _MOST_CHARACTERS:
        found, remedy = f"{len(text):,} characters", "put long lists of uids into a file and intersect with it"
        raise RecipeError(where, expected=f"at most {_MOST_CHARACTERS:,}", found=found, remedy=remedy)
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line, found = text.count("\n", 0, unprintable.start()) + 1, f"the character {unprintable.group()!r}"
        raise RecipeError(f"{where}:{line}", expected="printable text", found=found)
    try:
        _check_events(text, where)
        node = yaml.compose(text, _LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        raise _syntax_error(error, where) from error
    return _located(node, where) if node else Located(None, 1, "", {})


def dump_yaml(value: dict[str, Any]) -> str:
    """A mapping as YAML text; each mapping inside a list takes one line. Decimals are written in full."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30)


def plain_decimal(number: Decimal) -> str:
    """The shortest way to write a decimal number without an exponent: 0.30 becomes 0.3."""
    text = format(number, "f") if number else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _check_events(text: str, where: str) -> None:
    """Looks at the text piece by piece, before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        line = f"{where}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RecipeError(line, expected="plain YAML", found="an anchor or alias", remedy="write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise _too_deep(line)


def _located(node: yaml.Node, where: str) -> Located:
    line = node.start_mark.line + 1
    if node.tag not in _PLAIN_TAGS:
        raise RecipeError(f"{where}:{line}", expected="plain YAML", found=f"the tag {shown(node.tag)}")
    if isinstance(node, yaml.SequenceNode):
        items = [_located(item, where) for item in node.value]
        return Located(items, line, "a list" if items else "an empty list", {})
    if isinstance(node, yaml.MappingNode):
        return _located_mapping(node, where)
    return Located(_scalar(node), line, node.value, {})


def _located_mapping(node: yaml.MappingNode, where: str) -> Located:
    values: dict[str, Located] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(f"{where}:{line}", expected="a key", found="a list or mapping")
        if key.value in values:
            found = f"{shown(key.value)} twice"
            raise RecipeError(f"{where}:{line}", expected="each key once", found=found, remedy="remove one")
        values[key.value], lines[key.value] = _located(value, where), line
    return Located(values, node.start_mark.line + 1, "a mapping", lines)


def _scalar(node: yaml.ScalarNode) -> Any:
    if node.style:
        return node.value
    if node.tag.endswith(":null"):
        return None
    if node.tag.endswith(":bool"):
        return node.value.lower() in ("true", "yes", "on", "y")
    return Decimal(node.value) if _NUMBER.fullmatch(node.value) else node.value


def _syntax_error(error: yaml.YAMLError | RecursionError, where: str) -> RecipeError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "something else"
    line = f"{where}:{mark.line + 1 if mark else 1}"
    # Some versions of PyYAML have a limit of their own, and reach it while they look ahead: before an event is given.
    if isinstance(error, RecursionError) or "nesting" in problem:
        return _too_deep(line)
    return RecipeError(line, expected="YAML", found=problem.removeprefix("but found "))


def _too_deep(line: str) -> RecipeError:
    remedy = "write each step as one mapping, such as {metric: clip_score, keep_top: 0.3}"
    found = f"lists or mappings within others, more than {_DEEPEST} deep"
    return RecipeError(line, expected="a list of steps", found=found, remedy=remedy)


class _Dumper(yaml.SafeDumper):
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
