"""What is in this run, how was it made, can I trust it, and what should I do next?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import streamlit as st

from clipsel_core.errors import ClipselError, counted
from clipsel_core.leases import may_be_held
from clipsel_core.places import Place, protocol_of
from clipsel_core.runs.columns import CLIP_SCORE, NORMSIM, S_CLIPLOSS, usual
from clipsel_core.runs.cost import in_units
from clipsel_core.runs.store import Run
from clipsel_core.status import Status, read_status
from pages.parts import messages, recipes, registry, sessions, state, stores, words
from pages.parts.catalog import Entry
from pages.parts.gallery import pager
from pages.parts.jobs import forms, jobs, machine
from pages.parts.pair import galleries

_SPARK_BINS = 64
_GLIMPSE = 12
_SILENCE_S = 120
_SO_FAR = "What is scored so far can be looked at and selected from. "
_PRECISIONS = {"exact": "in float32", "bf16": "in float32, the normalizer's products from bf16"}


def show(entry: Entry) -> None:
    run = state.open_run(entry)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="top"):
        st.title("Overview")
        st.space("stretch")
        forms.draw_buttons(run)
    _glance(run)
    jobs.draw_panel()
    _progress(entry, run)
    _concerns(entry, run)
    damage = _damage(entry, run)
    # Where the table has no room, what stands beside it goes below; the style sheet decides that.
    left, right = st.container(key="about").columns([3, 2], gap="large")
    with left:
        st.subheader("Scores")
        if damage is None:
            _scores(entry, run)
        else:
            messages.show_error(damage, "The scores of this run cannot be shown")
            in_scores = Place.of(damage.where).parent.address == str(run.root / "scores")
            if in_scores and run.finished and may_be_held(run.root) and not jobs.at_work("score", run.root):
                again: dict[str, Any] = {"type": "primary", "icon": ":material/play_arrow:"}
                again |= {"on_click": jobs.resume_scoring, "args": (run,)}
                st.button("Score the damaged shards again", key="score again", **again)
        st.subheader("Recipes at hand")
        if saved := recipes.saved(run):
            messages.show_facts({name: recipes.in_words(entry, path) for name, path in saved.items()})
        else:
            messages.show_empty("No recipe saved", "Build one on the Select page and save it; it stays with the run.")
    with right:
        st.subheader("How it was made")
        _provenance(run)
        if not run.projection_file.exists():
            forms.ask_for_map(run)
    if run.pairs and damage is None:
        _glimpse(entry)
    machine.draw_machine()


def _glimpse(entry: Entry) -> None:
    st.subheader("A few pairs at random")
    known = [name for name in registry.own_numbers(entry) if registry.marginal(entry, name).pairs]
    if not known:
        messages.show_empty(
            "Nothing to show", "No pair of this run has a score: look at the pool's embeddings, then score."
        )
        return
    metric = usual(known)
    rows = _glimpse_rows(entry, metric)
    st.caption(f"With their {registry.title(entry, metric)} and its percentile in the run.")
    listed = pager.RowList(rows, _GLIMPSE)
    galleries.draw_gallery(entry, listed, metric, key="glimpse", title="A few pairs at random")


@state.per_run(8)
def _glimpse_rows(entry: Entry, metric: str) -> np.ndarray:
    # Of some pairs drawn beforehand: to shuffle 128 million takes 20 seconds.
    values = state.open_table(entry).column(metric)
    some = np.random.default_rng(1).choice(len(values), min(len(values), 50 * _GLIMPSE), replace=False)
    return some[~np.isnan(values[some])][:_GLIMPSE]


def _glance(run: Run) -> None:
    """For who sees this for the first time: what it is, where to go, and how much of it there is."""
    messages.show_note(
        "Image-caption pairs, scored so that a CLIP is trained on the good ones. Look at pairs, choose what to keep by "
        "their scores, export the uids."
    )
    with st.container(horizontal=True, gap="small", key="next"):
        st.page_link("select.py", label="Choose what to keep", icon=":material/tune:")
        st.page_link("gallery.py", label="Look at pairs", icon=":material/grid_view:")
        if run.projection_file.exists():
            st.page_link("map.py", label="See the map", icon=":material/map:")
    config = run.config
    finished, shards = words.number(len(run.score_files)), words.number(len(config.shards))
    set_aside = "not known yet" if config.skipped_rows is None else words.number(config.skipped_rows)
    cells = {
        "Pairs scored": (
            words.number(run.pairs),
            "Rows of the finished shards, those set aside included.",
        ),
        "Shards": (f"{finished} of {shards}", "A shard is one metadata file of the pool."),
        "Metrics": (words.number(len(run.metrics)), "Score columns of every pair."),
        "Set aside": (set_aside, "Rows whose embeddings could not be used; never selected."),
        "Teacher": (config.arch, "The frozen CLIP whose embeddings were scored."),
    }
    with st.container(horizontal=True, gap="small", key="glance"):
        for name, (value, help_text) in cells.items():
            st.metric(name, value, help=help_text, border=True)


def _progress(entry: Entry, run: Run) -> None:
    """How far the scoring is. run: as the rest of the page shows it."""
    if run.finished or jobs.at_work("score", run.root):
        return
    is_running = _is_running(run)
    if _status(run).state == "done":
        stores.ask_anew(run.root)
    if state.open_run(entry).finished:
        # It ended since the page was begun, or since its store was asked.
        st.rerun()

    def watch() -> None:
        run = state.open_run(entry)
        if run.finished or not _is_running(run):
            st.rerun()
        _draw_progress(run)

    if is_running:
        sessions.fragment(watch, run_every=2)()
    else:
        _draw_progress(run)
        messages.show_empty(
            "This run is unfinished",
            f"{_SO_FAR if run.pairs else ''}The same command goes on where it stopped.",
            messages.score_again(run),
        )
        on: dict[str, Any] = {"type": "primary", "icon": ":material/play_arrow:", "on_click": jobs.resume_scoring}
        if may_be_held(run.root):
            st.button("Go on", key="go on", args=(run,), **on)


def _is_running(run: Run) -> bool:
    """Whether the scoring has said so lately; one that was killed hard leaves "running" behind."""
    status, started_here = _status(run), jobs.latest("score", run.root)
    if started_here and not started_here.active:
        return False
    said = status.updated_at
    return status.state == "running" and said is not None and (datetime.now(UTC) - said).total_seconds() < _SILENCE_S


def _status(run: Run) -> Status:
    """How far the run is; nothing where its status.json is damaged, of which _concerns tells."""
    try:
        return read_status(run.root / "status.json")
    except ClipselError:
        return Status()


def _draw_progress(run: Run) -> None:
    status = _status(run)
    done = run.pairs if status.done is None else status.done
    total = status.total or run.config.pairs or 1
    text = f"{words.number(done)} of {words.pairs(total)} scored"
    speed = status.per_s or 0
    if _is_running(run) and speed > 0:
        text += f" · {words.number(speed)} pairs/s · {words.duration(max(total - done, 0) / speed)} left"
    st.progress(min(done / total, 1.0), text=text)
    if status.state == "failed":
        messages.show_error(status.message or "no message", "Scoring stopped with an error:")


def _concerns(entry: Entry, run: Run) -> None:
    skipped = run.config.skipped_rows
    try:
        read_status(run.root / "status.json")
    except ClipselError as error:
        messages.show_error(error, "How far the scoring was cannot be read; the scores can")
    if skipped:
        st.warning(
            f"Set aside: {counted(skipped, 'rows')} without embeddings that could be scored.",
            icon=":material/warning:",
        )
    scaled = _scaled_rows(entry) if run.config.on_bad_rows == "scale" else 0
    if scaled:
        st.info(f"Scaled to unit length: {counted(scaled, 'rows')} of another length.", icon=":material/straighten:")
    pool = state.find_pool(entry)
    if pool is None and not run.may_read_pool:
        in_store = "The pool lies in a store: no captions and no images unless --read names its address."
        st.info(in_store, icon=":material/cloud:")
        st.code(run.pool_address, language=None, wrap_lines=True)
    elif pool is None and protocol_of(run.pool_address):
        not_read = "The pool's store does not give it: no captions and no images."
        st.warning(not_read, icon=":material/cloud_off:")
        st.code(run.pool_address, language=None, wrap_lines=True)
    elif pool is None:
        st.warning("The pool is not where the run remembers it: no captions and no images.", icon=":material/warning:")
        st.code(run.pool_address, language=None, wrap_lines=True)
    elif not pool.has_images:
        no_images = "The pool has no images of its own: no tars in shards/. Cards show captions and scores."
        st.info(no_images, icon=":material/image:")


@state.per_run(8)
def _scaled_rows(entry: Entry) -> int:
    # Looks into every file of scores, of which there may be thousands.
    return state.open_run(entry).scaled_rows


def _damage(entry: Entry, run: Run) -> ClipselError | None:
    """What is wrong with the run's scores; None where all of them can be shown."""
    try:
        if run.pairs:
            for name in run.metrics:
                registry.marginal(entry, name)
    except ClipselError as error:
        return error
    return None


