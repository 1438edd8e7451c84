"""Composes odd inputs and prints those that clipsel reads otherwise than the plain reader.

python -m tests.oddities --count 5000 --seed 0
python -m tests.oddities --seed 17 --keep FOLDER     leaves that one there, to be looked at
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.oddities.check import differences
from tests.oddities.compose import compose


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oddities", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1, help="how many, from the seed on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a new folder to compose into")
    asked = parser.parse_args()
    start, kinds, wrong = time.monotonic(), Counter[str](), Counter[str]()
    for seed in range(asked.seed, asked.seed + asked.count):
        with tempfile.TemporaryDirectory() as folder:
            root = (asked.keep or Path(folder)) / str(seed)
            root.mkdir(parents=True)
            case = compose(seed, root)
            kinds[case.kind] += 1
            if found := differences(case, Path(folder) / "out"):
                wrong[case.kind] += 1
                print(f"seed {seed}: {case.kind} {case.path.name!r}, {case.recipe}", *found, sep="\n  ")
    print(
        f"{asked.count:,} in {time.monotonic() - start:.0f} s, {wrong.total():,} differ: {dict(wrong)} of {dict(kinds)}"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
