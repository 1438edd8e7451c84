"""Does clipsel read odd inputs as a slow plain reader does: the right captions and uids beside the right images?"""

from __future__ import annotations

import pytest

from clipsel_core.pool.making.embed import load_teacher
from tests.oddities.check import differences, made_differences
from tests.oddities.compose import compose
from tests.pool.pictures import write_teacher

COUNT, AT_ONCE = 300, 25


@pytest.mark.parametrize("first", range(0, COUNT, AT_ONCE))
def test_compose__read_as_the_plain_reader_does(tmp_path, first):
    wrong = {}
    for seed in range(first, first + AT_ONCE):
        root = tmp_path / str(seed)
        root.mkdir()
        case = compose(seed, root)
        if found := differences(case, tmp_path / f"out{seed}"):
            wrong[seed] = (case.kind, case.recipe, found)
    assert not wrong, "python -m tests.oddities --seed N --keep FOLDER makes one of them again"


# A csv, parquets with images inside, and tars; each with rows that are no pairs.
@pytest.mark.parametrize("seed", [2, 3, 16])
def test_make_pool__odd_sources_become_the_same_pairs(tmp_path, seed):
    (tmp_path / "in").mkdir()
    case = compose(seed, tmp_path / "in")
    teacher = load_teacher(f"local-dir:{write_teacher(tmp_path / 'teacher', 0)}")
    assert made_differences(case, tmp_path / "out", teacher) == []