def _scores(entry: Entry, run: Run) -> None:
    if not run.pairs:
        messages.show_empty("No shard is finished yet", "Scores appear here as soon as the first one is.")
        return
    rows = []
    for name in registry.own_numbers(entry):
        spread = registry.marginal(entry, name)
        low, median, high = (words.unsigned_zero(spread.quantile(percent)) for percent in (5, 50, 95))
        drawn = spread.coarse(_SPARK_BINS)[1].tolist()
        rows.append(
            {"metric": registry.title(entry, name), "spread": drawn, "5 %": low, "median": median, "95 %": high}
        )
    number = st.column_config.NumberColumn
    messages.show_table(
        rows,
        column_config={
            "spread": st.column_config.AreaChartColumn("spread", help="Histogram from lowest to highest score."),
            "5 %": number(format="%.4f", help="5 % of the pairs score less."),
            "median": number(format="%.4f"),
            "95 %": number(format="%.4f", help="5 % of the pairs score more."),
        },
    )
    with st.expander("What each metric measures, and when it misleads"):
        messages.show_facts(
            {registry.title(entry, name): registry.column_of(entry, name).help for name in registry.own_numbers(entry)}
        )


def _cost(run: Run) -> dict[str, str]:
    """What the run was to take, and what it took; nothing of runs that do not know."""
    plan, outcome, facts = run.config.plan, run.config.outcome, {}
    if plan:
        counts = f"{in_units(plan.bytes_read, 'B')} to read, {in_units(plan.operations, 'FLOP')} to compute"
        facts["Planned"] = "; ".join(filter(None, (_time(plan.seconds, plan.cpu_seconds), counts)))
    if outcome:
        took = f"{_time(outcome.seconds, outcome.cpu_seconds)}; {in_units(outcome.bytes_read, 'B')} read"
        took += f", by {counted(outcome.workers, 'workers')}" if outcome.workers > 1 else ""
        if outcome.pairs < run.config.pairs:
            took += f"; known of {words.number(outcome.pairs)} of {words.pairs(run.config.pairs)}"
        facts["Took"] = took
    return facts


