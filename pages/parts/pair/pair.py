"""What is there to know about one pair? A dialog that walks on through the gallery it was opened from.

It says why the pair has its scores, and is kept or dropped: ranks on histograms, the normalizer's part, each step. And
it shows the pair's neighbours, those with its caption, and the target's nearest images.

The dialog is a fragment: while it is open only it runs again. Where the page is drawn anew meanwhile, as when a job
ends, the gallery draws it again.
"""

from __future__ import annotations

import html
import math
from functools import partial

import numpy as np
import streamlit as st

from clipsel_core import uids
from clipsel_core.curation.exploring.captions import CaptionScan
from clipsel_core.curation.exploring.searches import NearestTargets, nearest_targets
from clipsel_core.curation.exploring.vectors import Side, vector_of
from clipsel_core.curation.index import bitmaps, ranking
from clipsel_core.curation.recipes.recipe import (
    AnyOf,
    AtMost,
    Drop,
    FilterStep,
    Intersect,
    Keep,
    KeepBottom,
    Random,
    Sample,
    Union,
)
from clipsel_core.curation.selecting.selection import Judged, judge_pair
from clipsel_core.errors import ClipselError, counted
from clipsel_core.runs.columns import CLIP_SCORE, NEAREST, R_IMAGE, R_TEXT, S_CLIPLOSS, usual
from clipsel_core.runs.store import TargetInfo
from pages.parts import messages, progress_bars, recipes, registry, search_links, sessions, state, words
from pages.parts.catalog import Entry
from pages.parts.component import component
from pages.parts.gallery import cards, contents, pager
from pages.parts.search import queries, results
from pages.parts.sessions import OpenPair

_CARDS, _STAND_INS = 12, 4
_TWINS = "same caption page"
_SIDES: dict[str, Side] = {"by image": "image", "by caption": "text"}
_BINS = 64
_scores = component(
    "scores",
    '<div class="scores"></div>',
    css=("histogram.css", "pair/scores.css"),
    js=("make.js", "plot.js", "pair/scores.js"),
)
_PARTS = (CLIP_SCORE.name, R_IMAGE.name, R_TEXT.name, S_CLIPLOSS.name)


def draw_opened(entry: Entry, *, gallery: str) -> None:
    """Draws the dialog where a pair of this gallery is open. gallery: tells the page's galleries apart."""
    view = sessions.get(sessions.Pairs)
    if view.opened is not None and view.opened.gallery == (entry.key, gallery):
        sessions.dialog("Pair", width="large", on_dismiss=view.close)(_draw)(entry)


def _draw(entry: Entry) -> None:
    view = sessions.get(sessions.Pairs)
    if view.opened is None:
        # Closed by a message that also said a key, so that only this part of the page ran.
        st.rerun()
    if view.news:
        st.toast(view.news, icon=":material/check:")
        view.news = ""
    row, uid = view.opened.row, cards.uid_of(entry, view.opened)
    metadata = state.open_table(entry).metadata.of(np.array([row]), ("caption", "url"))
    known = {name: str(values[0]) for name, values in metadata.items()}
    _header(view.opened)
    left, right = st.columns([2, 3], gap="medium")
    with left:
        caption = known["caption"][: contents.LONGEST_TEXT] or "no caption"
        src, lack = contents.addresses(entry, [uid], [known["url"]])[0], contents.placeholder(entry)
        pressed = partial(_handle_presses, entry)
        cards.draw_opened(src, alt=caption, lack=lack, uid=uid, pair=view.opened, pressed=pressed)
        st.text(caption)
        show_steps(entry, row)
        _buttons(entry, uid)
        url = known["url"][: contents.LONGEST_TEXT] or "none"
        messages.show_facts({"uid": uid, "url": url, "row": words.number(row)})
    with right:
        tabs = {
            "Scores": partial(draw_scores, entry, row),
            "Look-alikes": partial(draw_neighbours, entry, row),
            "Same caption": partial(draw_same_caption, entry, row, known["caption"]),
        }
        if state.open_run(entry).targets:
            tabs["Target images"] = partial(draw_target_images, entry, row)
        # Only the open tab is worked out, and it stays open from pair to pair.
        for tab, draw in zip(st.tabs(list(tabs), key="pair tab", on_change="rerun"), tabs.values(), strict=True):
            if tab.open:
                with tab:
                    draw()


