"""Do the published recipes need what they say, and nothing else? M-FLYT's weights are those of its repository."""

from __future__ import annotations

import pytest

from clipsel_core.curation.recipes.published import published_recipe, published_recipes
from clipsel_core.curation.recipes.recipe import ListStep, columns_of
from clipsel_core.errors import RecipeError

# The weights that github.com/formll/FLYT prints in its examples, in the order of its columns there.
M_FLYT = [0.80, 0.65, 0.60, 0.55, 0.51, 0.45, 0.36, 0.21, 0.17, 0.08, -0.05, 0.02]


@pytest.mark.parametrize("name", published_recipes())
def test_published_recipes__name_all_columns_and_lists_that_their_steps_use(name):
    known = published_recipe(name)
    used = {column for step in known.recipe.steps if not isinstance(step, ListStep) for column in columns_of(step)}
    lists = {step.value for step in known.recipe.steps if isinstance(step, ListStep)}
    assert set(known.needs) == used | lists
    assert known.about
    assert "https://arxiv.org/abs/" in known.source
    assert known.recipe.name


def test_published_recipes__m_flyt_has_the_published_weights_and_soft_cap():
    (step,) = published_recipe("m_flyt").recipe.steps
    assert [float(weight) for _, weight in step.by] == M_FLYT
    assert (step.sample, step.method, step.penalty, step.round_) == (128_000_000, "soft_cap", 0.15, 100_000)


def test_published_recipe__an_unknown_name_is_an_error_that_lists_the_known():
    with pytest.raises(RecipeError, match=r"one of basic_filter, .*found 'flyt'"):
        published_recipe("flyt")