def _time(seconds: float | None, cpu_seconds: float | None) -> str:
    said = "" if seconds is None else words.duration(seconds)
    return said if cpu_seconds is None else f"{said} ({words.duration(cpu_seconds)} of one core)"


def _provenance(run: Run) -> None:
    """How the run was made, when its scores were finished and how quickly those of the last start came; its targets."""
    config, status, scored = run.config, _status(run), "not recorded"
    if status.updated_at is not None:
        said, ended = status.updated_at.astimezone(UTC), "finished" if run.finished else "unfinished, last written"
        scored = f"{ended} {said.day} {said:%b %Y, %H:%M} UTC"
        scored += f", at {words.number(status.per_s)} pairs/s" if status.per_s else ""
    batch = words.number(config.batch_size)
    used = dict.fromkeys([*config.norms, *(p for added in run.added_targets for p in added.norms)])
    norms = ", ".join(f"p = {'∞' if p == 'inf' else p}" for p in used)
    messages.show_facts(
        {
            "Run": str(run.root),
            "Pool": run.pool_address,
            "Teacher": f"{config.arch}, width {config.width}, temperature {config.temperature:g}",
            S_CLIPLOSS.title: f"batches of {batch}, {config.divisions} divisions, seed {config.seed}",
            NORMSIM: norms if run.targets else "no target",
            "Computed": f"{_PRECISIONS[config.precision]}, on {config.device.upper()}",
            "Scored": scored,
            **_cost(run),
            "Versions": ", ".join(f"{name} {version}" for name, version in config.versions.items()) or "not recorded",
        }
    )
    st.subheader("Targets")
    if not run.targets:
        known = f"{CLIP_SCORE.title} and {S_CLIPLOSS.title}"
        messages.show_empty(
            "No target",
            f"{NORMSIM} compares the pool with images of the task. Without one, only {known} are known.",
            messages.command("add-target", run.root, "--target", "NAME=TARGET.npy"),
        )
        return
    messages.show_facts({t.name: f"{t.said}, {t.given}, sha256 {t.sha256[:12]}…" for t in run.targets})


show(state.current())
