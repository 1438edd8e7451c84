"""How the page tests open the dashboard: one run, one page, no server."""

from __future__ import annotations

import itertools
import json
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.testing.v1 import AppTest

from clipsel_core import tasks
from clipsel_core.jobs import encoders
from pages.parts import catalog
from tests.waiting import PATIENCE_S

MAIN = Path(__file__).parents[2] / "pages" / "main.py"
PAGES = ("overview", "distributions", "map", "gallery", "search", "select", "compare")

_presses = itertools.count(1)

Opener = Callable[..., AppTest]


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """AppTest puts the page in the place of the program, which processes started later would then run again."""
    program = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = program


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that could ask a teacher load it in advance; most tests do not want to pay for that."""
    monkeypatch.setattr(encoders.Encoder, "warm", lambda self: None)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages wait for what they work out in the background, so that one run of them shows all there is to be seen."""
    monkeypatch.setattr(tasks, "_AT_ONCE_S", PATIENCE_S)


@pytest.fixture
def open_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens a page of the dashboard on one run, or on none."""

    def opener(page: str, run: Path | None = None, read: Sequence[str] = ()) -> AppTest:
        monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "nothing"))
        monkeypatch.setenv("CLIPSEL_RUNS", "")
        catalog.allow([run] if run else [], read)
        app = AppTest.from_file(str(MAIN), default_timeout=PATIENCE_S).run()
        if page != "overview":
            app.switch_page(f"{page}.py").run()
        return app

    return opener


def components(app: AppTest, name: str) -> list[dict]:
    """What the inline components of a kind were given, in the page's order."""
    mounted = (element.proto for element in app.get("bidi_component"))
    return [json.loads(proto.json) for proto in mounted if proto.component_name == name]


def trigger(app: AppTest, component: str, event: str, value: object) -> AppTest:
    """Has an inline component report an event."""
    said = WidgetState(id=_make_trigger_id(component, "events"))
    said.json_trigger_value = json.dumps([{"event": event, "value": value}])
    states = app._tree.get_widget_states()
    states.widgets.append(said)
    return app._run(states)


def say(app: AppTest, component: str, name: str, value: object) -> AppTest:
    """Has an inline component say a part of its state."""
    states = app._tree.get_widget_states()
    states.widgets.append(WidgetState(id=component, json_value=json.dumps({name: value})))
    return app._run(states)


def press(app: AppTest, component: str, kind: str, **said: object) -> AppTest:
    """Has a gallery report what was pressed: open, keep or drop with a uid, or turn with by how many pages."""
    return trigger(app, component, "pressed", [{"kind": kind, **said, "press": next(_presses)}])


def unpacked(message: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The words and the numbers of a message to a thumb, as the browser reads them; see steps.packed."""
    start = 4 + struct.unpack_from("<I", message)[0]
    head, arrays = json.loads(message[4:start]), {}
    for name, length in head["arrays"]:
        arrays[name] = np.frombuffer(message, "<f4" if name in ("thresholds", "sampled") else "<u4", length, start)
        start += 4 * length
    return head, arrays


class Thumb:
    """The thumb of a step's card: an inline component, moved here as the browser moves it."""

    def __init__(self, app: AppTest, element) -> None:
        self.app, self.id = app, element.proto.id
        self.head, self.arrays = unpacked(element.proto.bytes)
        self.place = self.head["place"]

    @property
    def value(self) -> float:
        return round(self.head["start"] + self.place * self.head["pace"], self.head["digits"])

    @property
    def chart(self) -> dict:
        """The histogram beside it, as the browser draws it."""
        layers = [{**layer, "counts": self.arrays[layer["counts"]]} for layer in self.head["layers"]]
        return {**self.head, "layers": layers}

    def set_value(self, value: float) -> Thumb:
        self.place = round((value - self.head["start"]) / self.head["pace"])
        return self

    def run(self) -> AppTest:
        """Lets the thumb go."""
        return say(self.app, self.id, "moved", {"place": self.place, "move": self.head["heard"] + 1})


def thumbs(app: AppTest) -> list[Thumb]:
    """The thumbs on the page, from top to bottom."""
    mounted = app.get("bidi_component")
    return [Thumb(app, element) for element in mounted if element.proto.component_name == "clipsel_control"]


def words(app: AppTest) -> str:
    """Everything that the page says: texts, captions, code and escaped HTML."""
    kinds = ("title", "header", "subheader", "markdown", "caption", "text", "code", "info", "warning", "error")
    said = [element.value for kind in kinds for element in app.get(kind)]
    return "\n".join([*map(str, said), *(element.proto.body for element in app.get("html"))])
