"""How are the steps of a recipe edited? A card each: what it does, how much it keeps, what that does to its metric.

A step is set with a thumb that redraws its histogram and all steps' counts as it moves. Everything that it can show is
sent before it is touched, as raw bytes: a few numbers for each of its places. While it moves the browser asks nobody;
when it is let go Python is told its place, once.

Below them a step is added. The browser takes the keyboard away together with a button that is drawn anew elsewhere, or
not at all; a callback names the button that is to have it then, and the page's next drawing hands it over.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from clipsel_core.curation.index.ranking import COARSE, Shares
from clipsel_core.curation.recipes.recipe import (
    AnyOf,
    AnyStep,
    AtLeast,
    AtMost,
    Between,
    Drop,
    FilterStep,
    Intersect,
    Keep,
    KeepBottom,
    KeepTop,
    Random,
    Sample,
    ScoreStep,
    ShareStep,
    Subtract,
    Union,
    columns_of,
    plain_decimal,
)
from clipsel_core.curation.recipes.uidlists import LIST_ENDINGS
from clipsel_core.curation.selecting.live import Settings, settings_of
from clipsel_core.curation.selecting.selection import Selection, StepReport
from clipsel_core.errors import ClipselError
from clipsel_core.runs.columns import Mix, Standardise
from clipsel_core.runs.store import Run
from pages.parts import charts, messages, recipes, registry, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.charts import Chart
from pages.parts.component import component
from pages.parts.pair import galleries
from pages.parts.select import adders, fields

_PERMILLE = Shares.evenly(1000)
_LAYERS = [
    {"kind": "pool", "name": "pool", "counts": "pool"},
    {"kind": "pass", "name": "passes the other steps", "counts": "others"},
    {"kind": "kept", "name": "kept", "counts": "now"},
]
_RULES = {
    "pool": "top share of pool",
    "survivors": "top share of survivors",
    "lowest pool": "bottom share of pool",
    "lowest survivors": "bottom share of survivors",
    "at_least": "at least",
    "at_most": "at most",
    "between": "between",
}
# Those of the rules that keep a share: their kind, and what it is a share of.
_SHARES: dict[str, tuple[type[KeepTop] | type[KeepBottom], Literal["pool", "survivors"]]] = {
    "pool": (KeepTop, "pool"),
    "survivors": (KeepTop, "survivors"),
    "lowest pool": (KeepBottom, "pool"),
    "lowest survivors": (KeepBottom, "survivors"),
}
_LIMITS: dict[str, type[AtLeast] | type[AtMost] | type[Between]] = {
    "at_least": AtLeast,
    "at_most": AtMost,
    "between": Between,
}
_FIRST_PERCENTILES = {"at_least": (70,), "at_most": (30,), "between": (5, 95)}
_BARE: dict[str, Any] = {"label_visibility": "collapsed"}
_ADD = "add"
# The histogram of a mix follows a weight by so many pairs, in runs of so many.
_WEIGHED, _MOST_WEIGHED = 4096, 4_000_000
_LIST_RULES: dict[str, type[Intersect] | type[Union] | type[Subtract]] = {
    "only those in": Intersect,
    "add those in": Union,
    "leave out those in": Subtract,
}
_control = component(
    "control",
    '<div class="control"><div class="thumb-box"></div><div class="histogram"></div></div>',
    css=("histogram.css", "select/control.css"),
    js=("make.js", "plot.js", "brush.js", "select/mirror.js", "select/weights.js", "select/control.js"),
)
_COUNTS = ("below", "left", "shown", "alone", "pool", "others", "fixed", "now")
_focus = component("keyboard", '<div class="keyboard"></div>', js=("select/keyboard.js",))


@dataclass
class Editor:
    """What a session edits with. list_failed, load_failed: why a list or a saved recipe could not be taken, to be said.

    lists_added: how many. focus: the keys of the buttons that are to have the keyboard, the focus_turn'th time.
    """

    list_failed: Exception | None = None
    load_failed: Exception | None = None
    lists_added: int = 0
    focus: tuple[str, ...] = ()
    focus_turn: int = 0


@dataclass
class _Thumb:
    """The number of a thumb's last move that was heard."""

    heard: float = 0


