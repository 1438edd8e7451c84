"""The Gallery lists the pairs that it says it lists, in the order that it says."""

from __future__ import annotations

import json
from threading import Event

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsel_core import reach, tasks, uids
from clipsel_core.curation.exploring.captions import CaptionScan
from clipsel_core.curation.index.score_table import ScoreTable
from clipsel_core.curation.recipes.recipe import Intersect
from clipsel_core.runs.store import Run
from pages.parts import pictures
from pages.parts.catalog import Entry
from pages.parts.gallery import contents
from tests.pages.conftest import components, press, trigger, words
from tests.pages.worlds import HOSTILE, make_run
from tests.waiting import PATIENCE_S


@pytest.fixture
def app(tmp_path, open_page):
    return open_page("gallery", make_run(tmp_path / "world"))


def captions(app) -> list[str]:
    return [card["caption"] for card in components(app, "clipsel_cards")[0]["cards"]]


def bars(app) -> list[str]:
    return [bar.proto.text for bar in app.get("progress")]


def rows(app) -> list[int]:
    return [int(caption.split()[-1]) for caption in captions(app)]


def test_gallery__highest_first(app):
    assert rows(app) == list(range(59, 11, -1))
    assert "of 2\n60 pairs" in words(app)


def test_gallery__turns_pages(app):
    app.button(key="next page").click().run()
    assert rows(app) == list(range(11, -1, -1))
    assert app.button(key="next page").disabled
    app.button(key="previous page").click().run()
    assert rows(app)[0] == 59


def test_gallery__lowest_first(app):
    app.button_group(key="order").set_value("lowest").run()
    assert rows(app)[:3] == [0, 1, 2]


def test_gallery__random_is_the_same_for_a_seed(app):
    app.button_group(key="order").set_value("random").run()
    first = rows(app)
    assert first != sorted(first)
    app.number_input(key="seed").set_value(1).run()
    second = rows(app)
    app.number_input(key="seed").set_value(0).run()
    assert rows(app) == first != second


@pytest.mark.parametrize("show", ["kept", "dropped", "all"])
def test_gallery__a_list_that_is_written_over_changes_what_is_kept(tmp_path, open_page, show):
    run = make_run(tmp_path / "world")
    names = uids.to_hex(ScoreTable.open(Run.open(run)).uids()).to_pylist()
    (run / "recipes").mkdir(exist_ok=True)
    (run / "recipes" / "mine.txt").write_text(names[0])
    app = open_page("gallery", run)
    key = Entry("", run.resolve()).key
    app.session_state["pages.parts.recipes.Drafts "].by_run[key] = {1: Intersect(intersect="mine.txt")}
    app.button_group(key="show").set_value(show)
    for kept in (range(3, 9), range(40)):
        (run / "recipes" / "mine.txt").write_text("\n".join(names[row] for row in kept))
        wanted = {"kept": [*kept], "dropped": [row for row in range(60) if row not in kept], "all": range(60)}[show]
        assert rows(app.run()) == sorted(wanted, reverse=True)[:48]
        badges = [card["badge"] for card in components(app, "clipsel_cards")[0]["cards"]]
        assert show != "all" or badges == ["kept" if row in kept else "dropped" for row in rows(app)]


def test_gallery__kept_and_dropped_share_out_the_pool(app):
    app.button_group(key="show").set_value("kept").run()
    kept = rows(app)
    assert len(kept) == 12
    assert sorted(kept) == list(range(42, 54))
    app.button_group(key="show").set_value("dropped").run()
    dropped = rows(app)
    app.button_group(key="show").set_value("all").run()
    badges = {card["caption"]: card["badge"] for card in components(app, "clipsel_cards")[0]["cards"]}
    assert len(dropped) == 48
    assert not set(kept) & set(dropped)
    assert {int(caption.split()[-1]) for caption, badge in badges.items() if badge == "kept"} == set(kept)


