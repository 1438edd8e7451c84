"""What the server does ahead, before anybody asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]


def test_warm_up__leaves_the_imported_out_of_the_search_for_garbage():
    code = """
import gc
from pages.parts import warming
warming._NO_PAGE_S = 0
warming.warm_up().join()
print(len(gc.get_objects()) < gc.get_freeze_count())
"""
    asked = [sys.executable, "-c", code]
    shown = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert shown.stdout.strip() == "True", shown.stdout + shown.stderr
