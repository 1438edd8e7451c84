"""Does one process alone hold a folder of a store, and does one that lost it stop?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from clipsel_core import leases
from clipsel_core.errors import ClipselError, RunError
from clipsel_core.leases import confirm, hold_place, join_lease, number_of
from clipsel_core.places import Place
from clipsel_core.processes import child_environment
from clipsel_core.tasks import check
from tests.pool.servers import storing
from tests.waiting import PATIENCE_S, until

BUSY = RunError("the folder", expected="a folder nobody works in", found="a run going on", remedy="wait")


@pytest.fixture
def folder(monkeypatch):
    """A folder of a store, where all goes quicker."""
    for name, seconds in {"_RENEWED_S": 0.05, "_PATIENCE_S": 1.5, "_BETWEEN_LOOKS_S": 0.02}.items():
        monkeypatch.setattr(leases, name, seconds)
    with storing(monkeypatch):
        yield Place.of_named("s3://bucket/folder")


def taken(folder):
    return sorted(name for name in folder.fs.ls("bucket/folder/.lease", refresh=True))


def of_another_machine(folder, number=1, **said):
    place = folder / ".lease" / f"{number:06d}"
    place.write_bytes(json.dumps({"host": "elsewhere", "machine": "m", "pid": 7, "birth": "b", **said}).encode())


def test_hold_folder__one_after_another(folder):
    for _ in range(3):
        with hold_place(folder, BUSY):
            confirm(folder)
    assert [path.rpartition("/")[2] for path in taken(folder)] == ["000001", "000002", "000003"]
    assert "000001" not in folder.names()


def test_hold_folder__refuses_where_another_holds_it(folder):
    with hold_place(folder, BUSY):
        found = rf"a run going on: process {os.getpid()} of .*; wait"
        with pytest.raises(RunError, match=found), hold_place(folder, BUSY):
            pass
        confirm(folder)
    with hold_place(folder, BUSY):
        pass


def test_hold_folder__of_many_at_once_one_gets_it(folder):
    entered, refused, gate = [], [], threading.Event()

    def work():
        try:
            with hold_place(folder, BUSY):
                entered.append(1)
                gate.wait(PATIENCE_S)
        except RunError:
            refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: len(refused) == 4)
    assert entered == [1]
    gate.set()
    for thread in threads:
        thread.join()


def test_hold_folder__takes_over_from_a_killed_process_at_once(folder, monkeypatch):
    script = """
import os, signal
from clipsel_core.errors import ClipselError, RunError
from clipsel_core.leases import hold_place
from clipsel_core.places import Place
with hold_place(Place.of_named("s3://bucket/folder"), RunError("r", expected="e", found="f")):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], env=child_environment())
    assert killed.returncode == -signal.SIGKILL
    monkeypatch.setattr(leases, "_PATIENCE_S", 2 * PATIENCE_S)
    with hold_place(folder, BUSY):
        assert len(taken(folder)) == 2


def test_hold_folder__waits_for_another_machine_and_says_so(folder, caplog):
    of_another_machine(folder)
    with hold_place(folder, BUSY):
        assert len(taken(folder)) == 2
    assert "held by process 7 of elsewhere; waiting" in caplog.text
    of_another_machine(folder, 3, released=True)
    caplog.clear()
    with hold_place(folder, BUSY):
        assert len(taken(folder)) == 4
    assert "waiting" not in caplog.text


def hold_until_stopped(folder, began):
    with hold_place(folder, BUSY):
        began.set()
        until(lambda: check() is not None)


def test_hold_folder__a_holder_that_wakes_up_stops(folder):
    began = threading.Event()
    other = threading.Thread(target=lambda: began.wait(PATIENCE_S) and of_another_machine(folder, 2))
    other.start()
    with pytest.raises(RunError, match="expected to hold the folder, found process 7 of elsewhere took it over"):
        hold_until_stopped(folder, began)
    other.join()
    assert "released" not in json.loads((folder / ".lease" / "000002").read())


def test_hold_folder__a_holder_that_could_not_renew_stops(folder, monkeypatch):
    def fail(self, data):
        raise OSError("no answer")

    monkeypatch.setattr(leases, "_GIVEN_UP_S", 0.2)
    monkeypatch.setattr(Place, "write_bytes", fail)
    with pytest.raises(RunError, match="found a store that did not answer for so long"):
        hold_until_stopped(folder, threading.Event())


def lose_it(folder):
    with hold_place(folder, BUSY):
        confirm(folder)
        of_another_machine(folder, 2)
        confirm(folder)


def test_confirm__finds_a_higher_number_before_it_is_looked_for(folder, monkeypatch):
    monkeypatch.setattr(leases, "_RENEWED_S", 2 * PATIENCE_S)
    with pytest.raises(RunError, match="took it over"):
        lose_it(folder)


def test_join_lease__a_process_that_works_for_the_holder_finds_it_too(folder, monkeypatch):
    with hold_place(folder, BUSY):
        number = number_of(folder)
        with monkeypatch.context() as other_process:
            other_process.setattr(leases, "_held", {})
            confirm(folder)
            join_lease(folder, number, BUSY)
            confirm(folder)
            of_another_machine(folder, 2)
            with pytest.raises(RunError, match="process 7 of elsewhere took it over"):
                confirm(folder)
    assert number_of(folder) is None


def test_hold_folder__numbers_that_a_listing_lacks_count(folder, monkeypatch):
    with hold_place(folder, BUSY):
        pass
    monkeypatch.setattr(Place, "names", lambda self, **_: [])
    with hold_place(folder, BUSY):
        assert len(taken(folder)) == 2


def test_hold_folder__an_answer_that_was_lost_is_no_other_process(folder, monkeypatch):
    create = Place.create

    def lose(self, data):
        create(self, data)
        raise FileExistsError

    monkeypatch.setattr(Place, "create", lose)
    with hold_place(folder, BUSY):
        assert len(taken(folder)) == 1


def test_hold_folder__refuses_a_store_that_makes_an_object_twice(folder, monkeypatch):
    monkeypatch.setattr(Place, "create", Place.write_bytes)
    says = "expected a store that makes an object only once, as s3:// and gs:// do, found one that writes it twice"
    with pytest.raises(RunError, match=says), hold_place(folder, BUSY):
        pass
    chained = Place.of_named("simplecache::s3://bucket/x")
    with pytest.raises(ClipselError, match="found a chain, which is only read"), hold_place(chained, BUSY):
        pass
