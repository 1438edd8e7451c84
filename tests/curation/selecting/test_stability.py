"""What is said about another seed is held against another seed: the same pool scored twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clipsel_core.curation.recipes.recipe import parse_recipe
from clipsel_core.curation.selecting.selection import select
from clipsel_core.curation.selecting.stability import Stability, stability
from clipsel_core.runs.store import Run
from clipsel_core.scoring.s_cliploss import clip_score, normalizer, s_cliploss
from tests.curation.conftest import hand_run, make_uids

PAIRS, BATCH, DIVISIONS = 3000, 750, 10
TOP = "steps: [{metric: s_cliploss, keep_top: 0.3}]"
TWO = "steps: [{metric: s_cliploss, keep_top: 0.4}, {metric: normsim_inf_task, keep_top: 0.2}]"
BAND = "steps: [{metric: s_cliploss, keep_top: 0.6}, {metric: s_cliploss, at_most: 0.0}, {drop: [3]}]"


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs that fit each other more or less, around topics, so that the batch matters."""
    draw = torch.Generator().manual_seed(5)
    topics = torch.randn(40, 24, generator=draw)
    image = topics[torch.randint(40, (PAIRS,), generator=draw)] + 0.9 * torch.randn(PAIRS, 24, generator=draw)
    text = image + 1.1 * torch.randn(PAIRS, 24, generator=draw)
    return torch.nn.functional.normalize(image), torch.nn.functional.normalize(text)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> list[Run]:
    """One pool scored with four seeds."""
    image, text = embeddings()
    score = clip_score(image, text)
    near = np.random.default_rng(0).random(PAIRS)
    folder, runs = tmp_path_factory.mktemp("seeds"), []
    for seed in range(4):
        r = normalizer(image, text, temperature=0.05, batch_size=BATCH, divisions=DIVISIONS, seed=seed, name="0")
        columns = {
            "clip_score": score.numpy(),
            "s_cliploss": s_cliploss(score, r).numpy(),
            "normalizer_se": r.standard_error.numpy(),
            "normsim_inf_task": near,
        }
        runs.append(hand_run(folder / str(seed), [(make_uids(*range(PAIRS)), columns)], divisions=DIVISIONS))
    return runs


def said(run: Run, text: str, **options) -> Stability:
    recipe = parse_recipe(text)
    return stability(select(run, recipe), recipe, **options)


@pytest.mark.parametrize("text", [TOP, TWO, BAND])
def test_stability__foretells_what_another_seed_changes(seeds, text):
    recipe = parse_recipe(text)
    kept = [set(select(run, recipe).rows.tolist()) for run in seeds]
    observed = np.mean([len(kept[a] - kept[b]) for a in range(4) for b in range(4) if a != b])
    foretold = np.mean([said(run, text).flips for run in seeds])
    # Some fifty flips in each of six pairs of seeds: their mean is known to a tenth.
    assert observed > 20
    assert foretold == pytest.approx(observed, rel=0.2)


def test_stability__each_chance_holds(seeds):
    """Of the pairs said to flip with a chance near p, about that part did."""
    recipe = parse_recipe(TOP)
    found = said(seeds[0], TOP, most=PAIRS)
    first = select(seeds[0], recipe).mask()
    flipped = np.mean([select(other, recipe).mask() != first for other in seeds[1:]], axis=0)[found.rows]
    for low, high in ((0.05, 0.2), (0.2, 0.35), (0.35, 0.5)):
        some = (found.chances >= low) & (found.chances < high)
        assert some.sum() > 20
        assert flipped[some].mean() == pytest.approx(found.chances[some].mean(), abs=0.1)


def hand_made(tmp_path, values, error, divisions=10) -> Run:
    values = np.asarray(values, float)
    columns = {
        "clip_score": values,
        "s_cliploss": values,
        "normalizer_se": np.broadcast_to(error, values.shape),
        "normsim_inf_task": -values,
    }
    return hand_run(tmp_path / "run", [(make_uids(*range(len(values))), columns)], divisions=divisions)