def hear_thumbs(entry: Entry) -> None:
    """Takes in where thumbs were moved to. Called before anything asks for the draft, on whichever page.

    Streamlit ends a run at any touch of the session, when a later message waits. What the run was told is then taken in
    by the next one, so that what is saved or exported is what the browser shows.
    """
    run = state.open_run(entry)
    # Where a session begins there is no draft yet, and a link may say what it shall be.
    for number, step in sessions.get(recipes.Drafts).by_run.get(entry.key, {}).items():
        if isinstance(step, ScoreStep):
            _hear(entry, run, number, _thumb_key(number, step))


def draw_steps(entry: Entry, run: Run) -> dict[int, DeltaGenerator]:
    """A card for each step of the draft, and in each the place that draw_effects fills, by the step's number."""
    places = {}
    for place, (number, step) in enumerate(recipes.draft(entry, run).items()):
        with st.container(border=True):
            _head(entry, run, number, place, step)
            # The histogram of a mix lies below its weights.
            weighed = isinstance(step, ScoreStep) and step.mix is not None
            above, below = st.container(), st.container()
            places[number] = (below if weighed else above).container(key=f"effect-{number}")
            try:
                with above if weighed else below:
                    if isinstance(step, AnyOf):
                        fields.draw_filters(entry, run, number, step)
                    else:
                        fields.draw_fields(fields.Slot(entry, run, number), step)
            except ClipselError as error:
                messages.show_error(error, "What this step looks at cannot be read")
            if isinstance(step, Keep | Drop):
                with st.expander("Which pairs"):
                    st.code("\n".join(getattr(step, step.kind)), language=None, height=160)
    return places


def draw_effects(entry: Entry, run: Run, picked: state.Picked | None, places: dict[int, DeltaGenerator]) -> None:
    """What each step does. picked: what the whole draft keeps, None where it does not fit the run."""
    earlier = 0  # the enabled steps before it
    for place, (number, step) in enumerate(recipes.draft(entry, run).items()):
        with places[number]:
            if isinstance(step, ScoreStep):
                # Of a column that may not be there nothing is known where the recipe does not fit.
                if picked is not None or set(columns_of(step)) <= set(run.metrics):
                    try:
                        _draw_effect(entry, run, (number, step), place, earlier, picked)
                    except ClipselError as error:
                        messages.show_error(error, "This step cannot be set")
            elif picked is not None and step.enabled and isinstance(step, FilterStep | AnyOf | Random):
                report, pairs = picked.selection.report[earlier], picked.picker.size(())
                passes = f"{words.number(pairs - report.alone_drops)} of the {words.pairs(pairs)} of this run"
                messages.show_note(f"By itself it keeps {passes}")
            elif picked is not None and step.enabled and isinstance(step, Sample):
                kept, report = picked.selection, picked.selection.report[earlier]
                messages.show_note(
                    f"{words.number(kept.samples)} samples of {words.pairs(len(kept))}, none of which comes more than "
                    f"{words.number(max(kept.counts_of_counts(), default=0))} times; "
                    f"{words.number(report.dropped)} are never drawn"
                )
            elif picked is not None and step.enabled and isinstance(step, Intersect | Union | Subtract):
                report = picked.selection.report[earlier]
                if report.listed is not None and report.unknown is not None:
                    listed, unknown = words.number(report.listed), words.number(report.unknown)
                    counted = f"; {words.number(report.samples)} samples" if report.samples is not None else ""
                    messages.show_note(f"{listed} listed, {unknown} not in this run{counted}")
        earlier += step.enabled


def _draw_effect(
    entry: Entry, run: Run, numbered: tuple[int, ScoreStep], place: int, earlier: int, picked: state.Picked | None
) -> None:
    """The thumb and what it does: percent for a share, the column's own range for a threshold."""
    number, step = numbered
    ruler, settings = _ruler(entry, step), None
    head = {**ruler.head(step), "label": f"Step {place + 1}: {_called(entry, step)}"}
    if picked is not None:
        settings = settings_of(picked.picker, picked.recipe, picked.taken, place, ruler.amounts)
        if isinstance(step, KeepBottom):
            settings = turned(settings)
        head |= _effect(entry, step, earlier, settings, picked.selection) | {"recipe": recipes.mark(picked.recipe)}
    key = _thumb_key(number, step)
    head["heard"] = sessions.get(_Thumb, key).heard
    chart = Chart(entry.key, key, recipes.ranked_by(step))
    head |= {"mark": charts.tell_mark(chart), "of": 0}
    heard = {
        "on_moved_change": partial(_hear, entry, run, number, key),
        "on_marked_change": partial(charts.hear_mark, chart),
    }
    sampled = None
    if step.mix and picked is not None:
        names = tuple(name for name, _ in step.mix)
        sampled = _standardised(entry, names, step.standardise or "zscore")
        slot = fields.Slot(entry, run, number)
        head["weights"] = [[fields.slider_class(slot, name), float(weight)] for name, weight in step.mix]
    _control(data=packed(head, settings, sampled), key=key, **heard)
    if picked is not None:
        galleries.draw_marked_interval(entry, chart, COARSE, keeps=picked.selection.holds)