def _header(opened: OpenPair) -> None:
    place, pairs = opened.place, len(opened.listed)
    turn = partial(sessions.get(sessions.Pairs).turn, opened)

    def go_back() -> None:
        if opened.trail:
            opened.trail.pop()

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for word, icon, step in (("Previous", "left", -1), ("Next", "right", 1)):
            st.button(
                word,
                icon=f":material/chevron_{icon}:",
                help=f"The {icon} arrow",
                key=f"{word} pair",
                on_click=turn,
                args=(step,),
                disabled=not 0 <= place + step < pairs,
            )
        if opened.trail:
            st.button("Back", icon=":material/undo:", key="pair back", on_click=go_back)
            st.text("opened from the pair before")
        else:
            st.text(f"{words.number(place + 1)} of {words.number(pairs)} in this gallery")


@sessions.callback
def _handle_presses(entry: Entry) -> None:
    """Does what the keyboard asked for, and says of what is no longer on show by then that it was judged."""
    run, view = state.open_run(entry), sessions.get(sessions.Pairs)
    before = recipes.by_hand(entry, run)
    cards.handle_presses(entry, cards.OPENED)
    after = recipes.by_hand(entry, run)
    on_show = cards.uid_of(entry, view.opened) if view.opened is not None else ""
    for uid in {uid for uid, _ in before.items() ^ after.items()} - {on_show}:
        done = {"keep": "Kept by hand", "drop": "Dropped by hand", "": "Taken back"}[after.get(uid, "")]
        view.news = f"{done}: pair {uid[:8]}…, which was on show when the key was pressed"


def _buttons(entry: Entry, uid: str) -> None:
    """Buttons that keep or drop the opened pair by hand."""
    run = state.open_run(entry)
    said = recipes.by_hand(entry, run).get(uid)
    with st.container(horizontal=True, gap="small"):
        for kind, word, key, icon in (("keep", "Keep", "K", "check"), ("drop", "Drop", "D", "block")):
            st.button(
                f"Take back: {kind} by hand" if said == kind else f"{word} by hand",
                icon=f":material/{icon}:",
                help=f"The key {key}",
                # A click on the button of a pair that the server has left already is not one on the next pair's.
                key=f"{kind} opened {uid}",
                on_click=recipes.keep_or_drop,
                args=(entry, run, uid, kind),
            )


def draw_scores(entry: Entry, row: int) -> None:
    """Draws a pair's score and rank by every metric of the run, and what the normalizer took."""
    table = state.open_table(entry)
    found = {name: float(table.take(name, np.array([row]))[0]) for name in registry.own_numbers(entry)}
    parts = [found.get(name, np.nan) for name in _PARTS]
    waterfall = _waterfall(entry, *parts) if np.isfinite(parts).all() else None
    scores = []
    for name, value in found.items():
        metric, spread = registry.column_of(entry, name), registry.marginal(entry, name)
        edges, counts = spread.coarse(_BINS)
        known = {
            "title": registry.title(entry, name),
            "help": metric.help,
            "value": words.decimal(value),
            "counts": counts.tolist(),
        }
        if not np.isfinite(value):
            scores.append({**known, "rank": "not scored", "percentile": "", "at": None})
            continue
        rank = ranking.standing(state.ranking(entry, name), value)
        known["rank"] = f"{words.number(rank.rank)} of {words.number(rank.scored)}"
        known["percentile"] = "all alike" if spread.alike else words.percentile(rank.percentile)
        scores.append({**known, "at": min(max((value - edges[0]) / (edges[-1] - edges[0]), 0), 1)})
    _scores(data={"scores": scores, "fall": waterfall}, key="pair scores")


def _waterfall(entry: Entry, clip_score: float, r_image: float, r_text: float, s_cliploss: float) -> dict[str, object]:
    """The waterfall from the cosine down to what is left of it, and what it means in words."""
    steps = [
        (CLIP_SCORE.title, clip_score, 0.0, clip_score, "start"),
        (f"− {R_IMAGE.title}", r_image, clip_score, clip_score - r_image, "taken"),
        (f"− {R_TEXT.title}", r_text, clip_score - r_image, clip_score - r_image - r_text, "taken"),
        (f"= {S_CLIPLOSS.title}", s_cliploss, 0.0, s_cliploss, "end"),
    ]
    low = min(0.0, *(min(start, stop) for _, _, start, stop, _ in steps))
    span = max(0.0, *(max(start, stop) for _, _, start, stop, _ in steps)) - low or 1.0
    drawn = [
        {
            "title": title,
            "value": words.decimal(value),
            "from": (min(start, stop) - low) / span,
            "to": (max(start, stop) - low) / span,
            "kind": kind,
        }
        for title, value, start, stop, kind in steps
    ]
    image, text = (registry.marginal(entry, name) for name in (R_IMAGE.name, R_TEXT.name))
    usual, taken = image.quantile(50) + text.quantile(50), r_image + r_text
    compared = "about as much as" if abs(taken - usual) < 0.005 else "more than" if taken > usual else "less than"
    said = (
        f"The normalizer took {words.decimal(taken)}, {compared} the {words.decimal(usual)} that is usual in this run. "
        f"{words.decimal(r_image)} because the image also fits other captions, "
        f"{_rank_in_words(image, r_image, 'images')}; "
        f"{words.decimal(r_text)} because the caption also fits other images, "
        f"{_rank_in_words(text, r_text, 'captions')}."
    )
    title = f"From {CLIP_SCORE.title} to {S_CLIPLOSS.title}"
    return {"title": title, "zero": -low / span, "steps": drawn, "text": said}


