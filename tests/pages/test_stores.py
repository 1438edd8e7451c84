"""Is a run whose pool lies in a store looked at as one on disk is, and does no page wait for the store again?"""

from __future__ import annotations

import json

import pytest

from pages.parts import catalog, pictures, stamps, state, stores
from pages.parts.catalog import Entry
from tests.pages.conftest import PAGES, components, words
from tests.pages.worlds import add_recipe, make_run, picture
from tests.pool.servers import publishing, storing, upload
from tests.waiting import until

POOL = "s3://bucket/a/pool"


@pytest.fixture
def store(monkeypatch):
    # Another test's store had the same files, and is gone.
    monkeypatch.setattr(stamps, "_watched", type(stamps._watched)(256))
    monkeypatch.setattr(pictures, "_findings", type(pictures._findings)(4))
    for known in state._results.values():
        known.clear()
    with storing(monkeypatch) as served:
        yield served


@pytest.fixture
def run(tmp_path, store):
    """A run on this machine whose pool lies in a store."""
    root = make_run(tmp_path / "world")
    upload(tmp_path / "world" / "pool", POOL)
    (tmp_path / "world" / "pool").rename(tmp_path / "world" / "moved")
    said = json.loads((root / "run.json").read_text())
    (root / "run.json").write_text(json.dumps(said | {"pool": POOL}))
    return root


def cards(app):
    return components(app, "clipsel_cards")[0]["cards"]


def asks_nothing(app, store):
    """Whether a page that is drawn again asks its store for nothing, once what was read ahead is there."""
    store.asked.clear()
    app.run()
    assert not app.exception
    return not store.asked


def uid_of(row):
    return f"{7 * (row + 1):016x}{row:016x}"


@pytest.mark.parametrize("page", PAGES)
def test_page__opens_on_a_run_whose_pool_lies_in_a_store(run, page, open_page):
    app = open_page(page, run, ["s3://bucket"])
    assert not app.exception
    assert not app.error
    assert app.title[0].value.lower() == page


def test_gallery__shows_captions_and_pictures_of_a_pool_in_a_store(run, store, open_page):
    app = open_page("gallery", run, ["s3://bucket"])
    shown = cards(app)
    assert all(card["caption"] and card["src"] == f"/pairs/{catalog.entries()[0].key}/{card['uid']}" for card in shown)
    entry = catalog.entries()[0]
    assert [pictures.read(entry, uid_of(row)) == picture(row % 40) for row in (0, 39, 40, 59)] == [True] * 4
    assert pictures.read(entry, "0" * 32) is None
    tars = [path for path in store.asked if ".tar" in path]
    assert sum(store.asked[path] for path in tars) <= 8


@pytest.mark.parametrize("read", [[], ["s3://other"]])
def test_page__does_not_ask_a_store_that_was_not_named(run, store, open_page, read):
    store.asked.clear()
    app = open_page("gallery", run, read)
    assert {(card["src"], card["caption"]) for card in cards(app)} == {("", "")}
    assert "The pool lies in a store: no captions and no images unless --read names" in words(
        open_page("overview", run, read)
    )
    assert not store.asked


def test_page__drawn_again_asks_the_store_for_nothing(run, store, open_page, monkeypatch):
    monkeypatch.setattr(stamps, "FRESH_S", 1000.0)
    for page in PAGES:
        app = open_page(page, run, ["s3://bucket"])
        until(lambda app=app: asks_nothing(app, store), f"{page} asks the store for nothing", 60)


def test_look__notices_later_what_was_changed_in_a_store(run, store, monkeypatch):
    entry = Entry("world", run)
    before = stamps.of(state.open_run(entry).pool_root, "shards")
    assert before == stamps.of(state.open_run(entry).pool_root, "shards")
    upload(run.parent / "moved" / "metadata", f"{POOL}/shards")
    assert before == stamps.of(state.open_run(entry).pool_root, "shards")
    monkeypatch.setattr(stamps.time, "monotonic", lambda now=stamps.time.monotonic: now() + 1000)
    until(lambda: stamps.of(state.open_run(entry).pool_root, "shards") != before)


