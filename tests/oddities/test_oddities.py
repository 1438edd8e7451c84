"""Does clipsel read odd inputs as a slow plain reader does: the right captions and uids beside the right images?"""

from __future__ import annotations

import pytest

from tests.oddities.check import differences
from tests.oddities.compose import compose

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