def _thumb_key(number: int, step: ScoreStep) -> str:
    return f"share-{number}" if isinstance(step, ShareStep) else f"{step.kind}-{number}-{step.metric}"


def _hear(entry: Entry, run: Run, number: int, key: str) -> None:
    """Takes in the last move of a thumb, unless that was done.

    By the number of the last move heard the browser tells the answer to an older one, which it must not follow back.
    """
    thumb = sessions.get(_Thumb, key)
    match (st.session_state.get(key) or {}).get("moved"):
        case {"place": int(place), "move": int() | float() as move, **more} if move != thumb.heard:
            typed = more.get("typed")
            _move(entry, run, number, typed if isinstance(typed, str) else place)
            # Once the step is changed, and in its place, so that the run cannot end between the two.
            thumb.heard = move


def turned(settings: Settings) -> Settings:
    """What the places of a keep_bottom do, whose ranks are those of the column turned round, as the column lies."""
    layers = {name: getattr(settings, name)[::-1] for name in ("pool", "others", "fixed", "now")}
    below = settings.scored - settings.below
    return replace(settings, thresholds=-settings.thresholds, below=below, edges=-settings.edges[::-1], **layers)


def draw_adders(entry: Entry, run: Run) -> None:
    """What adds a step: one of the first score that no step uses yet, keeping its better half; of another kind; or
    with a list."""
    used = {name for step in recipes.draft(entry, run).values() for name in columns_of(step)}
    own = {name: registry.column_of(entry, name) for name in registry.own_numbers(entry)}
    # Of what we compute those that say which way is better; whoever brought a column knows what it is for.
    fit = [name for name, column in own.items() if column.direction or column.origin not in ("computed", "target")]
    name = next((name for name in fit if name not in used), run.metrics[0])
    kind = KeepBottom if name in own and own[name].direction == "lower" else KeepTop
    step = kind.model_validate({"column": name, kind.kind: Decimal("0.5")})
    with st.container(horizontal=True, gap="small"):
        st.button("Add a step", icon=":material/add:", key=_ADD, on_click=recipes.add_step, args=(entry, run, step))
        adders.draw_kinds_adder(entry, run)
        _draw_list_adder(entry, run)


def draw_focus() -> None:
    """Hands the keyboard over where that was asked for; nothing is seen. In one place, on every run of the page."""
    editor = sessions.get(Editor)
    _focus(data={"turn": editor.focus_turn, "keys": editor.focus}, key="keyboard")


def _hand_focus(*keys: str) -> None:
    """Has the next drawing give the keyboard to the first of these buttons that is there and can be pressed."""
    editor = sessions.get(Editor)
    editor.focus_turn, editor.focus = editor.focus_turn + 1, keys


def _draw_list_adder(entry: Entry, run: Run) -> None:
    """A panel that adds a step with a list of uids, of the run or uploaded."""
    editor = sessions.get(Editor)
    upload = f"list upload {editor.lists_added}"

    def add_list() -> None:
        """Adds the uploaded list, or else the chosen one, as a step and closes the panel."""
        uploaded, kind = st.session_state.get(upload), _LIST_RULES[st.session_state["list rule"]]
        try:
            name = recipes.store_list(run, uploaded.name, uploaded.getvalue()) if uploaded else None
            counts = {"counts": True} if st.session_state["list counts"] and kind is not Subtract else {}
            step: AnyStep = kind.model_validate({kind.kind: name or st.session_state["list file"], **counts})
        except (ClipselError, OSError) as error:
            editor.list_failed = messages.not_written(error, run.recipes_dir / "lists")
            return
        recipes.add_step(entry, run, step)
        editor.lists_added += 1
        # What was added appears where the panel lies, of which there is another one now.
        st.session_state["list file"] = None

    with st.popover("Add a list", icon=":material/playlist_add:", key=f"lists {editor.lists_added}", on_change="rerun"):
        st.segmented_control("Keep", list(_LIST_RULES), default="only those in", required=True, key="list rule")
        files = recipes.list_files(run)
        where = "a list of this run" if files else "no list in this run's folders yet"
        st.selectbox("List", files, index=None, placeholder=where, key="list file", disabled=not files)
        endings = [ending.removeprefix(".") for ending in LIST_ENDINGS.split(", ")]
        st.file_uploader("Or upload one", endings, key=upload)
        st.caption("Uids as a .npy of dtype u8,u8, one a line in .txt, or a column uid in .csv or .parquet.")
        st.toggle("Count repeats", key="list counts", help="Pairs count as often as the list names them.")
        if editor.list_failed:
            messages.show_error(editor.list_failed, "This list cannot be used")
            editor.list_failed = None
        ready = bool(st.session_state.get(upload) or st.session_state.get("list file"))
        st.button("Add", type="primary", key="add list", disabled=not ready, on_click=add_list)