def test_stability__is_the_formula(tmp_path):
    run = hand_made(tmp_path, [-0.1, -0.02, 0.01, 0.3], [0.01, 0.02, 0.03, 0.01])
    found = said(run, "steps: [{metric: s_cliploss, at_least: 0.0}]")
    c4 = 0.9726592741
    tail = [0.5 * math.erfc(distance / (math.sqrt(2) * se / c4) / math.sqrt(2)) for distance, se in
            ((0.1, 0.01), (0.02, 0.02), (0.01, 0.03), (0.3, 0.01))]  # fmt: skip
    assert found.gained == pytest.approx(tail[0] + tail[1], rel=1e-4)
    assert found.lost == pytest.approx(tail[2], rel=1e-4)
    assert found.rows.tolist()[:2] == [2, 1]
    assert found.chances[:2] == pytest.approx([tail[2], tail[1]], rel=1e-4)
    assert found.share == pytest.approx((sum(tail)) / 2 / 2, rel=1e-4)


def test_stability__other_metrics_have_no_seed(tmp_path):
    run = hand_made(tmp_path, np.linspace(-1, 0, 50), 0.01)
    found = said(run, "steps: [{metric: normsim_inf_task, keep_top: 0.5}]")
    assert (found.noisy, found.share, len(found.rows)) == (0, 0.0, 0)
    assert said(run, "steps: [{metric: normalizer_se, keep_top: 0.5}]").unknown == ("normalizer_se",)


def test_stability__pairs_decided_by_other_steps_never_flip(tmp_path):
    run = hand_made(tmp_path, np.linspace(-0.05, 0.05, 101), 0.01)
    by_hand = "steps: [{metric: s_cliploss, at_least: 0.0}, {keep: [31]}, {drop: [33]}]"
    rows = said(run, by_hand, most=200).rows
    assert 0x31 not in rows
    assert 0x33 not in rows
    assert {0x30, 0x32, 0x34} <= set(rows.tolist())


def test_stability__off_steps_count_for_nothing(tmp_path):
    run = hand_made(tmp_path, np.linspace(-0.05, 0.05, 101), 0.01)
    text = "steps: [{metric: clip_score, keep_top: 0.5}, {metric: s_cliploss, keep_top: 0.3, enabled: false}]"
    assert said(run, text).noisy == 0


@pytest.mark.parametrize(("error", "divisions"), [(0.0, 10), (0.0, 1)])
def test_stability__without_chance_says_so(tmp_path, error, divisions):
    found = said(hand_made(tmp_path, np.linspace(-1, 0, 50), error, divisions), TOP)
    assert found.scored_once
    assert found.flips == 0


def test_stability__of_nothing_kept_nothing_flips(tmp_path):
    found = said(hand_made(tmp_path, np.linspace(-1, 0, 50), 0.01), "steps: [{metric: s_cliploss, keep_top: 0}]")
    assert (found.kept, found.flips, found.share, len(found.rows)) == (0, 0, 0, 0)


def test_stability__of_everything_kept_only_the_lowest_may_leave(tmp_path):
    found = said(hand_made(tmp_path, np.linspace(-1, 0, 50), 0.01), "steps: [{metric: s_cliploss, keep_top: 1}]")
    assert (found.kept, found.gained, found.rows[0]) == (50, 0, 0)
    # The lowest stands at the threshold itself: it falls below half of the time.
    assert found.chances[0] == pytest.approx(0.5)


def test_stability__names_no_pair_that_cannot_flip(tmp_path):
    """0.1 is a threshold, too, but whoever stands near it is far from the one that decides."""
    run = hand_made(tmp_path, [0.099, 0.101, 0.499, 0.501], 0.001)
    found = said(run, "steps: [{metric: s_cliploss, at_least: 0.1}, {metric: s_cliploss, at_least: 0.5}]")
    assert sorted(found.rows.tolist()) == [2, 3]


def test_stability__unscored_pairs_stay_out(tmp_path):
    values = np.linspace(-0.05, 0.05, 101)
    values[40:45] = np.nan
    found = said(hand_made(tmp_path, values, 0.01), "steps: [{metric: s_cliploss, at_least: 0.0}]", most=200)
    assert not set(range(40, 45)) & set(found.rows.tolist())
    assert np.isfinite(found.flips)
