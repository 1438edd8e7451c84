"""How is the paper's two-step subset picked with DuckDB alone, as one would write it in an afternoon?

Written for comparison with `select`, and the same to the byte:

    python -m benchmarks.plain_duckdb RUN OUT.npy
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb
import numpy as np

_QUERY = """
    WITH first AS (
        SELECT uid_hi, uid_lo, normsim_inf_task FROM read_parquet($files)
        WHERE NOT isnan(s_cliploss) AND NOT isnan(clip_score)
        ORDER BY s_cliploss DESC, uid_hi, uid_lo LIMIT $k_first
    )
    SELECT uid_hi, uid_lo FROM first WHERE NOT isnan(normsim_inf_task)
    ORDER BY normsim_inf_task DESC, uid_hi, uid_lo LIMIT $k_second
"""


def main() -> None:
    """Picks 30 % of the run's pairs by s-CLIPLoss, of those 20 % of the run's by NormSim_inf, and writes their uids."""
    root, out = Path(sys.argv[1]), Path(sys.argv[2])
    described = json.loads((root / "run.json").read_text())
    files = [str(root / "scores" / f"{shard['name']}.parquet") for shard in described["shards"]]
    pairs = described["pairs"]
    asked = {"files": files, "k_first": 3 * pairs // 10, "k_second": 2 * pairs // 10}
    found = duckdb.connect().execute(_QUERY, asked).fetchnumpy()
    order = np.lexsort((found["uid_lo"], found["uid_hi"]))
    uids = np.empty(len(order), "u8,u8")
    uids["f0"], uids["f1"] = found["uid_hi"][order], found["uid_lo"][order]
    np.save(out, uids)


if __name__ == "__main__":
    main()