def _head(entry: Entry, run: Run, number: int, place: int, step: AnyStep) -> None:
    def switch() -> None:
        # A step that is off stays in the recipe and is not applied.
        now = recipes.draft(entry, run).get(number)
        if now is not None:
            on = {"enabled": st.session_state[f"on-{number}"]}
            recipes.change_step(entry, run, number, now.model_copy(update=on))

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{place + 1}**")
        if isinstance(step, ScoreStep | Between):
            rules = list(_RULES)
            again: dict[str, Any] = {"on_change": _rebuild, "args": (entry, run, number), **_BARE}
            if step.column is None:
                rules.remove("between")
                st.markdown("a mix, ")
            else:
                names = list(dict.fromkeys([*registry.offered(entry), step.column]))
                at, titles = names.index(step.column), registry.titles(entry)
                st.selectbox("Metric", names, at, titles, key=f"metric-{number}", width=165, **again)
            st.selectbox(
                "Rule", rules, rules.index(_rule_of(step)), _RULES.__getitem__, key=f"rule-{number}", width=205, **again
            )
        else:
            st.text(recipes.step_in_words(entry, step.model_copy(update={"enabled": True})))
        st.space("stretch")
        st.toggle(f"Step {place + 1} is on", step.enabled, key=f"on-{number}", on_change=switch, **_BARE)
        with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", width="content"):
            _arrange(entry, run, number, place)


def _arrange(entry: Entry, run: Run, number: int, place: int) -> None:
    def shift(by: int) -> None:
        """Moves the step, whose arrow keeps the keyboard; at the end of its way the other one has it."""
        if number in recipes.draft(entry, run):
            recipes.move_step(entry, run, number, by)
            up, down = f"up-{number}", f"down-{number}"
            _hand_focus(*((up, down) if by < 0 else (down, up)))

    def take_out() -> None:
        """Takes the step out; the next one's cross has the keyboard then, or behind the last what adds a step."""
        steps = list(recipes.draft(entry, run))
        if number in steps:
            behind = steps[steps.index(number) + 1 :]
            recipes.change_step(entry, run, number, None)
            _hand_focus(*(f"remove-{other}" for other in behind[:1]), _ADD)

    last = len(recipes.draft(entry, run)) - 1
    arrow: dict[str, Any] = {"type": "tertiary", "on_click": shift}
    up, down = ({**arrow, "args": (by,)} for by in (-1, 1))
    # The style sheet hides the words, which are for those who hear the page.
    icons = {name: f":material/{icon}:" for name, icon in (("up", "arrow_upward"), ("down", "arrow_downward"))}
    earlier, later, out = f"Run step {place + 1} earlier", f"Run step {place + 1} later", f"Take step {place + 1} out"
    st.button(earlier, icon=icons["up"], key=f"up-{number}", help=earlier, disabled=place == 0, **up)
    st.button(later, icon=icons["down"], key=f"down-{number}", help=later, disabled=place == last, **down)
    st.button(out, icon=":material/close:", key=f"remove-{number}", help=out, type="tertiary", on_click=take_out)


def _rule_of(step: ScoreStep | Between) -> str:
    shares = (rule for rule, made in _SHARES.items() if made == (type(step), getattr(step, "of", "")))
    return next(shares, step.kind)


