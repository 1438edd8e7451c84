"""How does one build the same with `st.slider` and DuckDB, as one would write it in a day, with care?

    streamlit run benchmarks/plain_slider.py -- RUN

Thresholds on two scores (three with ?steps=3), the number of pairs that pass, a histogram for each score, and with
?page=gallery pages of 48 pairs. The scores lie in memory, every query has its own cursor, what was asked before is
cached, and nothing that another view needs is computed. It counts no shares, no single steps and no other layers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import duckdb
import pandas as pd
import streamlit as st

METRICS = ("s_cliploss", "normsim_inf_task", "clip_score")
_BINS = 128
_CARDS = 48


@st.cache_resource(show_spinner="Reading the scores …")
def database(run: str) -> duckdb.DuckDBPyConnection:
    """The run's scores as a table in memory."""
    described = json.loads((Path(run) / "run.json").read_text())
    files = [f"{run}/scores/{shard['name']}.parquet" for shard in described["shards"]]
    connection = duckdb.connect()
    columns = ", ".join(METRICS)
    connection.execute(f"CREATE TABLE scores AS SELECT uid_hi, uid_lo, {columns} FROM read_parquet(?)", [files])
    return connection


@st.cache_data(max_entries=64, show_spinner=False)
def extents(run: str) -> dict[str, tuple[float, float]]:
    """The lowest and the highest value of each score."""
    asked = ", ".join(f"min({metric}), max({metric})" for metric in METRICS)
    found = database(run).cursor().execute(f"SELECT {asked} FROM scores").fetchone() or ()
    return {metric: (found[2 * place], found[2 * place + 1]) for place, metric in enumerate(METRICS)}


@st.cache_data(max_entries=64, show_spinner=False)
def kept(run: str, floors: dict[str, float]) -> int:
    """Pairs that reach every floor."""
    where = " AND ".join(f"{metric} >= ?" for metric in floors)
    return (
        database(run).cursor().execute(f"SELECT count(*) FROM scores WHERE {where}", [*floors.values()]).fetchone()[0]
    )


@st.cache_data(max_entries=64, show_spinner=False)
def histogram(run: str, metric: str, floors: dict[str, float]) -> pd.DataFrame:
    """Pairs in equal bins of a score, of those that reach every floor."""
    low, high = extents(run)[metric]
    where = " AND ".join(f"{name} >= ?" for name in floors)
    query = (
        f"SELECT floor(({metric} - ?) * ?)::INTEGER AS bin, count(*) AS pairs FROM scores WHERE {where} GROUP BY bin"
    )
    asked = [low, _BINS / (high - low), *floors.values()]
    found = database(run).cursor().execute(query, asked).df()
    found["score"] = (low + found["bin"] * (high - low) / _BINS).round(4)
    return found.set_index("score")[["pairs"]]


def thresholds(run: str, names: tuple[str, ...]) -> None:
    """A slider and a histogram for each score, and the number of pairs that pass them all."""
    spans = extents(run)
    floors = {}
    for name in names:
        low, high = spans[name]
        floors[name] = st.slider(name, low, high, low + (high - low) / 2, (high - low) / 500, key=name)
    st.metric("Pairs", f"{kept(run, floors):,}")
    for name in names:
        st.bar_chart(histogram(run, name, floors), height=150)


def gallery(run: str) -> None:
    """Pages of pairs by the first score, with images where the pool has them."""
    page = st.number_input("Page", 1, key="page")
    query = f"SELECT {METRICS[0]} AS score FROM scores ORDER BY {METRICS[0]} DESC LIMIT {_CARDS} OFFSET ?"
    found = database(run).cursor().execute(query, [(page - 1) * _CARDS]).df()
    pictures = sorted((Path(run).parent / "pool" / "pictures").glob("*.jpg"))
    columns = st.columns(8)
    for place, score in enumerate(found["score"]):
        with columns[place % 8]:
            if pictures:
                st.image(str(pictures[(page * _CARDS + place) % len(pictures)]))
            st.caption(f"{score:.4f}")


if __name__ == "__main__":
    chosen = sys.argv[1]
    if st.query_params.get("page") == "gallery":
        gallery(chosen)
    else:
        thresholds(chosen, METRICS[: int(st.query_params.get("steps", 2))])
