"""What of the documentation is made from the code? The command line's reference and the Python API.

On a page, a line `::: commands` becomes a section for each command, `::: recipes` one for each published recipe, and
`::: scale` the tables of what large pools are counted to take. A line `::: NAME`, where NAME is a public function or a
class such as clipsel_core.scoring.normsim.normsim, becomes its signature and docstring. Names in brackets behind a
class say which of its methods are shown; all public ones without.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from typer.main import get_command  # noqa: E402

from benchmarks.scale import model  # noqa: E402
from clipsel_core.cli import app  # noqa: E402
from clipsel_core.curation.recipes.published import published_recipes  # noqa: E402

_WIDTH = 88
# A docstring's line that says what something is: "image, text: (N, D), unit rows", "Raises: ScoringError where ...".
_SECTIONS = "Returns|Raises|Yields|Reference"
_TERM = re.compile(rf"([a-z]\w*(?:, [a-z]\w*)*|{_SECTIONS}): (.*)")
# Where a sentence ends and the next one is such a line.
_NEXT_TERM = re.compile(rf"(?<=[.)]) (?={_TERM.pattern})")
# A formula that has its line to itself.
_FORMULA = re.compile(r"[a-z]\w*_i = (?!.* and )")


def on_files(files: Any, config: Any) -> Any:
    """mkdocs: adds what lies elsewhere in the repository, the icon and the measurements with their plots."""
    from mkdocs.structure.files import File

    measured = [*ROOT.glob("benchmarks/**/*.md"), *ROOT.glob("benchmarks/**/*.svg")]
    for path in measured:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, "icon.svg", abs_src_path=str(ROOT / "pages" / "parts" / "icon.svg")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs: puts what the code says in the place of each `:::` line."""
    return re.sub(r"^::: (\S+)(?: \((.*)\))?$", lambda found: made(found[1], found[2]), markdown, flags=re.MULTILINE)


def made(name: str, members: str | None = None) -> str:
    """What a line `::: name (members)` becomes, in Markdown."""
    if make := {"commands": commands, "recipes": recipes, "scale": model}.get(name):
        return make()
    return described(name, members.split(", ") if members else None)


def commands() -> str:
    """Every command: what it does, an example, its arguments and options with their defaults."""
    whole = get_command(app)
    parts = ["## Options of every command", "They stand before the command.", _table(whole)]
    for name, command in whole.commands.items():  # type: ignore[attr-defined]
        text, _, example = inspect.cleandoc(command.help).partition("Example: ")
        parts += [f"## {name}", _fenced("text", _usage(f"clipsel {name}", command)), _escaped(text.strip())]
        parts += [_table(command), "Example:", _fenced("sh", example)]
    return "\n\n".join(parts)


def recipes() -> str:
    """Every published recipe: what it does, its source, the recipe, and what it needs."""
    parts = []
    for known in published_recipes().values():
        steps = "\n".join(line for line in known.text.splitlines() if not line.startswith("#"))
        needs = [f"- `{_escaped(name)}`: {_escaped(how)}" for name, how in known.needs.items()]
        parts += [f"### {known.name}", f"{known.about} Source: {known.source}.", _fenced("yaml", steps)]
        parts += [*(["Needs:", "\n".join(needs)] if needs else []), known.note]
    return "\n\n".join(filter(None, parts))


def described(name: str, members: list[str] | None = None) -> str:
    """A function or a class by its full name: signature and docstring; of a class its public methods, too."""
    module, _, last = name.rpartition(".")
    found = getattr(import_module(module), last)
    parts = [f"### {last}", f"`from {module} import {last}`"]
    if not inspect.isclass(found):
        return "\n\n".join([*parts, _fenced("python", _signature(last, found)), _docstring(found)])
    kinds = inspect.get_annotations(found).items()
    fields = [f"{name}: {getattr(kind, '__forward_arg__', kind)}" for name, kind in kinds if not name.startswith("_")]
    parts += [*([_fenced("python", "\n".join(fields))] if fields else []), _docstring(found)]
    for member in members or [name for name in vars(found) if not name.startswith("_")]:
        value = vars(found)[member]
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not inspect.isfunction(function):  # a field, of which the class's docstring speaks
            continue
        said = f"{last}.{member}" if isinstance(value, property) else _signature(f"{last}.{member}", function)
        parts += [_fenced("python", said), _docstring(function)]
    return "\n\n".join(parts)