def _rank_in_words(spread: registry.Marginal, value: float, others: str) -> str:
    """How many of the others have less."""
    percent = spread.percentile(value)
    if not percent:
        return f"no more so than any of the {others} do"
    return f"more so than {words.percentage(percent / 100)} of the {others} do"


def show_steps(entry: Entry, row: int) -> None:
    """Draws what the recipe on the Select page does with the pair in a row, a line a step."""
    recipe = recipes.draft_yaml(entry, state.open_run(entry))
    if not recipe:
        messages.show_note("The recipe has no step: every pair is kept.")
        return
    try:
        picked = state.picked(entry, recipe)
        found = judge_pair(picked.picker, picked.recipe, row)
    except ClipselError:
        messages.show_note("A step of the recipe does not fit this run; Select says which.")
        return
    kind = "kept" if found.kept else "dropped"
    if found.set_aside:
        headline = "Set aside when it was scored: no recipe can keep it"
    elif found.decided is None:
        headline = "Kept by the recipe"
    else:
        by_hand = "hand, in " if isinstance(found.decided.step, Keep | Drop) else ""
        headline = f"{kind.capitalize()} by {by_hand}step {found.decided.number} of the recipe"
    lines = ""
    for judged in found.steps:
        sign, how = ("✓", "passes") if judged.after else ("✕", "fails")
        if not judged.before and not judged.after:
            sign, how = "–", "out"
        said, why = html.escape(recipes.step_in_words(entry, judged.step)), html.escape(_reason(judged))
        lines += f'<li class="{how}" value="{judged.number}"><span>{sign}</span><span>{said}</span><i>{why}</i></li>'
    st.html(f'<div class="verdict {kind}"><b>{html.escape(headline)}</b><ol>{lines}</ol></div>')


def _reason(judged: Judged) -> str:
    """What the pair has and what the step asks for."""
    if judged.score is None:
        if isinstance(judged.step, FilterStep | AnyOf | Random | Sample):
            return "" if judged.before else "out before"
        if isinstance(judged.step, Union | Keep):
            return "brought back" if judged.after and not judged.before else "changes nothing"
        if not judged.before:
            return "out before"
        listed = judged.after if isinstance(judged.step, Intersect) else not judged.after
        return "on the list" if listed else "not on the list"
    if math.isnan(judged.score):
        return "not scored"
    if not judged.before:
        return f"{words.decimal(judged.score)}, out before"
    if judged.threshold is None:
        return f"{words.decimal(judged.score)}, keeps none"
    score, threshold = words.decimal(judged.score), words.decimal(judged.threshold)
    if judged.score == judged.threshold and not judged.after:
        return f"{score}, a tie that went to smaller uids"
    if score == threshold:  # The digits that are usually shown do not tell them apart.
        score, threshold = f"{judged.score:.7g}", f"{judged.threshold:.7g}"
    passes, fails = ("≤", ">") if isinstance(judged.step, AtMost | KeepBottom) else ("≥", "<")
    return f"{score} {passes if judged.after else fails} {threshold}"


def draw_neighbours(entry: Entry, row: int) -> None:
    """The pairs whose images or captions have the most similar embeddings, of those that are searched at once.

    Of all pairs where they were searched before; else that is offered.
    """
    side = st.segmented_control("Alike", list(_SIDES), default="by image", required=True, key="alike side")
    table, run = state.open_table(entry), state.open_run(entry)
    uid = uids.to_hex(table.uids_at(np.array([row])))[0].as_py()
    asked = queries.pair_query(uid, row)
    try:
        found, among = results.read_full_search(entry, run, asked, _SIDES[side]), f"all {words.pairs(len(table))}"
        if found is None:
            vector, among = vector_of(table, row, _SIDES[side]), results.describe_sample(entry)
            found = results.find_nearest(entry, vector, _SIDES[side], but=row)
    except ClipselError as error:
        messages.show_error(error, "Look-alikes cannot be found")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        search_links.draw_link("More of them", ":material/search:", key="more alike", like=uid)
        results.offer_full_search(entry, run, asked, _SIDES[side], watch=True)
    messages.show_title(f"Most alike {side}", f"of {among}, by cosine")
    shown = found.first(_CARDS)
    _draw_related(entry, shown.rows, cards.cosine_bars(shown.similarity), "look-alikes")


