"""Recipes: what is read, what is refused and where, and that writing and reading agree."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from yaml.scanner import ScannerError

from clipsel_core.curation.recipes.recipe import (
    AtLeast,
    AtMost,
    Drop,
    Intersect,
    Keep,
    KeepTop,
    Recipe,
    Subtract,
    Union,
    dump_recipe,
    load_recipe,
    parse_recipe,
    save_recipe,
)
from clipsel_core.errors import RecipeError

METRICS = ("clip_score", "s_cliploss")
NESTED = "exceeded maximum nesting depth"

FULL = """\
name: the paper's two steps, and more
steps:
  - {metric: s_cliploss, keep_top: 0.30}                 # a fraction of the pool
  - {metric: clip_score, keep_top: .5, of: survivors, enabled: false}
  - metric: clip_score
    at_least: 0.21
  - {metric: clip_score, at_most: 1e-1}
  - {intersect: hype.npy}
  - {union: more/dfn.txt}
  - {subtract: bad.parquet}
  - {keep: [139e4a9b22a614771f06c700a8ebe150, 12, 010, 1e5, "aB"]}
  - {drop: ["1"]}
"""


def test_parse_recipe__reads_every_kind_of_step():
    recipe = parse_recipe(FULL, columns=METRICS)
    digits = ("139e4a9b22a614771f06c700a8ebe150", *(f"{text:0>32}" for text in ("12", "010", "1e5", "ab")))
    assert recipe.name == "the paper's two steps, and more"
    assert recipe.steps == (
        KeepTop(column="s_cliploss", keep_top=0.3),
        KeepTop(column="clip_score", keep_top=Decimal("0.5"), of="survivors", enabled=False),
        AtLeast(column="clip_score", at_least=0.21),
        AtMost(column="clip_score", at_most=0.1),
        Intersect(intersect="hype.npy"),
        Union(union="more/dfn.txt"),
        Subtract(subtract="bad.parquet"),
        Keep(keep=digits),
        Drop(drop=("0" * 31 + "1",)),
    )


@pytest.mark.parametrize(
    "literal", ["0.29", "0.57", "0.1", "1e-7", "0.123456789012345678901234567890", "1", "0", "1.0"]
)
def test_parse_recipe__keeps_fractions_as_they_are_written(literal):
    step = parse_recipe(f"steps: [{{metric: clip_score, keep_top: {literal}}}]").steps[0]
    assert Fraction(step.keep_top) == Fraction(literal)


def test_keep_top__takes_a_float_for_the_decimal_it_prints():
    assert Fraction(KeepTop(column="clip_score", keep_top=0.29).keep_top) == Fraction(29, 100)


WRONG = {
    "nothing": ("", 1, "steps", "nothing"),
    "no steps": ("name: x", 1, "steps", "only 'name'"),
    "empty steps": ("name: x\nsteps: []", 2, "one or more steps", "an empty list"),
    "steps without a value": ("steps:", 1, "one or more steps", "nothing"),
    "steps a number": ("steps: 3", 1, "one or more steps", "3"),
    "a list at the top": ("- {metric: clip_score, keep_top: 0.1}", 1, "steps", "a list"),
    "unknown key at the top": ("step: 1\nsteps: [{keep: [1]}]", 1, "one of the keys name, columns, steps", "'step'"),
    "step a word": ("steps:\n- keep_top", 2, "a step such as", "'keep_top'"),
    "step empty": ("steps:\n- {}", 2, "one of keep_top, keep_bottom, at_least", "none of them"),
    "unknown key": ("steps:\n- metric: clip_score\n  keep_topp: 0.3", 3, "keep_top", "'keep_topp'"),
    "key of another step": ("steps:\n- {intersect: a.npy,\n   of: pool}", 3, "intersect, counts, enabled", "'of'"),
    "no action": ("steps:\n- {metric: clip_score}", 2, "one of keep_top", "metric"),
    "two actions": (
        "steps:\n- metric: clip_score\n  keep_top: 0.1\n  at_least: 0.2",
        4,
        "one action a step",
        "keep_top and at_least",
    ),
    "no metric": ("steps:\n- {keep_top: 0.1}", 2, "a column or a mix beside keep_top", "none"),
    "unknown metric": ("steps:\n\n- {metric: hype, keep_top: 0.1}", 3, "clip_score, s_cliploss", "'hype'"),
    "fraction above 1": ("steps:\n- metric: clip_score\n  keep_top: 1.01", 3, "from 0 to 1", "1.01"),
    "fraction below 0": ("steps:\n- {metric: clip_score, keep_top: -0.1}", 2, "from 0 to 1", "-0.1"),
    "percent": ("steps:\n- {metric: clip_score, keep_top: 30%}", 2, "from 0 to 1", "'30%'"),
    "fraction in quotes": ("steps:\n- {metric: clip_score, keep_top: '0.3'}", 2, "from 0 to 1", "'0.3'"),
    "fraction a truth value": ("steps:\n- {metric: clip_score, keep_top: true}", 2, "from 0 to 1", "true"),
    "fraction nothing": ("steps:\n- {metric: clip_score, keep_top: }", 2, "from 0 to 1", "nothing"),
    "fraction a list": ("steps:\n- {metric: clip_score, keep_top: [0.3]}", 2, "from 0 to 1", "a list"),
    "fraction nan": ("steps:\n- {metric: clip_score, keep_top: .nan}", 2, "from 0 to 1", ".nan"),
    "fraction too fine": ("steps:\n- {metric: clip_score, keep_top: 1e-9999}", 2, "30 decimals", "1e-9999"),
    "threshold a word": ("steps:\n- {metric: clip_score, at_least: high}", 2, "a number", "'high'"),
    "threshold a truth value": ("steps:\n- {metric: clip_score, at_most: no}", 2, "a number", "no"),
    "threshold infinite": ("steps:\n- {metric: clip_score, at_most: .inf}", 2, "a number", ".inf"),
    "threshold too large": ("steps:\n- {metric: clip_score, at_most: 1e999}", 2, "a number", "1e999"),
    "of something": ("steps:\n- {metric: clip_score, keep_top: 0.1, of: shard}", 2, "pool or survivors", "'shard'"),
    "enabled a number": ("steps:\n- {metric: clip_score, keep_top: 0.1, enabled: 1}", 2, "true or false", "1"),
    "list of another format": ("steps:\n- {intersect: hype.pkl}", 2, ".npy, .txt, .csv, .parquet", "'hype.pkl'"),
    "uids a word": ("steps:\n- {keep: abc}", 2, "a list of uids", "'abc'"),
    "no uids": ("steps:\n- {keep: []}", 2, "a list of uids", "an empty list"),
    "malformed uid": ("steps:\n- keep:\n  - 12\n  - xyz\n", 4, "1 to 32 hex digits", "'xyz'"),
    "uid too long": (f"steps:\n- drop:\n  - '{'1' * 33}'\n", 3, "1 to 32 hex digits", "111"),
    "uid nothing": ("steps:\n- drop:\n  - \n", 3, "1 to 32 hex digits", "nothing"),
    "key twice": (
        "steps:\n- metric: clip_score\n  keep_top: 0.1\n  metric: s_cliploss",
        4,
        "each key once",
        "'metric'",
    ),
    "a filter that is off": (
        "steps:\n- any_of:\n  - {column: clip_score, at_least: 0.1}\n  - {column: a, at_least: 0, enabled: no}",
        4,
        "filters that are on",
        "enabled: false",
    ),
    "ends turned round": ("steps: [{column: clip_score, between: [0.3, 0.1]}]", 1, "the lower first", "[0.3, 0.1]"),
    "no weight": ("steps: [{mix: {clip_score: 0}, keep_top: 0.1}]", 1, "with their weights", "{clip_score: 0}"),
    "steps twice": ("steps: [{keep: [1]}]\nsteps: [{keep: [1]}]", 2, "each key once", "'steps'"),
    "brackets left open": ("steps:\n- {metric: clip_score,\n", 3, "YAML", ""),
    "a tab": ("steps:\n\t- a", 2, "YAML", "cannot start any token"),
    "two documents": ("steps: [{keep: [1]}]\n---\nsteps: []", 2, "YAML", "another document"),
    "control characters": ("steps:\n- \x00", 2, "printable text", "'\\x00'"),
    "an anchor": ("steps:\n- &a {keep: [1]}\n- *a", 2, "plain YAML", "anchor or alias"),
    "a bomb": ("a: &a [x, x]\nb: &b [*a, *a]\nsteps: [*b, *b]", 1, "plain YAML", "anchor or alias"),
    "a merge": ("steps:\n- {<<: {keep_top: 0.1}, metric: clip_score}", 2, "one of the keys", "'<<'"),
    "a tag": ("steps:\n- !!python/object/apply:os.system [true]", 2, "plain YAML", "the tag"),
    "deep brackets": ("steps: " + "[" * 100_000, 1, "a list of steps", "more than 6 deep"),
    "deep brackets, a line each": ("steps:\n" + "  [\n" * 5000, 7, "a list of steps", "more than 6 deep"),
    "deep braces": ("steps: " + "{a: " * 5000, 1, "a list of steps", "more than 6 deep"),
    "deep dashes": ("steps:\n" + "- " * 5000, 2, "a list of steps", "more than 6 deep"),
    "key a list": ("steps:\n- {? [a] : b}", 2, "a key", "a list or mapping"),
    "name a list": ("name: [a]\nsteps: [{keep: [1]}]", 1, "a name", "a list"),
    "name too long": (f"name: {'x' * 201}\nsteps: [{{keep: [1]}}]", 1, "at most 200 characters", "xxx"),
}


@pytest.mark.parametrize(("text", "line", "expected", "found"), WRONG.values(), ids=WRONG.keys())
def test_parse_recipe__names_line_allowed_and_found(text, line, expected, found):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "my.yaml", METRICS)
    assert caught.value.where == f"my.yaml:{line}"
    assert expected in caught.value.expected
    assert found in caught.value.found
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("error", [RecursionError("maximum recursion depth exceeded"), ScannerError(problem=NESTED)])
def test_parse_recipe__a_parsers_own_limit_gives_the_same_line(monkeypatch, error):
    """Versions of PyYAML differ in where they give up, and in whether they do."""

    def give_up(*_):
        raise error

    monkeypatch.setattr(yaml, "parse", give_up)
    with pytest.raises(
        RecipeError, match=r"my\.yaml:1: expected a list of steps, found lists or mappings .*; write each step as"
    ):
        parse_recipe("steps: []", "my.yaml", METRICS)


def test_parse_recipe__refuses_a_text_too_long_to_be_one():
    with pytest.raises(RecipeError, match="put long lists of uids into a file"):
        parse_recipe("# " + "x" * (1 << 22))


# --- writing

METRIC = st.text(min_size=1, max_size=12)
FRACTION = st.decimals(0, 1, allow_nan=False, places=6) | st.floats(0, 1).map(lambda value: round(value, 12))
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
FILES = st.text(min_size=1, max_size=12).map(lambda name: f"{name}x.npy")
UIDS = st.lists(st.text("0123456789abcdef", min_size=1, max_size=32), min_size=1, max_size=4)
ON = st.booleans()
STEPS = st.one_of(
    st.builds(KeepTop, column=METRIC, keep_top=FRACTION, of=st.sampled_from(["pool", "survivors"]), enabled=ON),
    st.builds(AtLeast, column=METRIC, at_least=NUMBER, enabled=ON),
    st.builds(AtMost, column=METRIC, at_most=NUMBER, enabled=ON),
    st.builds(Intersect, intersect=FILES, enabled=ON),
    st.builds(Union, union=FILES, enabled=ON),
    st.builds(Subtract, subtract=FILES, enabled=ON),
    st.builds(Keep, keep=UIDS, enabled=ON),
    st.builds(Drop, drop=UIDS, enabled=ON),
)


@given(name=st.none() | st.text(max_size=30), steps=st.lists(STEPS, min_size=1, max_size=4))
def test_dump_recipe__is_read_back_as_it_was(name, steps):
    recipe = Recipe(name=name, steps=tuple(steps))
    text = dump_recipe(recipe)
    assert parse_recipe(text) == recipe
    assert dump_recipe(parse_recipe(text)) == text


def test_dump_recipe__writes_what_people_write():
    text = dump_recipe(parse_recipe(FULL))
    assert text.splitlines()[:6] == [
        "name: the paper's two steps, and more",
        "steps:",
        "- {column: s_cliploss, keep_top: 0.3}",
        "- {column: clip_score, keep_top: 0.5, of: survivors, enabled: false}",
        "- {column: clip_score, at_least: 0.21}",
        "- {column: clip_score, at_most: 0.1}",
    ]


def test_dump_recipe__is_the_same_however_a_fraction_was_written():
    texts = {
        dump_recipe(Recipe(steps=(KeepTop(column="clip_score", keep_top=value),)))
        for value in (0.3, Decimal("0.3"), Decimal("0.300"))
    }
    assert texts == {"steps:\n- {column: clip_score, keep_top: 0.3}\n"}


def test_dump_recipe__repeats_equal_steps_without_aliases():
    step = KeepTop(column="clip_score", keep_top=0.3)
    assert parse_recipe(dump_recipe(Recipe(steps=(step, step)))).steps == (step, step)


def test_save_recipe__finds_its_lists_from_the_new_folder(tmp_path):
    (tmp_path / "lists").mkdir()
    old = parse_recipe("steps: [{intersect: lists/a.npy}, {keep: [1]}]", folder=tmp_path)
    save_recipe(old, tmp_path / "recipes" / "mine.yaml")
    loaded = load_recipe(tmp_path / "recipes" / "mine.yaml")
    assert [Path(file).resolve() for file in loaded.list_files()] == [tmp_path / "lists" / "a.npy"]
    assert list(map(Path, old.list_files())) == [tmp_path / "lists" / "a.npy"]


def test_list_files__leaves_disabled_steps_out():
    recipe = parse_recipe("steps: [{intersect: a.npy, enabled: off}, {union: b.txt}, {keep: [1]}]")
    assert [file.name for file in recipe.list_files()] == ["b.txt"]


@pytest.mark.parametrize(
    ("content", "found"), [(None, "No such file"), (b"steps: \xff", "byte 7"), (b"steps: 3", "one or more steps")]
)
def test_load_recipe__names_the_file(tmp_path, content, found):
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=rf"r\.yaml.*{found}"):
        load_recipe(path)


def test_load_recipe__checks_metrics_when_told_them(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("steps:\n- {metric: hype, keep_top: 1}\n")
    assert load_recipe(path).steps[0].metric == "hype"
    with pytest.raises(RecipeError, match=r"r\.yaml:2: "):
        load_recipe(path, METRICS)


# --- built in Python, as the pages do


@pytest.mark.parametrize("fraction", [True, "0.3", 1.5, -0.1, float("nan"), float("inf"), None, [0.1]])
def test_keep_top__refuses_what_is_no_fraction(fraction):
    with pytest.raises(ValidationError):
        KeepTop(column="clip_score", keep_top=fraction)


def test_recipe__equals_one_that_says_the_same():
    a, b = parse_recipe(FULL, "a.yaml"), parse_recipe("# again\n" + FULL, "b.yaml")
    assert a == b
    assert hash(a) == hash(b)
    assert a != parse_recipe(FULL.replace("0.30", "0.31"))


def test_recipe__refuses_no_steps():
    with pytest.raises(ValidationError):
        Recipe(steps=())
