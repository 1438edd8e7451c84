"""Is a run whose pool lies in a store looked at as one on disk is, and does no page wait for the store again?"""

from __future__ import annotations

import json

import fsspec
import pytest

from clipsel_core import uids
from clipsel_core.curation.recipes.uidlists import read_uid_list
from clipsel_core.errors import JobError
from clipsel_core.jobs import control
from clipsel_core.jobs.control import listing
from clipsel_core.places import Place
from pages.parts import catalog, pictures, state, stores
from pages.parts.catalog import Entry
from pages.parts.jobs import folders, jobs
from pages.parts.search import queries, results
from tests.conftest import write_shard
from tests.jobs import stand_in
from tests.jobs.stand_in import ended
from tests.pages.conftest import PAGES, components, press, words
from tests.pages.worlds import add_recipe, make_run, picture, uid_names
from tests.pool.servers import SECRET, publishing, serving, upload
from tests.waiting import until

POOL = "s3://bucket/a/pool"
pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def store(monkeypatch, store):
    # Another test's store had the same files, and is gone.
    stores.view.cache_clear()
    stores._view_of.cache_clear()
    monkeypatch.setattr(pictures, "_finders", type(pictures._finders)(4))
    for known in state._results.values():
        known.clear()
    return store


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
    monkeypatch.setattr(stores, "FRESH_S", 1000.0)
    for page in PAGES:
        app = open_page(page, run, ["s3://bucket"])
        until(lambda app=app: asks_nothing(app, store), f"{page} asks the store for nothing", 60)


def test_look__notices_later_what_was_changed_in_a_store(run, store, monkeypatch):
    entry = Entry("world", run)
    before = state.files_stamp(state.open_run(entry).pool_root, "shards")
    assert before == state.files_stamp(state.open_run(entry).pool_root, "shards")
    upload(run.parent / "moved" / "metadata", f"{POOL}/shards")
    assert before == state.files_stamp(state.open_run(entry).pool_root, "shards")
    monkeypatch.setattr(stores.time, "monotonic", lambda now=stores.time.monotonic: now() + 1000)
    until(lambda: state.files_stamp(state.open_run(entry).pool_root, "shards") != before)


def test_look__a_store_that_fails_changes_nothing(run, store, monkeypatch):
    root = state.open_run(Entry("world", run)).pool_root
    before, asked = state.files_stamp(root, "metadata"), []
    store.fault = lambda path, times: asked.append(path) or 503
    monkeypatch.setattr(stores.time, "monotonic", lambda now=stores.time.monotonic: now() + 1000)
    state.files_stamp(root, "metadata")
    until(lambda: asked)
    assert state.files_stamp(root, "metadata") == before


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
def stored(tmp_path, store):
    """The address of a run that lies in a store, beside its pool; the cache is new."""
    root = make_run(tmp_path / "world")
    add_recipe(root, "half", "steps: [{metric: s_cliploss, keep_top: 0.5}]")
    upload(tmp_path / "world", "s3://bucket/a")
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


