"""Does what the documentation says hold? Its shell lines and Python run on the demo, what it names is there.

README.md and docs/ are read as they are: a ```sh block is run as it stands, unless a comment right before it says
`<!-- not run: WHY -->`; so is a ```python block. A ```yaml block is a recipe, and one with a title is the file of that
name. The blocks of a page run in their order in a fresh folder, into which the page copies the demo by itself.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import pytest
from typer.main import get_command

from clipsel_core import cli
from clipsel_core.curation.recipes.published import published_recipes
from clipsel_core.curation.recipes.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
COMMANDS = get_command(cli.app).commands
PARAMETERS = {name: command.params for name, command in COMMANDS.items()}
# What stands before a command.
PARAMETERS[""] = get_command(cli.app).params
OPTIONS = {
    name: {option for parameter in parameters for option in parameter.opts if option.startswith("--")} | {"--help"}
    for name, parameters in PARAMETERS.items()
}
# The examples of --help that cannot run on the demo.
NOT_RUN = {"embed": "needs pictures, and downloads the teacher", "app": "it serves until it is stopped"}
PATIENCE_S = 300
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?"
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block. title: the file that it is. why: the reason for which it is not run. line: where it begins."""

    language: str
    text: str
    title: str | None
    why: str | None
    line: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page; one that the pattern does not take is an error, not passed over."""
    found = [
        Block(fence["language"], fence["text"], fence["title"], fence["why"], text.count("\n", 0, fence.start()) + 1)
        for fence in _FENCE.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall(r"^\s*```", text, re.MULTILINE)), "a fence that is not understood"
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The clipsel commands of a shell text, as words."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and Path(words[0]).name == "clipsel":
            yield words[1:]


def unknown(words: list[str]) -> list[str]:
    """What of a clipsel command is not there: its name, or options."""
    name = next((word for word in words if not word.startswith("-")), "")
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    if name and name not in COMMANDS:
        return [name]
    return [option for option in options if option not in OPTIONS[name] | OPTIONS[""]]


@pytest.fixture(scope="module")
def hooks():
    """docs/hooks.py, which makes the reference pages."""
    spec = util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Where `clipsel` is this checkout's, installed or not, and no network is asked."""
    shim = tmp_path_factory.mktemp("bin") / "clipsel"
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m clipsel_core "$@"\n')
    shim.chmod(0o755)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("CLIPSEL_")}
    paths = {
        "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
    }
    return {**ours, **paths, "HF_HUB_OFFLINE": "1"}


def run(block: Block, folder: Path, environment: dict[str, str]) -> None:
    """Runs a block as a reader would paste it. A command that fails ends it."""
    command = ["bash", "-euc", block.text] if block.language == "sh" else [sys.executable, "-c", block.text]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"line {block.line}:\n{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("name", [name for name, page in zip(NAMES, PAGES, strict=True) if "```" in page.read_text()])
def test_pages__blocks_run_in_order_on_the_demo(name, tmp_path, environment):
    for block in blocks((ROOT / name).read_text()):
        if block.language == "yaml":
            parse_recipe(block.text, f"{name}:{block.line}")
            if block.title:
                (tmp_path / block.title).write_text(block.text)
        elif block.language in ("sh", "python") and not block.why:
            run(block, tmp_path, environment)


def test_help__examples_run_in_order_on_the_demo(tmp_path, environment):
    run(Block("sh", "clipsel demo demo", None, None, 0), tmp_path, environment)
    examples = {name: command.help.partition("Example: ")[2] for name, command in COMMANDS.items()}
    for name, example in examples.items():
        assert not unknown(shlex.split(example)[1:]), example
        if name not in {"demo", *NOT_RUN}:
            run(Block("sh", example, None, None, 0), tmp_path, environment)


@pytest.mark.parametrize("name", NAMES)
def test_pages__name_commands_and_options_that_exist(name):
    text = (ROOT / name).read_text()
    shell = [block.text for block in blocks(text) if block.language == "sh"]
    inline = re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))
    for words in (words for part in [*shell, *inline] for words in commands(part)):
        named = [word for word in words if word not in ("COMMAND", "...")]
        assert not unknown(named), f"{name}: clipsel {' '.join(words)}"
    everything = set().union(*OPTIONS.values())
    for option in (option for part in inline for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", part)):
        assert option in everything, f"{name}: {option}"


def test_reference__has_every_command_and_option(hooks):
    made = hooks.commands()
    for name, command in COMMANDS.items():
        section = re.search(rf"^## {name}$.*?(?=^## |\Z)", made, re.MULTILINE | re.DOTALL)
        assert section, name
        for parameter in (one for one in command.params if one.name != "help"):
            is_option = parameter.param_type_name == "option"
            assert f"`{parameter.opts[0] if is_option else parameter.name.upper()}`" in section[0]
            assert parameter.help
    assert "::: commands" in (ROOT / "docs" / "reference" / "command-line.md").read_text()


def test_reference__has_every_published_recipe_and_what_it_needs(hooks):
    made = hooks.recipes()
    for name, known in published_recipes().items():
        section = re.search(rf"^### {name}$.*?(?=^### |\Z)", made, re.MULTILINE | re.DOTALL)
        assert section, name
        assert [needed for needed in known.needs if needed not in section[0].replace("\\_", "_")] == []
        (block,) = [block for block in blocks(section[0]) if block.language == "yaml"]
        assert parse_recipe(block.text).steps == known.recipe.steps
        assert f"#{name})" in (ROOT / "docs" / "recipes-of-the-field.md").read_text() or name == "sieve_mix"


def test_scale__counts_the_largest_pool_as_by_hand(hooks):
    """39.3 TB at 10 GB/s a node of eight; 25,000 pairs a batch, ten divisions, at half of 989 TFLOP/s."""
    without, _, with_target = hooks.made("scale").partition("With NormSim")
    largest = next(line for line in without.splitlines() if line.startswith("| 12,800,000,000 "))
    cells = [cell.strip() for cell in largest.strip("|").split("|")]
    assert cells[1:3] == ["39.3 TB", "4.92 EFLOP"]
    assert cells[-2] == "8 min 12 s, reading"
    # 12.8e9 * 2 * 768 * (250,000 + 1,281,167) operations on 8 GPUs, and 2 * 768^2 in float32
    assert "2 h 7 min, arithmetic" in with_target


def test_guides__speak_of_every_command():
    said = "\n".join(page.read_text() for page in PAGES if "reference" not in page.parts)
    assert [name for name in COMMANDS if f"clipsel {name}" not in said and f"`{name}`" not in said] == []


def test_readme__is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_site__builds_strictly_and_asks_nobody(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        text = page.read_text()
        assert not re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>", text), page
        assert ":::" not in text, page


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("polish demo", ["polish"]),
        ("score pool run --polish 3", ["--polish"]),
        ("--version", []),
        ("--debug score pool run --check", []),
    ],
)
def test_unknown__finds_what_is_not_there(words, found):
    assert unknown(words.split()) == found


def test_blocks__takes_the_reason_and_refuses_what_it_does_not_understand():
    text = "<!-- not run: because -->\n```sh\nfalse\n```\n\n```sh\ntrue\n```\n"
    assert [(block.why, block.text, block.line) for block in blocks(text)] == [
        ("because", "false\n", 1),
        (None, "true\n", 6),
    ]
    with pytest.raises(AssertionError, match="not understood"):
        blocks("  ```sh\n  false\n  ```\n")