@sessions.callback
def _rebuild(entry: Entry, run: Run, number: int) -> None:
    """The step anew after its column or rule changed; a share stays, a threshold starts at a round percentile."""
    old = recipes.draft(entry, run).get(number)
    if not isinstance(old, ScoreStep | Between):
        return
    rule = st.session_state[f"rule-{number}"]
    said: dict[str, Any] = {"enabled": old.enabled}
    if old.column is not None:
        said["column"] = chosen = st.session_state[f"metric-{number}"]
        said["defined"] = tuple(defined for defined in old.defined if defined[0] == chosen)
        metric = old.meant_by(chosen)
    elif isinstance(old, ScoreStep):
        said |= {"mix": old.mix, "standardise": old.standardise, "missing": old.missing}
        metric = recipes.ranked_by(old)
    if rule in _SHARES:
        kind, of = _SHARES[rule]
        said |= {kind.kind: old.part if isinstance(old, ShareStep) else Decimal("0.5"), "of": of}
        made: AnyStep = kind.model_validate(said)
    else:
        limit = _LIMITS[rule]
        ends = registry.short_quantiles(entry, metric, _FIRST_PERCENTILES[rule])
        said[limit.kind] = ends if limit is Between else ends[0]
        made = limit.model_validate(said)
    recipes.change_step(entry, run, number, made)


@state.per_run(8)
def _standardised(entry: Entry, names: tuple[str, ...], standardise: Standardise) -> np.ndarray | None:
    """What a mix weighs, of some pairs drawn at random: (columns, M) float32, NaN where a pair has none.

    None where the run is so large that it takes longer than it is worth.
    """
    table = state.open_table(entry)
    if len(table) > _MOST_WEIGHED:
        return None
    rows = np.random.default_rng(0).choice(len(table), min(len(table), _WEIGHED), replace=False)
    return np.stack([table.take(Mix(((name, Decimal(1)),), standardise).name, rows) for name in names])


def packed(head: dict[str, Any], settings: Settings | None, sampled: np.ndarray | None = None) -> bytes:
    """One message: the length of the words (4 bytes), the words as JSON, padding to 4, then numbers of 4 bytes each.

    head: what is said as words and single numbers, as mirror.js reads it. settings: what each place of the thumb would
    do, None where the recipe does not fit the run. sampled: what a mix weighs, of some pairs.
    head["arrays"] names them in order, each with its length: thresholds, float32 as scores are, and counts, uint32.
    """
    arrays = {}
    if settings is not None:
        arrays["thresholds"] = settings.thresholds.astype("<f4")
        arrays.update((name, getattr(settings, name).ravel().astype("<u4")) for name in _COUNTS)
    if sampled is not None:
        arrays["sampled"] = sampled.ravel().astype("<f4")
    said = {**head, "arrays": [[name, len(values)] for name, values in arrays.items()]}
    text = json.dumps(said).encode()
    padding = b" " * (-len(text) % 4)
    start = struct.pack("<I", len(text) + len(padding))
    return b"".join((start, text, padding, *(values.data for values in arrays.values())))


@sessions.callback
def _move(entry: Entry, run: Run, number: int, moved: int | str) -> None:
    """Takes the place that the thumb was let go at into the step, as the short decimal that was shown; or what was
    typed, digit for digit, unless the step cannot have it.
    """
    step = recipes.draft(entry, run).get(number)
    if not isinstance(step, ScoreStep):
        return
    try:
        if not isinstance(moved, str):
            amount = _ruler(entry, step).amount(moved)
        elif isinstance(step, ShareStep):  # percent as a fraction, with all its digits
            amount = Context(prec=100).multiply(Decimal(moved), Decimal("0.01"))
        else:
            amount = float(moved)
        made = type(step).model_validate({**step.model_dump(), step.kind: amount})
    except (ArithmeticError, ValueError):
        return
    recipes.change_step(entry, run, number, made)