def draw_same_caption(entry: Entry, row: int, caption: str) -> None:
    """What else exactly this caption was used for. A large pool is read only when that is asked for."""
    table = state.open_table(entry)
    if len(table) > results.AT_ONCE and st.session_state.get("caption asked") != row:
        st.text(f"Looks through the captions of all {words.pairs(len(table))}; takes some seconds.")
        st.button("Find this caption", icon=":material/search:", on_click=_look_through, args=("caption asked", row))
        return
    try:
        asked = (entry.root, state.scores_stamp(entry), caption)
        make = partial(CaptionScan.for_caption, table, caption)
        scan, so_far = progress_bars.search_captions("same caption", asked, make)
    except ClipselError as error:
        messages.show_error(error, "Captions cannot be searched")
        return
    rows = bitmaps.rows(scan.bits)
    others = pager.RowList(rows[rows != row], _CARDS)
    if not len(others):
        messages.show_title("No other pair has this caption", so_far)
        return
    messages.show_title(f"{words.pairs(len(others))} more with exactly this caption", so_far)
    name = usual(table.metrics)
    pager.rewind_on_change(_TWINS, (entry.key, row))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        page = pager.choose_page(_TWINS, others, linked=False)
    shown = others.rows(page)
    _draw_related(entry, shown, cards.score_bars(entry, shown, [name]), "same caption cards", others)


def draw_target_images(entry: Entry, row: int) -> None:
    """Why a pair is near a target or not: the images of each that this pair's image resembles most."""
    for info in state.open_run(entry).targets:
        if info.kind == "moment":
            messages.show_note(f"{info.name} is a second moment: it has no images to show.")
            continue
        asked = f"target asked {info.name}"
        if info.rows > results.AT_ONCE and st.session_state.get(asked) != row:
            look = f"Look through {counted(info.rows, 'images')} of {info.name}"
            st.button(
                look, icon=":material/search:", key=f"look {info.name}", on_click=_look_through, args=(asked, row)
            )
            continue
        try:
            with st.spinner("Comparing …"):
                table = state.open_table(entry)
                found = nearest_targets(table, info.name, vector_of(table, row), limit=_CARDS)
        except ClipselError as error:
            messages.show_error(error, f"The target {info.name} cannot be compared with")
            continue
        if len(found):
            _draw_target(entry, row, info, found)


def _draw_target(entry: Entry, row: int, info: TargetInfo, found: NearestTargets) -> None:
    nearest = registry.title(entry, NEAREST + info.name)
    messages.show_title(f"Nearest of {counted(info.rows, 'images')} of {info.name}", "by absolute cosine")
    text = (
        f"{nearest} is the first of these, {words.decimal(abs(float(found.similarity[0])))}; the rest do not enter it."
    )
    messages.show_note(text)
    if found.pairs:
        _draw_related(entry, found.rows, cards.cosine_bars(found.similarity), f"target {info.name}")
        return
    if found.closest is not None:
        # What a target's image that has no picture looks like.
        alike = results.find_nearest(entry, found.closest, "image", but=row).first(_STAND_INS)
        title = f"Most like the first, row {words.number(found.rows[0])}"
        messages.show_title(title, f"of {results.describe_sample(entry)}, to see what it may show")
        _draw_related(entry, alike.rows, cards.cosine_bars(alike.similarity), f"like target {info.name}")
    st.dataframe(
        {"row of the target": found.rows, "absolute cosine": np.abs(found.similarity.astype(float))},
        hide_index=True,
        column_config={"absolute cosine": st.column_config.ProgressColumn(format="%.4f", min_value=0, max_value=1)},
    )
    st.caption("The target is a file of embeddings without pictures, so its images are named by their row, from 0.")


def _draw_related(
    entry: Entry, rows: np.ndarray, bars: cards.Bars, key: str, twins: pager.RowList | None = None
) -> None:
    """Cards within an opened pair: the one that is opened takes its place. twins: the list that they are a page of."""
    drawn = cards.make_cards(entry, rows, bars)
    row_of = {card.uid: int(row) for card, row in zip(drawn, rows, strict=True)}

    def follow(uid: str) -> None:
        opened = sessions.get(sessions.Pairs).opened
        if opened is not None and uid in row_of:
            opened.trail.append(row_of[uid])

    turned = partial(pager.turn, _TWINS, pager.count_pages(twins)) if twins else None
    pressed = partial(cards.handle_presses, entry, key, follow, turned)
    cards.draw_cards(drawn, key=key, label=key.capitalize(), pressed=pressed, turns=turned is not None)


def _look_through(key: str, row: int) -> None:
    st.session_state[key] = row
