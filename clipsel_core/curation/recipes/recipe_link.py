"""How does a recipe travel in a link? As a short text of letters, digits, - and _, and nothing in it is trusted.

The text is the version, then base64url of the deflated recipe behind one line that says which run it is for and what
was left out. Uid lists travel by name, and only those names that the receiving run offers are taken, so a link never
opens a file elsewhere. Pairs kept or dropped by hand travel while they fit.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from clipsel_core.curation.recipes.recipe import AnyStep, HandStep, ListStep, Recipe, dump_recipe, parse_recipe
from clipsel_core.errors import RecipeError, quoted
from clipsel_core.places import Place

# Chats, proxies and older browsers cut longer addresses.
MOST_CHARACTERS = 4_000
MOST_STEPS = 40
_VERSION = "1"
_MOST_BYTES = 64_000
_HEAD = re.compile(r"([0-9a-f]{8}) (\d{1,12}) (\d{1,12})")
# What recipes are made of, the most frequent last: deflate refers to it instead of repeating it. Part of the version.
_WORDS = (
    b"subtract: union: intersect: lists/.parquet.csv.txt.npy drop: [keep: [normsim_2_imagenetr_imager_text"
    b"at_most: at_least: , enabled: false}, of: survivorsnormsim_inf_imagenet, keep_top: 0.2}\n0 0\n"
    b"steps:\n- {metric: clip_score, keep_top: 0.1}\n- {metric: s_cliploss, keep_top: 0.3}\n"
)


@dataclass(frozen=True)
class RecipeLink:
    """A recipe as a link holds it. text: None where it does not fit at all, "" where the link holds none.

    hand: pairs kept or dropped by hand that were left out because they are too many. lists: steps with lists that were
    left out because they lie outside the run's folders.
    """

    text: str | None
    hand: int = 0
    lists: int = 0


@dataclass(frozen=True)
class LinkedSteps:
    """What came out of a link. steps: in order. hand, lists: what its maker had to leave out, as in RecipeLink."""

    steps: tuple[AnyStep, ...]
    hand: int
    lists: int


def encode_link(steps: Sequence[AnyStep], *, run: str, lists: Collection[str]) -> RecipeLink:
    """The steps as a link holds them. run: the label of the run they are for. lists: names of the run's uid lists."""
    taken = [step for step in steps if not isinstance(step, ListStep) or step.value in lists]
    left = len(steps) - len(taken)
    text = _encoded(taken, run, 0, left)
    if text:
        return RecipeLink(text, 0, left)
    hand = sum(len(step.value) for step in taken if isinstance(step, HandStep))
    text = _encoded([step for step in taken if not isinstance(step, HandStep)], run, hand, left)
    return RecipeLink(text, hand, left)


def decode_link(text: str, *, run: str, columns: Collection[str], lists: Collection[str], folder: Place) -> LinkedSteps:
    """The steps that a link holds, checked against the run. folder: where the run's lists are named from.

    Raises: RecipeError where the text is broken, too long, for another run, or names a column or list that this run
        does not offer. Takes bounded time and memory whatever the text.
    """
    head, recipe = _decoded(text)
    match = _HEAD.fullmatch(head)
    if match is None:
        raise _broken("another beginning")
    if match[1] != _mark(run):
        remedy = "open it with the run it was made for, or save the recipe there and copy its file"
        raise RecipeError("link", expected=f"a recipe for {quoted(run)}", found="one for another run", remedy=remedy)
    steps: tuple[AnyStep, ...] = ()
    if recipe:
        try:
            steps = parse_recipe(recipe, "link", columns, folder=folder).steps
        except RecipeError as error:
            if error.remedy:
                raise
            raise _broken(error.found, error.expected, error.where) from error
    if len(steps) > MOST_STEPS:
        raise _broken(f"{len(steps):,}", f"at most {MOST_STEPS} steps")
    for step in steps:
        if isinstance(step, ListStep) and step.value not in lists:
            remedy = "add the list to this run first, then open the link again"
            raise RecipeError("link", expected="a uid list of this run", found=quoted(step.value), remedy=remedy)
    return LinkedSteps(steps, int(match[2]), int(match[3]))


def _encoded(steps: Sequence[AnyStep], run: str, hand: int, lists: int) -> str | None:
    """The text of a link, None where it would be too long."""
    if len(steps) > MOST_STEPS:
        return None
    recipe = dump_recipe(Recipe(steps=tuple(steps))) if steps else ""
    deflater = zlib.compressobj(9, zdict=_WORDS)
    data = deflater.compress(f"{_mark(run)} {hand} {lists}\n{recipe}".encode()) + deflater.flush()
    text = _VERSION + base64.urlsafe_b64encode(data).decode().rstrip("=")
    return text if len(text) <= MOST_CHARACTERS else None


def _decoded(text: str) -> tuple[str, str]:
    """The first line and the rest of what a link holds."""
    if len(text) > MOST_CHARACTERS:
        raise _broken(f"{len(text):,}", f"at most {MOST_CHARACTERS:,} characters")
    if not re.fullmatch(r"1[A-Za-z0-9_-]+", text):
        raise _broken(quoted(text))
    try:
        data = base64.urlsafe_b64decode(text[1:] + "=" * (-len(text[1:]) % 4))
        inflater = zlib.decompressobj(zdict=_WORDS)
        recipe = inflater.decompress(data, _MOST_BYTES)
        whole = inflater.eof and not inflater.unused_data
        head, _, rest = recipe.decode("utf-8").partition("\n")
    except (binascii.Error, zlib.error, UnicodeDecodeError) as error:
        raise _broken("a damaged one") from error
    if not whole:
        raise _broken("one that is cut short, or too long")
    return head, rest


def _broken(
    found: str, expected: str = "a recipe as this page writes it into links", where: str = "link"
) -> RecipeError:
    remedy = "ask for the link again, or load a saved recipe"
    return RecipeError(where, expected=expected, found=found, remedy=remedy)


def _mark(run: str) -> str:
    """Which run a recipe is for, in eight characters."""
    return hashlib.sha256(run.encode()).hexdigest()[:8]
