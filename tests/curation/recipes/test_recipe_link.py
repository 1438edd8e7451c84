"""A recipe comes out of a link as it went in; whatever else is in a link is refused in one line."""

from __future__ import annotations

import base64
import random
import string
import zlib
from pathlib import Path

import pytest

from clipsel_core.curation.recipes import recipe_link
from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.recipes.recipe_link import MOST_CHARACTERS, decode_link, encode_link
from clipsel_core.errors import RecipeError

METRICS = ("clip_score", "s_cliploss", "normsim_inf_task")
LISTS = ("lists/hype.npy", "old.txt")
TO = {"run": "web/run", "columns": METRICS, "lists": LISTS, "folder": Path()}
EVERYTHING = """steps:
- {metric: s_cliploss, keep_top: 0.3}
- {metric: normsim_inf_task, keep_top: 0.2, of: survivors}
- {metric: clip_score, at_least: 0.21, enabled: false}
- {metric: clip_score, at_most: 0.4000000059604645}
- {intersect: lists/hype.npy}
- {subtract: old.txt}
- {keep: [000000000000000000000000000000aa]}
- {drop: [139e4a9b22a614771f06c700a8ebe150, 00000000000000000000000000000001]}
"""


def steps_of(text: str):
    return parse_recipe(text).steps


def sealed(content: str) -> str:
    """What a stranger could write into a link."""
    deflater = zlib.compressobj(zdict=recipe_link._WORDS)
    data = deflater.compress(content.encode()) + deflater.flush()
    return "1" + base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_encode_link__decode_link_gives_the_same_steps():
    link = encode_link(steps_of(EVERYTHING), run="web/run", lists=LISTS)
    arrived = decode_link(link.text, **TO)
    assert arrived.steps == steps_of(EVERYTHING)
    assert (arrived.hand, arrived.lists) == (link.hand, link.lists) == (0, 0)
    assert set(link.text) <= set(string.ascii_letters + string.digits + "-_")


def test_encode_link__the_papers_recipe_is_short():
    two = "steps: [{metric: s_cliploss, keep_top: 0.3}, {metric: normsim_inf_imagenet, keep_top: 0.2}]"
    assert len(encode_link(steps_of(two), run="web/run", lists=()).text) < 60


def test_encode_link__no_step_at_all():
    assert decode_link(encode_link((), run="web/run", lists=()).text, **TO).steps == ()


def test_encode_link__leaves_out_long_lists_by_hand_and_says_so():
    draw = random.Random(0)
    uids = [f"{draw.getrandbits(128):032x}" for _ in range(1000)]
    text = EVERYTHING.replace("000000000000000000000000000000aa", ", ".join(uids))
    link = encode_link(steps_of(text), run="web/run", lists=LISTS)
    arrived = decode_link(link.text, **TO)
    assert (arrived.hand, link.hand) == (1002, 1002)
    assert arrived.steps == steps_of(text)[:6]


def test_encode_link__a_hundred_pairs_by_hand_fit():
    draw = random.Random(1)
    steps = steps_of(f"steps: [{{drop: [{', '.join(f'{draw.getrandbits(128):032x}' for _ in range(100))}]}}]")
    link = encode_link(steps, run="web/run", lists=())
    assert len(link.text) < MOST_CHARACTERS
    assert decode_link(link.text, **TO).steps == steps


def test_encode_link__leaves_out_lists_that_lie_elsewhere():
    steps = steps_of("steps: [{intersect: ../../secret.npy}, {metric: clip_score, keep_top: 0.5}]")
    link = encode_link(steps, run="web/run", lists=LISTS)
    arrived = decode_link(link.text, **TO)
    assert (link.lists, arrived.lists) == (1, 1)
    assert arrived.steps == steps[1:]


def test_encode_link__says_when_nothing_fits():
    steps = steps_of("steps: [{metric: clip_score, keep_top: 0.5}]") * 41
    assert encode_link(steps, run="web/run", lists=()).text is None


@pytest.mark.parametrize("name", ["/etc/passwd.npy", "../lists/hype.npy", "hype.npy", "lists/../lists/hype.npy"])
@pytest.mark.parametrize("kind", ["intersect", "union", "subtract"])
def test_decode_link__opens_no_list_that_the_run_does_not_offer(kind, name):
    mark = recipe_link._mark("web/run")
    with pytest.raises(RecipeError, match="expected a uid list of this run"):
        decode_link(sealed(f"{mark} 0 0\nsteps: [{{{kind}: {name}, enabled: false}}]"), **TO)


def test_decode_link__refuses_a_recipe_of_another_run():
    link = encode_link(steps_of(EVERYTHING), run="other/run", lists=LISTS)
    with pytest.raises(RecipeError, match="found one for another run"):
        decode_link(link.text, **TO)


@pytest.mark.parametrize(
    ("recipe", "found"),
    [
        ("steps: [{metric: nothing, keep_top: 0.5}]", "'nothing'"),
        ("steps: [{metric: clip_score, keep_top: 1.5}]", "1.5"),
        ("steps: [{metric: clip_score, at_least: .nan}]", "nan"),
        ("steps: &a [*a]", "anchor"),
        ("a: b", "only 'a'"),
        ("[" * 5000, "more than 6 deep"),
        ("steps: [" + ", ".join(["{metric: clip_score, keep_top: 0.5}"] * 41) + "]", "41"),
    ],
)
def test_decode_link__refuses_what_is_no_recipe_with_a_remedy(recipe, found):
    with pytest.raises(RecipeError, match=r"link.*expected .*;") as caught:
        decode_link(sealed(f"{recipe_link._mark('web/run')} 0 0\n{recipe}"), **TO)
    assert found in str(caught.value)
    assert caught.value.remedy


def test_decode_link__is_not_blown_up_by_a_bomb():
    bomb = sealed(f"{recipe_link._mark('web/run')} 0 0\n{'#' * 2_000_000}")
    assert len(bomb) < MOST_CHARACTERS
    with pytest.raises(RecipeError, match="too long"):
        decode_link(bomb, **TO)


def test_decode_link__any_damage_is_one_calm_line():
    link = encode_link(steps_of(EVERYTHING), run="web/run", lists=LISTS).text
    draw = random.Random(2)
    damaged = ["", "1", "2abc", "é" * 20, "1" + "A" * 5000, "1====", "1\n", "<script>alert(1)</script>", "x" * 10_000]
    damaged += [link[:cut] for cut in range(1, len(link), 7)]
    damaged += [link[:place] + draw.choice(string.ascii_letters) + link[place + 1 :] for place in range(len(link))]
    damaged += ["1" + "".join(draw.choices(string.ascii_letters, k=80)) for _ in range(200)]
    for text in set(damaged) - {link}:
        # The last character holds unused bits, so a few texts say the same.
        if not _says_the_same(text, link):
            with pytest.raises(RecipeError) as caught:
                decode_link(text, **TO)
            assert caught.value.remedy
            assert "\n" not in str(caught.value)


def _says_the_same(text: str, link: str) -> bool:
    return len(text) == len(link) and text[:-1] == link[:-1] and unpack_bytes(text) == unpack_bytes(link)


def unpack_bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text[1:] + "=" * (-len(text[1:]) % 4))