def test_gallery__jumps_to_a_percentile(app):
    app.number_input(key="jump").set_value(5.0).run()
    assert 3 in rows(app)
    assert app.number_input(key="page").value == 2
    # The field asks anew, and the card is marked: 5 % of the scores i / 60 are below number 3.
    assert app.number_input(key="jump").value is None
    assert rows(app)[components(app, "clipsel_cards")[0]["at"]] == 3
    app.number_input(key="jump").set_value(95.0).run()
    assert app.number_input(key="page").value == 1
    app.button_group(key="order").set_value("lowest").run()
    app.number_input(key="jump").set_value(5.0).run()
    assert rows(app)[components(app, "clipsel_cards")[0]["at"]] == 3


def test_gallery__cards_hold_score_percentile_and_address(app):
    card = components(app, "clipsel_cards")[0]["cards"][0]
    assert card["bars"][0]["value"] == "0.9833"
    assert card["bars"][0]["rank"] == "P98.3"
    assert card["src"].startswith("/pairs/")
    assert card["src"].endswith(card["uid"])


def test_gallery__a_pair_without_images_has_no_address(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world", images=False))
    assert {card["src"] for card in components(app, "clipsel_cards")[0]["cards"]} == {""}


def test_gallery__a_pool_with_an_image_index_and_no_tars_has_addresses(tmp_path, open_page):
    run = make_run(tmp_path / "world", images=False)
    index = tmp_path / "world" / "pool" / "images" / "00000000.parquet"
    index.parent.mkdir()
    reach.remember_sources([str(tmp_path)])
    where = {"file": pa.array(["0.jpg"]).dictionary_encode(), "offset": [0], "length": [9]}
    table = pa.table({"uid_hi": np.uint64([7]), "uid_lo": np.uint64([0]), **where})
    pq.write_table(table.replace_schema_metadata({"base": str(tmp_path), "image_column": ""}), index)
    cards = components(open_page("gallery", run), "clipsel_cards")[0]["cards"]
    assert all(card["src"] for card in cards)


def test_gallery__is_there_while_images_are_found_and_shows_how_far_it_is(tmp_path, open_page, monkeypatch):
    monkeypatch.setattr(tasks, "_AT_ONCE_S", 0)
    told, go_on, find = Event(), Event(), pictures.open_images

    def slowly(pool, cache, gone, *given):
        def wait(done, total, unit):
            gone(done, total, unit)
            if done:
                told.set()
                go_on.wait(PATIENCE_S)

        return find(pool, cache, wait, *given)

    monkeypatch.setattr(pictures, "open_images", slowly)
    app = open_page("gallery", make_run(tmp_path / "world"))
    assert told.wait(PATIENCE_S)
    app.run()
    cards = components(app, "clipsel_cards")[0]["cards"]
    assert {(card["src"], card["lack"]) for card in cards} == {("", "not found yet")}
    assert "Finding images: 1 of 2 files gone through" in bars(app)
    go_on.set()
    monkeypatch.setattr(tasks, "_AT_ONCE_S", PATIENCE_S)
    pictures.find_images(Entry("world/run", tmp_path / "world" / "run")).work.wait(PATIENCE_S)
    app.run()
    assert all(card["src"] for card in components(app, "clipsel_cards")[0]["cards"])
    assert bars(app) == []


def test_cards__show_images_that_are_found_while_they_are_drawn(tmp_path, open_page, monkeypatch):
    """Between the cards, which have none yet, and the bar that would say so."""
    monkeypatch.setattr(tasks, "_AT_ONCE_S", 0)
    go_on, find, show = Event(), pictures.open_images, contents.show_search

    def slowly(*given):
        go_on.wait(PATIENCE_S)
        return find(*given)

    def show_late():
        go_on.set()
        pictures.find_images(Entry("world/run", tmp_path / "world" / "run")).work.wait(PATIENCE_S)
        show()

    monkeypatch.setattr(pictures, "open_images", slowly)
    monkeypatch.setattr(contents, "show_search", show_late)
    # The page that is opened first; another one would find the images found.
    app = open_page("overview", make_run(tmp_path / "world"))
    assert all(card["src"] for card in components(app, "clipsel_cards")[0]["cards"])
    assert bars(app) == []


def test_gallery__captions_go_nowhere_but_into_the_component(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world", captions=HOSTILE))
    app.button(key="next page").click().run()
    assert HOSTILE[0] in captions(app)
    assert max(map(len, captions(app))) <= 2_000
    assert "window.pwned" not in words(app)
    assert "evil.example" not in json.dumps(words(app))


def test_gallery__pages_far_on_hold_what_comes_there(tmp_path, open_page):
    app = open_page("gallery", make_run(tmp_path / "world", pairs=(900, 60)))
    listed = rows(app)
    for _ in range(19):
        app.button(key="next page").click().run()
        listed += rows(app)
    assert listed == list(range(959, -1, -1))


def judge(app, key: str, place: int):
    """K or D on a card, as the browser reports it."""
    element = next(element for element in app.get("bidi_component") if element.proto.component_name == "clipsel_cards")
    uid = components(app, "clipsel_cards")[0]["cards"][place]["uid"]
    press(app, element.proto.id, {"k": "keep", "d": "drop"}[key], uid=uid)
    return uid


def badge(app, uid: str) -> str:
    return next(card["badge"] for card in components(app, "clipsel_cards")[0]["cards"] if card["uid"] == uid)


def test_gallery__k_and_d_write_steps_of_the_recipe(app):
    first, second = judge(app, "k", 0), judge(app, "k", 1)
    third = judge(app, "d", 10)
    assert [badge(app, uid) for uid in (first, second, third)] == ["kept by hand", "kept by hand", "dropped by hand"]
    app.switch_page("select.py").run()
    assert "keep 2 by hand" in words(app)
    assert "drop 1 by hand" in words(app)
    assert f"keep: [{first}, {second}]" in words(app)
    assert not app.exception


def test_gallery__judging_again_takes_back_or_changes_sides(app):
    uid = judge(app, "k", 0)
    judge(app, "d", 0)
    assert badge(app, uid) == "dropped by hand"
    judge(app, "d", 0)
    assert badge(app, uid) == "dropped"
    app.switch_page("select.py").run()
    assert "by hand" not in words(app)


def test_gallery__takes_several_presses_at_once_each_of_them_once(app):
    """What was pressed while the page was busy comes in one message, and again in the next one."""
    element = app.get("bidi_component")[0]
    names = [card["uid"] for card in components(app, "clipsel_cards")[0]["cards"]]
    keys = [("keep", {"uid": names[place]}) for place in range(5)]
    keys += [("turn", {"by": 1}), ("drop", {"uid": names[1]}), ("keep", {"uid": names[2]})]
    presses = [{"kind": kind, "press": 10**12 + number, **said} for number, (kind, said) in enumerate(keys)]
    for upto in (3, 8, 8):
        trigger(app, element.proto.id, "pressed", presses[:upto])
    assert components(app, "clipsel_cards")[0]["heard"] == {"cards": 10**12 + 7, "opened pair": 0}
    assert app.number_input(key="page").value == 2
    app.switch_page("select.py").run()
    assert f"keep: [{names[0]}, {names[3]}, {names[4]}]" in words(app)
    assert f"drop: [{names[1]}]" in words(app)


def test_gallery__ignores_a_judgement_of_a_pair_it_does_not_show(app):
    element = app.get("bidi_component")[0]
    for uid, kind in (("f" * 32, "keep"), (5, "keep"), ("x", "drop"), ("f" * 33, "open"), ("f" * 32, "x")):
        press(app, element.proto.id, kind, uid=uid)
        assert not app.exception
    for said in ("x", 7, {"press": 1}, [7], [{"press": "1", "kind": "keep", "uid": "f" * 32}], [{"kind": "turn"}]):
        trigger(app, element.proto.id, "pressed", said)
        assert not app.exception
    app.switch_page("select.py").run()
    assert "by hand" not in words(app)


@pytest.mark.parametrize("shown", ["all", "kept", "dropped"])
def test_gallery__lists_captions_with_all_the_words(tmp_path, open_page, shown):
    captions = ["a Red house", "house", "red", "100% red_house", "the house is RED"]
    app = open_page("gallery", make_run(tmp_path / "world", captions=captions, pairs=(30, 30)))
    app.button_group(key="show").set_value(shown).run()
    app.text_input(key="words").set_value("red HOUSE").run()
    if shown == "kept":
        assert "keeps no pair that has this score and these words" in words(app)
        return
    found = components(app, "clipsel_cards")[0]["cards"]
    assert [card["caption"] for card in found] == ["the house is RED", "100% red_house", "a Red house"]
    assert "3 pairs with these words" in words(app)
    app.text_input(key="words").set_value("%").run()
    assert [card["caption"] for card in components(app, "clipsel_cards")[0]["cards"]] == ["100% red_house"]
    app.text_input(key="words").set_value("").run()
    assert len(components(app, "clipsel_cards")[0]["cards"]) == 48


def test_gallery__turns_pages_and_jumps_among_the_found(tmp_path, open_page):
    named = ["odd one" if row % 2 else "even one" for row in range(300)]
    app = open_page("gallery", make_run(tmp_path / "world", pairs=(300,), captions=named))
    app.text_input(key="words").set_value("odd").run()
    assert "of 4\n150 pairs with these words" in words(app)
    app.number_input(key="jump").set_value(10.0).run()
    assert app.number_input(key="page").value == 3
    assert set(captions(app)) == {"odd one"}


def test_gallery__nearest_to_a_percentile_or_a_score_first(app):
    app.button_group(key="order").set_value("near").run()
    app.number_input(key="percentile").set_value(50.0).run()
    assert sorted(rows(app)[:3]) == [29, 30, 31]
    app.button_group(key="by").set_value("score").run()
    app.number_input(key="score").set_value(10.0).run()
    assert rows(app)[:3] == [59, 58, 57]
    assert "Nearest to 10.00 first" in words(app)


def test_gallery__shows_further_scores_with_their_percentiles(app):
    app.multiselect(key="scores").set_value(["s_cliploss", "clip_score", "normsim_inf_task"]).run()
    bars = components(app, "clipsel_cards")[0]["cards"][0]["bars"]
    assert [bar["title"] for bar in bars] == ["CLIPScore", "s-CLIPLoss", "NormSim ∞ · task"]
    assert [bar["value"] for bar in bars] == ["0.9833", "0.4833", "0.0167"]
    assert [bar["rank"] for bar in bars] == ["P98.3", "P98.3", "P0.0"]


def test_gallery__the_keyboard_turns_pages(app):
    element = next(element for element in app.get("bidi_component") if element.proto.component_name == "clipsel_cards")
    for said, page in ((1, 2), (1, 2), (-1, 1), (-1, 1), (7, 1), ("x", 1)):
        press(app, element.proto.id, "turn", by=said)
        assert app.number_input(key="page").value == page


def test_gallery__finds_whole_words_and_says_which(tmp_path, open_page):
    said = ["a red bird", "infrared", "Red.", "a reddish bird"]
    app = open_page("gallery", make_run(tmp_path / "world", captions=said))
    app.text_input(key="words").set_value("red").run()
    assert sorted(captions(app)) == ["Red.", "a red bird"]
    assert app.text_input(key="words").help.startswith("Whole words")
    app.text_input(key="words").set_value("a b c d e f g h pair").run()
    assert "Only the first 8 words are looked for: a b c d e f g h." in words(app)
    app.text_input(key="words").set_value("a b c d e f g a h").run()
    assert "Only the first" not in words(app)


def test_gallery__a_stopped_search_shows_what_it_found_and_goes_on(tmp_path, open_page, monkeypatch):
    monkeypatch.setattr("clipsel_core.curation.exploring.captions._STEP_ROWS", 1)
    run = make_run(tmp_path / "world")
    app = open_page("gallery", run)
    app.text_input(key="words").set_value("caption").run()
    search = app.session_state["pages.parts.progress_bars.CaptionSearch words search"]
    search.scan, search.stopped = CaptionScan.for_words(ScoreTable.open(Run.open(run)), ["caption"]), True
    search.scan.step()
    app.run()
    assert "Stopped: 40 match in the first 40 of 60 captions" in words(app)
    assert rows(app) == list(range(39, -1, -1))
    app.button(key="words search on").click().run()
    assert "60 pairs with these words" in words(app)


def test_gallery__without_captions_there_are_no_words_to_look_for(tmp_path, open_page):
    run = make_run(tmp_path / "world", images=False)
    (tmp_path / "world" / "pool").rename(tmp_path / "world" / "moved")
    app = open_page("gallery", run)
    assert app.text_input(key="words").disabled
    assert len(components(app, "clipsel_cards")[0]["cards"]) == 48
