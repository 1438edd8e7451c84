"""An opened pair shows its own scores, ranks and relatives."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clipsel_core import uids
from clipsel_core.curation.exploring.searches import SearchQuery, search_run, write_search
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.jobs.control import listing
from clipsel_core.runs.store import Run
from pages.parts import catalog
from pages.parts.search import results
from tests.jobs import stand_in
from tests.jobs.stand_in import ended
from tests.pages.conftest import components, press, trigger, words
from tests.pages.test_open import DEMO
from tests.pages.worlds import LACKING, make_run, scores


def open_card(app, place: int, tab: str = "Scores"):
    element = next(element for element in app.get("bidi_component") if element.proto.component_name == "clipsel_cards")
    app.session_state["pair tab"] = tab
    uid = components(app, "clipsel_cards")[0]["cards"][place]["uid"]
    press(app, element.proto.id, "open", uid=uid)
    assert not app.exception
    return uid


def test_pair__every_score_with_rank_and_percentile(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world"))
    uid = open_card(app, 7)
    (drawn,) = components(app, "clipsel_scores")
    assert uid in words(app)
    assert "8 of 60 in this gallery" in words(app)
    row = 59 - 7
    for shown, (name, values) in zip(drawn["scores"], scores(60).items(), strict=True):
        rank = 1 + (values > values[row]).sum()
        assert shown["rank"] == f"{rank} of 60", name
        below = f"P{100 * (values < values[row]).mean():.1f}"
        assert shown["percentile"] == (below if np.ptp(values) else "all alike")
        assert sum(shown["counts"]) == 60
        if np.ptp(values):
            assert shown["at"] == pytest.approx((values[row] - values.min()) / np.ptp(values), abs=1e-6)


def verdict(app) -> str:
    (said,) = (element.proto.body for element in app.get("html") if 'class="verdict' in element.proto.body)
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", said)).split())


def test_pair__says_which_step_dropped_it(tmp_path, open_page):
    """In the suggested recipe the top 18 by s-CLIPLoss, rows 42 to 59, then the 12 lowest of these, by NormSim."""
    app = open_page("gallery", make_run(tmp_path / "world"))
    open_card(app, 0)
    assert verdict(app).startswith(
        "Dropped by step 2 of the recipe ✓ top 30 % of the pool by s-CLIPLoss 0.4833 ≥ 0.2000"
    )
    assert verdict(app).endswith("✕ top 20 % of the pool by NormSim ∞ · task 0.0167 < 0.1167")
    open_card(app, 17)
    assert verdict(app).startswith("Kept by the recipe")
    uid = open_card(app, 18)
    assert verdict(app).startswith("Dropped by step 1 of the recipe ✕ top 30 %")
    assert verdict(app).endswith("0.3167, out before")
    app.button(key=f"keep opened {uid}").click().run()
    assert verdict(app).startswith("Kept by hand, in step 3 of the recipe")
    app.button(key=f"drop opened {uid}").click().run()
    assert verdict(app).startswith("Dropped by step 1 of the recipe")


def test_pair__says_that_a_tie_went_to_smaller_uids(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world", **LACKING["equal_scores"]))
    open_card(app, 0)
    assert "✕ top 30 % of the pool by s-CLIPLoss 0.2500, a tie that went to smaller uids" in verdict(app)


def test_pair__stays_open_when_the_page_is_drawn_anew(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world"))
    open_card(app, 7)
    app.button(key="Next pair").click().run()
    app.run()
    assert "9 of 60 in this gallery" in words(app)
    app.switch_page("select.py").run()
    app.switch_page("gallery.py").run()
    assert "in this gallery" not in words(app)


def pressed(app, presses: Sequence[dict], component: str = "clipsel_picture") -> None:
    """Keys in the opened pair, as the browser reports them, by its picture or by the gallery under it."""
    element = next(part for part in app.get("bidi_component") if part.proto.component_name == component)
    trigger(app, element.proto.id, "pressed", list(presses))
    assert not app.exception


def by_hand(app) -> dict[str, str]:
    cards = components(app.run(), "clipsel_cards")[0]["cards"]
    return {card["uid"]: card["badge"] for card in cards if "hand" in card["badge"]}


def test_pair__a_key_judges_the_pair_that_the_browser_showed(tmp_path, open_page):
    """What is pressed while the next pair is on its way is about the one before; then the page says so."""
    app = open_page("gallery", make_run(tmp_path / "world"))
    seen = open_card(app, 7)
    picture = components(app, "clipsel_picture")[0]
    assert picture["uid"] == seen
    pressed(app, [{"press": 1, "pair": picture["pair"], "kind": "turn", "by": 1}])
    assert "9 of 60 in this gallery" in words(app)
    pressed(app, [{"press": 2, "pair": picture["pair"], "kind": "keep", "uid": seen}])
    assert "9 of 60 in this gallery" in words(app)
    assert [toast.value for toast in app.toast] == [
        f"Kept by hand: pair {seen[:8]}…, which was on show when the key was pressed"
    ]
    on_show = components(app, "clipsel_picture")[0]["uid"]
    pressed(app, [{"press": 3, "pair": picture["pair"], "kind": "drop", "uid": on_show}])
    assert not app.toast
    assert verdict(app).startswith("Dropped by hand")
    assert by_hand(app) == {seen: "kept by hand", on_show: "dropped by hand"}


@pytest.mark.parametrize("closed", [False, True])
def test_pair__a_key_after_an_arrow_judges_the_pair_that_the_arrow_leads_to(tmp_path, open_page, closed):
    """Once, however often the browser says it, and also where the pair is closed by then."""
    app = open_page("gallery", make_run(tmp_path / "world"))
    names = [card["uid"] for card in components(app, "clipsel_cards")[0]["cards"]]
    open_card(app, 7)
    pair = components(app, "clipsel_picture")[0]["pair"]
    keys = [("turn", 1), ("keep", 0), ("turn", 1), ("turn", 1), ("drop", 0), ("turn", -1)]
    presses = [
        {"press": number, "pair": pair, "kind": kind, **({"by": by} if by else {"uid": ""})}
        for number, (kind, by) in enumerate(keys, 1)
    ]
    if closed:
        app.session_state["pages.parts.sessions.Pairs "].close()
        app.run()
        assert not components(app, "clipsel_picture")
    for upto in (1, 3, 6, 6):
        pressed(app, presses[:upto], "clipsel_cards" if closed else "clipsel_picture")
    assert by_hand(app) == {names[8]: "kept by hand", names[10]: "dropped by hand"}
    view = app.session_state["pages.parts.sessions.Pairs "]
    assert (view.last[1] if closed else view.opened.place) == 9


def test_pair__a_key_of_one_that_is_long_gone_does_nothing(tmp_path, open_page):
    """Another pair was opened and closed since, so nobody knows what it is about."""
    app = open_page("gallery", make_run(tmp_path / "world"))
    open_card(app, 7)
    gone = components(app, "clipsel_picture")[0]["pair"]
    for place in (3, 5):
        app.session_state["pages.parts.sessions.Pairs "].close()
        open_card(app, place)
    keep = {"kind": "keep", "uid": ""}
    turn = {"kind": "turn", "by": 1}
    for number, said in enumerate((turn, keep, {**keep, "pair": -1}, {**keep, "uid": 5}, {**turn, "by": 9}), 1):
        pressed(app, [{"press": number, "pair": gone, **said}])
    assert by_hand(app) == {}
    assert "6 of 60 in this gallery" in words(app)


def test_pair__arrows_go_no_further_than_the_gallery(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world"))
    open_card(app, 1)
    pair = components(app, "clipsel_picture")[0]["pair"]
    for number in (1, 2, 3):
        pressed(app, [{"press": number, "pair": pair, "kind": "turn", "by": -1}])
    assert "1 of 60 in this gallery" in words(app)


def test_pair__the_waterfall_adds_up(open_page):
    app = open_page("gallery", DEMO)
    open_card(app, 3)
    fall = components(app, "clipsel_scores")[0]["fall"]
    clip, image, text, loss = (float(step["value"]) for step in fall["steps"])
    assert clip - image - text == pytest.approx(loss, abs=2e-4)
    ends = [(step["from"], step["to"]) for step in fall["steps"]]
    assert ends[0][1] == pytest.approx(ends[1][1])
    assert ends[1][0] == pytest.approx(ends[2][1])
    assert fall["title"] == "From CLIPScore to s-CLIPLoss"
    assert fall["zero"] in (pytest.approx(ends[3][0]), pytest.approx(ends[3][1]))
    assert f"The normalizer took {image + text:.3f}" in fall["text"]


def test_pair__without_scores_there_is_no_waterfall(tmp_path, open_page):
    gone = {name: np.where(np.arange(60) == 0, np.nan, 0.5) for name in ("clip_score", "s_cliploss")}
    app = open_page("gallery", make_run(tmp_path / "world", changed=gone))
    app.selectbox(key="metric").set_value("r_image").run()
    app.button_group(key="order").set_value("lowest").run()
    open_card(app, 0)
    (drawn,) = components(app, "clipsel_scores")
    assert drawn["fall"] is None
    assert [shown["rank"] for shown in drawn["scores"][:2]] == ["not scored", "not scored"]


def test_pair__same_caption(tmp_path, open_page):
    captions = ["twice", "Twice", "twice", "<b>thrice</b>"] + ["<b>thrice</b>"] * 20
    app = open_page("gallery", make_run(tmp_path / "world", captions=captions, pairs=(30, 30)))
    app.button_group(key="order").set_value("lowest").run()
    open_card(app, 0, "Same caption")
    assert "1 pair more with exactly this caption" in words(app)
    assert [card["caption"] for card in components(app, "clipsel_cards")[1]["cards"]] == ["twice"]
    open_card(app, 3, "Same caption")
    assert "20 pairs more with exactly this caption" in words(app)
    first = [card["uid"] for card in components(app, "clipsel_cards")[1]["cards"]]
    assert len(first) == 12
    app.button(key="next same caption page").click().run()
    second = [card["uid"] for card in components(app, "clipsel_cards")[1]["cards"]]
    assert "of 2" in words(app)
    assert len(set(first + second)) == 20
    assert "same caption page" not in app.query_params
    open_card(app, 4, "Same caption")
    assert len(components(app, "clipsel_cards")[1]["cards"]) == 12
    open_card(app, 1, "Same caption")
    assert "No other pair has this caption" in words(app)


def test_pair__a_large_pool_is_read_only_on_request(tmp_path, open_page, monkeypatch):
    monkeypatch.setattr(results, "AT_ONCE", 10)
    app = open_page("gallery", make_run(tmp_path / "world", projection=False))
    open_card(app, 0, "Same caption")
    assert "Looks through the captions of all 60 pairs" in words(app)
    assert "No other pair" not in words(app)


def test_pair__look_alikes_are_the_largest_cosines(open_page):
    app = open_page("gallery", DEMO)
    uid = open_card(app, 5, "Look-alikes")
    shown = [card["uid"] for card in components(app, "clipsel_cards")[1]["cards"]]
    table = ScoreTable.open(Run.open(DEMO))
    images = np.concatenate(
        [np.load(shard.npz.path)["demo_img"].astype(np.float64) for shard in table.metadata.pool.shards]
    )
    row = table.rows_of(uids.from_hex([uid]))[0]
    nearest = [other for other in np.argsort(-(images @ images[row]), kind="stable") if other != row][:12]
    assert set(shown) == set(uids.to_hex(table.uids_at(np.array(nearest))).to_pylist())


def test_pair__target_images_explain_normsim(open_page):
    app = open_page("gallery", DEMO)
    uid = open_card(app, 5, "Target images")
    table = ScoreTable.open(Run.open(DEMO))
    value = table.take("normsim_inf_task", table.rows_of(uids.from_hex([uid])))[0]
    assert f"NormSim ∞ · task is the first of these, {value:.4f}" in words(app)
    assert app.dataframe[0].value["absolute cosine"].iloc[0] == pytest.approx(value, abs=1e-5)


def test_pair__a_target_image_without_a_picture_is_shown_by_what_it_is_like(open_page):
    app = open_page("gallery", DEMO)
    uid = open_card(app, 5, "Target images")
    table = ScoreTable.open(Run.open(DEMO))
    first = app.dataframe[0].value["row of the target"].iloc[0]
    target = np.load(DEMO.parent / "target" / "task.npy").astype(np.float64)[first]
    images = np.concatenate(
        [np.load(shard.npz.path)["demo_img"].astype(np.float64) for shard in table.metadata.pool.shards]
    )
    row = table.rows_of(uids.from_hex([uid]))[0]
    nearest = [other for other in np.argsort(-(images @ target), kind="stable") if other != row][:4]
    shown = [card["uid"] for card in components(app, "clipsel_cards")[1]["cards"]]
    assert set(shown) == set(uids.to_hex(table.uids_at(np.array(nearest))).to_pylist())


@pytest.mark.parametrize("tab", ["Look-alikes", "Target images"])
def test_pair__says_what_is_missing(tmp_path, open_page, tab):
    app = open_page("gallery", make_run(tmp_path / "world"))
    open_card(app, 0, tab)
    assert "cannot be" in words(app)


def test_pair__look_alikes_in_the_whole_pool_are_a_job_and_stay(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "AT_ONCE", 100)
    run = shutil.copytree(DEMO, tmp_path / "demo" / "run", ignore=shutil.ignore_patterns("exports", "cache"))
    (tmp_path / "demo" / "pool").symlink_to(DEMO.parent / "pool")
    stand_in.install(tmp_path / "home", monkeypatch)
    app = open_page("gallery", run)
    uid = open_card(app, 0, "Look-alikes")
    assert "of the 3,800 pairs on the map, by cosine" in words(app)
    app.button(key="search all").click().run()
    (job,) = listing(catalog.jobs_folder())
    assert (job.command, job.info.title) == ("search", f"Images like pair {uid[:8]}…")
    assert f"--uid={uid}" in job.info.words
    open_card(app, 0, "Look-alikes")
    assert app.button(key=f"cancel watched {job.id}")
    app.button(key=f"cancel watched {job.id}").click().run()
    assert ended(job) == "cancelled"
    result = search_run(Run.open(run), uid, limit=20)
    said = SearchQuery(query=uid, by="uid", side="image", among="pool", pairs=result.pairs)
    out = next(word for word in job.info.words if word.startswith("--out=")).removeprefix("--out=")
    write_search(Path(out), result, said)
    open_card(app, 0, "Look-alikes")
    assert "of all 3,800 pairs, by cosine" in words(app)
    assert [card["uid"] for card in components(app, "clipsel_cards")[1]["cards"]] == result.names[:12]
    assert f"kept={Path(out).name}" in [link.proto.query_string for link in app.get("page_link")]
