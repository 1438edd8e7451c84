"""What the server does ahead, before anybody asks."""

from __future__ import annotations

import subprocess
import sys


def test_warm_up__leaves_the_imported_out_of_the_search_for_garbage():
    code = """
import gc
from clipsel_core.curation.selecting import warming
warming._LATER_S = 0
warming.warm_up().join()
print(len(gc.get_objects()) < gc.get_freeze_count())
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "True", shown.stdout + shown.stderr