def test_overview__says_why_nothing_is_added_to_a_run_in_a_store_that_is_only_read(tmp_path, open_page, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_run(tmp_path / "world", projection=False)
    with serving(tmp_path / "world") as served:
        app = open_page("overview", f"{served.address}/run")
        until(lambda: "ask column" in [button.key for button in app.run().button])
        for name in ("ask target", "ask column"):
            assert app.button(key=name).disabled
            assert app.button(key=name).help.startswith("The run lies in a store")
        assert "No map yet" in words(app)
        assert "Make a map" not in [button.label for button in app.button]


def started(app):
    """The job that a page has just started."""
    assert not app.exception
    assert "Not started" not in words(app)
    return listing(catalog.jobs_folder())[0]


def opened(open_page, page, run, read=()):
    """A page of a run whose scores are there."""
    app = open_page(page, run, read)
    state.open_table(catalog.entries()[0])
    return app.run()


def test_column__is_added_to_a_run_in_a_store_and_seen_when_its_job_ends(stored, store, open_page, monkeypatch):
    """By the command itself, from a file that was uploaded; nothing else makes the page ask the store anew."""
    monkeypatch.setattr(stores, "FRESH_S", 1000.0)
    app = opened(open_page, "overview", stored)
    app.button(key="ask column").click().run()
    rows = "".join(f"{uid},{row}\n" for row, uid in enumerate(uid_names(60)))
    app.file_uploader[0].upload("mine.csv", f"uid,mine\n{rows}".encode(), "text/csv").run()
    app.button(key="add column").click().run()
    job = started(app)
    (name,) = Place.of(f"{stored}/columns").names()
    assert job.info.words == ("add-column", stored, f"mine={stored}/columns/{name}")
    assert job.info.about == stored
    assert "Add mine" in words(app)
    assert ended(job) == "done"
    app.run()
    assert "mine for 60 of 60 pairs" in words(app)
    app.switch_page("gallery.py").run()
    assert "mine" in app.selectbox(key="metric").options
    assert SECRET not in "".join(file.read_text() for file in job.folder.iterdir())


def test_target__of_pairs_of_a_run_in_a_store_is_watched_cancelled_and_started_again(
    stored, store, open_page, monkeypatch, tmp_path
):
    stand_in.install(tmp_path / "home", monkeypatch, "wait")
    app = opened(open_page, "gallery", stored)
    element = next(part for part in app.get("bidi_component") if part.proto.component_name == "clipsel_cards")
    press(app, element.proto.id, "keep", uid=uid_of(59))
    app.button(key="ask more like these").click().run()
    app.button(key="add target").click().run()
    job = started(app)
    (name,) = Place.of(f"{stored}/targets").names()
    assert job.info.words == ("add-target", stored, f"--target=picked={stored}/targets/{name}")
    assert read_uid_list(Place.of(f"{stored}/targets/{name}")).tolist() == uids.from_hex([uid_of(59)]).tolist()
    until(lambda: "at work" in job.log_tail)
    assert "Compare with picked · 0 %" in words(app.run())
    # As after the server's restart: what is at work is found in the folder of jobs.
    for known in (stores.view, stores._view_of):
        known.cache_clear()
    app = opened(open_page, "overview", stored)
    assert "Compare with picked" in words(app)
    app.button(key=f"cancel {job.id}").click().run()
    assert ended(job) == "cancelled"
    assert "cancelled after" in words(app.run())
    app.button(key=f"again {job.id}").click().run()
    again = started(app)
    assert again.info.words == job.info.words
    control.cancel(again)
    ended(again)


def test_target__that_a_check_refuses_is_taken_away_from_the_store(stored, store, open_page, monkeypatch, tmp_path):
    stand_in.install(tmp_path / "home", monkeypatch, "fail")
    app = opened(open_page, "overview", stored)
    app.button(key="ask target").click().run()
    app.file_uploader[0].upload("mine.npy", b"abc").run()
    app.button(key="add target").click().run()
    assert "pool: expected shards, found none" in words(app)
    assert Place.of(f"{stored}/targets").names() == []
    assert listing(catalog.jobs_folder()) == []


def test_map__of_a_run_in_a_store_is_made_as_a_job_and_seen(stored, store, open_page, monkeypatch, tmp_path):
    monkeypatch.setattr(stores, "FRESH_S", 1000.0)
    stand_in.install(tmp_path / "home", monkeypatch, "finish")
    projection = Place.of(f"{stored}/projection.parquet")
    data = projection.read()
    projection.remove()
    app = opened(open_page, "map", stored)
    next(button for button in app.button if button.label == "Make a map").click().run()
    job = started(app)
    assert job.info.words == ("project", stored, "--sample=60")
    projection.write_bytes(data)
    assert ended(job) == "done"
    app.run()
    assert "No map yet" not in words(app)
    assert components(app, "clipsel_map")


def test_search__of_all_of_a_run_in_a_store_is_a_job_that_leads_to_what_it_found(
    stored, store, open_page, monkeypatch, tmp_path
):
    monkeypatch.setattr(stores, "FRESH_S", 1000.0)
    stand_in.install(tmp_path / "home", monkeypatch, "finish")
    monkeypatch.setattr(results, "AT_ONCE", 10)
    opened(open_page, "search", stored)
    entry = catalog.entries()[0]
    run, query = state.open_run(entry), queries.pair_query(uid_of(3), 3)
    file = results._file(run, query, "image")
    assert not file.exists()
    job = control.start(
        catalog.jobs_folder(), "search", [run.root], {"uid": uid_of(3), "out": file}, title="Images", about=run.root
    )
    assert f"--out={file.address}" in job.info.words
    upload_bytes(file.address, b"found")
    ended(job)
    assert jobs.at_work(f"--out={file}", run.root) is None
    assert file.exists()


@pytest.mark.parametrize(
    "typed",
    [
        "s3://bucket/b/task.npy",
        "s3://other/a/task.npy",
        "s3://bucket/a/../b/task.npy",
        "s3://bucket/a%2f../b/task.npy",
        "s3://bucket/ab/task.npy",
        "gs://bucket/a/task.npy",
        "s3://key:word@bucket/a/task.npy",
        "simplecache::s3://bucket/a/task.npy",
        "https://host/a/task.npy",
    ],
)
def test_forms__read_no_address_that_was_not_named(stored, store, open_page, typed):
    app = opened(open_page, "overview", stored)
    store.asked.clear()
    app.button(key="ask column").click().run()
    next(box for box in app.text_input if box.label == "Or its path").set_value(typed).run()
    app.button(key="add column").click().run()
    assert "Not started" in words(app)
    assert "expected an address below s3://bucket/a, found another" in words(app)
    with pytest.raises(JobError):
        folders.target(typed)
    assert listing(catalog.jobs_folder()) == []
    assert not [path for path in store.asked if "task.npy" in path]


def test_jobs__of_a_run_in_a_store_may_read_beside_it_and_nothing_else_there(stored, open_page):
    open_page("overview", stored, ["s3://pools/x"])
    allowed = [place for place in folders.job_roots() if "://" in place]
    assert allowed == ["s3://pools/x", "s3://bucket/a"]
    assert folders.target("s3://bucket/a/task.npy") == "s3://bucket/a/task.npy"
    catalog.allow(["s3://bucket"])
    assert [place for place in folders.job_roots() if "://" in place] == ["s3://bucket"]


def test_score__takes_a_pool_in_a_store_into_the_data_folder(stored, store, open_page, monkeypatch, tmp_path):
    for seed in (0, 1):
        write_shard(tmp_path / "more" / "pool", f"{seed:08d}", 20, seed=seed)
    upload(tmp_path / "more", "s3://bucket/more")
    stand_in.install(tmp_path / "home", monkeypatch, "finish")
    app = opened(open_page, "overview", stored, ["s3://bucket/more/pool", "s3://bucket/nothing"])
    app.button(key="ask score").click().run()
    pool = next(box for box in app.selectbox if box.label == "Pool")
    assert pool.options == ["s3://bucket/more/pool", f"{stored.removesuffix('run')}pool"]
    assert next(box for box in app.text_input if box.label == "Name of the run").value == "pool-l14"
    app.button(key="start scoring").click().run()
    job = started(app)
    assert job.info.words == ("score", "s3://bucket/more/pool", str(catalog.data_folder() / "pool-l14"), "--arch=l14")
    ended(job)


def test_overview__goes_on_with_an_unfinished_run_in_a_store(tmp_path, store, open_page, monkeypatch):
    stand_in.install(tmp_path / "home", monkeypatch, "finish")
    make_run(tmp_path / "world", finished=1)
    upload(tmp_path / "world", "s3://bucket/a")
    app = opened(open_page, "overview", RUN)
    next(button for button in app.button if button.label == "Go on").click().run()
    job = started(app)
    assert job.info.words == ("score", POOL, RUN, "--arch=demo", "--target=task=s3://bucket/a/task.npy")
    ended(job)


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


def test_view__what_is_read_after_a_stamp_is_no_older_than_it(store, monkeypatch):
    """A file is changed between a page's first look at it and its stamp: the stamp is of what the page looked at."""
    monkeypatch.setattr(stores, "FRESH_S", 1000.0)
    upload_bytes("s3://bucket/a/file", b"old")
    seen = stores.view("s3://bucket/a/file")
    assert seen.read() == b"old"
    upload_bytes("s3://bucket/a/file", b"newer")
    stamp = state.version_of(seen)
    assert seen.read() == b"old"
    stores.ask_anew(seen)
    assert (state.version_of(seen) != stamp, seen.read()) == (True, b"newer")


def test_view__knows_at_once_what_was_written_through_it(store, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "FRESH_S", 1000.0)
    folder = stores.view("s3://bucket/a/new")
    assert (folder.names(), (folder / "x").exists()) == ([], False)
    (folder / "x").write(lambda aside: aside.write_bytes(b"12"))
    assert (folder.names(), (folder / "x").stamp()[0]) == (["x"], 2)
    (folder / "x").remove()
    assert (folder.names(), (folder / "x").exists()) == ([], False)


@pytest.mark.parametrize(("changed", "other"), [("run", "run2"), ("run2", "run")])
def test_view__what_changed_in_a_folder_leaves_its_neighbour_known(store, monkeypatch, changed, other):
    """The name of one is the beginning of the other's. What lies in the changed one is asked for, and what is above."""
    monkeypatch.setattr(stores, "FRESH_S", 1000.0)
    above = stores.view("s3://bucket/a")

    def seen(folder):
        return (above / folder).names(), (above / folder / "file").read()

    for folder in (changed, other):
        upload_bytes(f"s3://bucket/a/{folder}/file", b"old")
    assert (above.folders(), seen(changed), seen(other)) == (["run", "run2"], (["file"], b"old"), (["file"], b"old"))
    for folder in (changed, other, "run3"):
        upload_bytes(f"s3://bucket/a/{folder}/file", b"newer")
        upload_bytes(f"s3://bucket/a/{folder}/file2", b"")
    stores.ask_anew(above / changed)
    assert (seen(changed), seen(other)) == ((["file", "file2"], b"newer"), (["file"], b"old"))
    assert above.folders() == ["run", "run2", "run3"]


def test_view__a_web_server_that_fails_is_not_taken_for_one_without_the_file():
    class BadGateway(Exception):
        status = 502

    class Web:
        def invalidate_cache(self):
            pass

        def info(self, path):
            raise FileNotFoundError(path) from BadGateway()

    seen = stores.View(Web())
    for _ in range(2):
        with pytest.raises(FileNotFoundError) as caught:
            seen.info("file")
        assert isinstance(caught.value.__cause__, BadGateway)


def test_view__a_store_that_fails_is_not_asked_for_each_stamp(store):
    asked = []
    store.fault = lambda path, times: asked.append(path) or 503
    place = stores.view("s3://bucket/a/file")
    for _ in range(10):
        assert state.version_of(place) == stores._UNKNOWN
    assert len(asked) < 5


def test_select__an_export_into_a_store_is_known_as_its_own(stored, open_page, monkeypatch):
    monkeypatch.setattr(stores, "FRESH_S", 1000.0)
    app = opened(open_page, "select", stored)
    app.button(key="export").click().run()
    assert not app.exception
    assert "Exported" in words(app)
    stores.ask_anew(stores.view(stored))
    app.run()
    assert "Another file has this name by now" not in words(app)


def upload_bytes(address, data):
    fs, path = fsspec.url_to_fs(address)
    fs.pipe(path, data)