@dataclass(frozen=True)
class _Ruler:
    """The places of a thumb. amounts: what each stands for. start, pace, suffix: the same in the unit shown."""

    amounts: Shares | np.ndarray
    start: float
    pace: float
    suffix: str

    def amount(self, place: int) -> Decimal | float:
        """What a place stands for; the nearest end's where it lies beyond."""
        place = min(max(place, 0), len(self.amounts) - 1)
        if isinstance(self.amounts, Shares):
            return Decimal(int(self.amounts.parts[place])) / self.amounts.whole
        return float(self.amounts[place])

    def head(self, step: ScoreStep) -> dict[str, Any]:
        """What the control must know to draw the thumb where the step has it."""
        own, shared = getattr(step, step.kind), isinstance(step, ShareStep)
        value = float(own * 100) if shared else float(own)
        last, digits = len(self.amounts) - 1, registry.digits_of(self.pace)
        place = min(max(round((value - self.start) / self.pace), 0), last)
        exact = plain_decimal(own * 100) if shared else f"{value:.15g}"
        return {
            "least": 0 if shared else None,
            "most": 100 if shared else None,
            "start": self.start,
            "pace": self.pace,
            "digits": digits,
            "suffix": self.suffix,
            "places": last + 1,
            "place": place,
            "amount": f"{value:.{digits}f}{self.suffix}" if self.amount(place) == own else f"{exact}{self.suffix}",
        }


def _ruler(entry: Entry, step: ScoreStep) -> _Ruler:
    if isinstance(step, ShareStep):
        return _Ruler(_PERMILLE, 0.0, 0.1, " %")
    low, high, pace = registry.thumb_scale(entry, step.metric)
    return _Ruler(_values(low, high, pace), low, pace, "")


@lru_cache(maxsize=64)
def _values(low: float, high: float, pace: float) -> np.ndarray:
    """The short decimals from low to high that are `pace` apart."""
    return np.array(
        [round(low + place * pace, registry.digits_of(pace)) for place in range(round((high - low) / pace) + 1)]
    )


def _effect(entry: Entry, step: ScoreStep, earlier: int, settings: Settings, picked: Selection) -> dict[str, Any]:
    """The metric's histogram in three layers: the pool, what the other steps let through, what is kept in the end.

    And what the funnel and the other cards say as the step stands. earlier: the enabled steps before it.
    """
    low, high, metric = float(settings.edges[0]), float(settings.edges[-1]), recipes.ranked_by(step)
    behind = picked.report[earlier:] if step.enabled else ()
    report = behind[0] if behind else None
    title, says = _heading(entry, step, report, settings.scored)
    marks = []
    if report is not None and report.threshold is not None and low - 1e-9 <= report.threshold <= high + 1e-9:
        # The threshold's line, where it lies within the scores.
        nearest = int(np.nanargmin(np.abs(settings.thresholds - report.threshold)))
        percentile = words.percentile(100 * settings.below[nearest] / max(settings.scored, 1))
        text, at = f"{words.decimal(report.threshold)} · {percentile}", (report.threshold - low) / ((high - low) or 1.0)
        marks = [{"at": at, "text": text, "kind": "line"}]
    return {
        "title": title,
        "says": says,
        "words": recipes.step_in_words(entry, step),
        "rule": recipes.step_in_words(entry, step, "{}"),
        "row": 1 + earlier,
        "stands": [other.kept_after for other in behind],
        "drops": report.alone_drops if report else 0,
        "note": registry.title(entry, metric) if step.mix else registry.column_of(entry, metric).help,
        "metric": _called(entry, step),
        "on": step.enabled,
        "upward": not isinstance(step, AtMost | KeepBottom),
        "absolute": not isinstance(step, ShareStep),
        "low": low,
        "high": high,
        "unit": registry.unit_of(registry.column_of(entry, metric)),
        "log": False,
        "height": 110,
        "legend": True,
        "layers": _LAYERS,
        "marks": marks,
        "reaching": settings.reaching,
        "scored": settings.scored,
        "total": picked.total,
        "exact": settings.exact,
    }


def _called(entry: Entry, step: ScoreStep) -> str:
    """What a card calls what its step ranks or compares: a mix is written out below."""
    return "Mix" if step.mix else registry.title(entry, recipes.ranked_by(step))


def _heading(entry: Entry, step: ScoreStep, report: StepReport | None, scored: int) -> tuple[str, str]:
    """What the card says as the step stands; and what stands before its counts while another thumb moves. Which score a
    share ends at is not known then."""
    title = _called(entry, step)
    if report is None:
        return f"{title}: this step is off", title
    if not scored:
        return f"{title}: no pair of this run has a score", title
    if report.threshold is None:
        return f"{title}: this step keeps none", title
    rule = f"{title} {'≤' if isinstance(step, AtMost | KeepBottom) else '≥'} {words.decimal(report.threshold)}"
    before, after = words.number(report.kept_before), words.number(report.kept_after)
    return f"{rule} keeps {after} of {before}", title if isinstance(step, ShareStep) else rule