def test_look__a_store_that_fails_changes_nothing(run, store, monkeypatch):
    root = state.open_run(Entry("world", run)).pool_root
    before, asked = stamps.of(root, "metadata"), []
    store.fault = lambda path, times: asked.append(path) or 503
    monkeypatch.setattr(stamps.time, "monotonic", lambda now=stamps.time.monotonic: now() + 1000)
    stamps.of(root, "metadata")
    until(lambda: asked)
    assert stamps.of(root, "metadata") == before


def test_image__of_a_store_that_fails_in_passing_is_not_lost(run, store, open_page):
    open_page("gallery", run, ["s3://bucket"])
    entry = catalog.entries()[0]
    store.fault = lambda path, times: 503 if ".tar" in path else None
    with pytest.raises(pictures.BeingFound):
        pictures.read(entry, uid_of(3))
    store.fault = lambda path, times: None
    assert pictures.read(entry, uid_of(3)) == picture(3)


RUN = "s3://bucket/a/run"


@pytest.fixture
def stored(tmp_path, store, monkeypatch):
    """The address of a run that lies in a store, beside its pool; the cache is new."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make_run(tmp_path / "world")
    add_recipe(root, "half", "steps: [{metric: s_cliploss, keep_top: 0.5}]")
    upload(tmp_path / "world", "s3://bucket/a")
    stores.view.cache_clear()
    return RUN


@pytest.mark.parametrize("page", PAGES)
def test_page__opens_on_a_run_in_a_store(stored, page, open_page):
    app = open_page(page, stored)
    assert not app.exception
    assert [(error.value, [code.value for code in app.code]) for error in app.error] == []
    assert app.title[0].value.lower() == page
    assert catalog.entries()[0].label == "a/run"


def test_gallery__of_a_run_in_a_store_is_that_of_the_run_on_disk(stored, tmp_path, open_page):
    there = cards(open_page("gallery", stored))
    here = cards(open_page("gallery", tmp_path / "world" / "run"))
    plain = ("uid", "caption", "bars", "badge")
    assert [{name: card[name] for name in plain} for card in there] == [
        {name: card[name] for name in plain} for card in here
    ]
    open_page("gallery", stored)
    entry = catalog.entries()[0]
    assert pictures.read(entry, uid_of(3)) == picture(3)


def test_page__of_a_run_in_a_store_drawn_again_asks_for_nothing(stored, store, open_page, monkeypatch):
    monkeypatch.setattr(stamps, "FRESH_S", 1000.0)
    monkeypatch.setattr(stores, "FRESH_S", 1000.0)
    for page in PAGES:
        app = open_page(page, stored)
        until(lambda app=app: asks_nothing(app, store), f"{page} asks the store for nothing", 60)


def test_page__of_a_run_in_a_store_fetches_its_scores_once(stored, store, open_page):
    def asked():
        return {path: times for path, times in store.asked.items() if "/run/scores/" in path and "?" not in path}

    app = open_page("overview", stored)
    until(lambda: "ask column" in [button.key for button in app.run().button])
    once = asked()
    for page in PAGES:
        open_page(page, stored)
    assert len(once) == 2
    assert asked() == once


def test_overview__says_why_nothing_is_added_to_a_run_in_a_store(stored, open_page):
    app = open_page("overview", stored)
    # The scores are fetched first.
    until(lambda: "ask column" in [button.key for button in app.run().button])
    for name in ("ask target", "ask column"):
        assert app.button(key=name).disabled
        assert app.button(key=name).help.startswith("The run lies in a store")


def test_sidebar__names_an_address_that_holds_no_run(store, open_page):
    app = open_page("overview", "s3://bucket/nothing")
    assert not app.exception
    assert "s3://bucket/nothing" in words(app)
    app = open_page("overview", "nosuch://bucket/run")
    assert not app.exception
    assert "nosuch" in words(app)


def test_view__asks_for_a_range_alone_where_a_store_would_read_ahead(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(bytes(range(256)) * (9 << 12))
    with publishing(tmp_path, monkeypatch) as served:
        stores.view.cache_clear()
        assert stores.view("hf://datasets/org/data/file").read(1024, 3) == b"\0\1\2"
        assert sum(served.sent.values()) == 3
    stores.view.cache_clear()