def _usage(said: str, command: Any) -> str:
    required = [f"{p.opts[0]} {p.name.upper()}" for p in command.params if p.param_type_name == "option" and p.required]
    arguments = [
        p.name.upper() + (" ..." if p.nargs == -1 else "") for p in command.params if p.param_type_name == "argument"
    ]
    return " ".join([said, *arguments, *required, "[OPTIONS]"])


def _table(command: Any) -> str:
    lines = ["| | what it is | default |", "|---|---|---|"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        is_option = parameter.param_type_name == "option"
        names = [f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)]
        said = ", ".join(names) if is_option else f"`{parameter.name.upper()}`"
        lines.append(f"| {said} | {_escaped(parameter.help)} | {_default(parameter)} |")
    return "\n".join(lines)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "*required*"
    if isinstance(parameter.show_default, str):  # said in words
        return _escaped(parameter.show_default)
    value = parameter.default
    if value is None or value is False or callable(value):
        return ""
    return ", ".join(f"`{one}`" for one in (value if isinstance(value, list | tuple) else [value]))


def _signature(name: str, function: Any) -> str:
    """As it is written, a parameter a line where it is long; without self."""
    written = inspect.signature(function)
    parameters = [one for one in written.parameters.values() if one.name not in ("self", "cls")]
    returns = "" if written.return_annotation is written.empty else f" -> {written.return_annotation}"
    line = f"{name}({_parameters(written.replace(parameters=parameters))}){returns}"
    if len(line) <= _WIDTH:
        return line
    lines, keyword = [], False
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not keyword:
            lines, keyword = [*lines, "*"], True
        lines.append(_parameters(written.replace(parameters=[one])).removeprefix("*, "))
    return "\n".join([f"{name}(", *(f"    {part}," for part in lines), f"){returns}"])


def _parameters(signature: inspect.Signature) -> str:
    """What stands between the brackets, with annotations as they are written."""
    bare = signature.replace(return_annotation=signature.empty)
    return re.sub(r"<function .*? at \w+>", "...", re.sub(r": '([^']*)'", r": \1", str(bare)))[1:-1]


def _docstring(function: Any) -> str:
    blocks = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join(part for block in blocks for part in _parts_of(block))


def _parts_of(block: str) -> Iterator[str]:
    """The paragraphs, formulas, terms and examples of a docstring's block."""
    if block.startswith(">>>"):
        yield _fenced("python", block.replace("  # doctest: +SKIP", "").rstrip())
        return
    for line in _NEXT_TERM.sub("\n", "\n".join(_whole_lines(block))).splitlines():
        term = _TERM.match(line)
        if _FORMULA.match(line):
            yield _fenced("text", line)
        elif term:
            name = f"*{term[1]}*" if term[1] in _SECTIONS.split("|") else f"`{term[1]}`"
            yield f"{name}\n:   {_escaped(term[2])}"
        else:
            yield _escaped(line)


def _whole_lines(block: str) -> Iterator[str]:
    """The block's lines, each with those that go on with it: indented ones after a term, all others after a text."""
    line = ""
    for more in block.splitlines():
        begins = _FORMULA.match(more) or _TERM.match(more) or _FORMULA.match(line)
        if line and begins and not more.startswith(" "):
            yield line
            line = ""
        line = f"{line} {more.strip()}".strip()
    yield line


def _escaped(text: str) -> str:
    """Text with what Markdown would take for markup escaped, but for `code`."""
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(part if place % 2 else _escaped_part(part) for place, part in enumerate(parts))


def _escaped_part(text: str) -> str:
    return re.sub(r"([\\*_|\[\]])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"
