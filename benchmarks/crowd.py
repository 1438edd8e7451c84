"""How long do many people wait who move thresholds at once? Sessions without browsers, speaking the page's protocol.

Each session opens the page, then again and again moves a thumb to a place of its own, waits until the script has run to
its end, and thinks for a while. A browser each would measure the browsers: 20 of them need more than a server does.
What a browser would send is sent: the page it is on, the address as the page wrote it, and the state of every widget.
A page that shows an error ends the measurement: an error is answered in another time than a count.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import websockets
from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

_FINISHED = (ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY)


@dataclass
class Session:
    """One person's page. controls: what can be moved there, by id, with the fragment that it lies in."""

    socket: websockets.ClientConnection
    query: str
    page: str
    is_control: Callable[[object], bool]
    controls: dict[str, str] = field(default_factory=dict)
    page_hash: str = ""
    states: dict[str, WidgetState] = field(default_factory=dict)

    async def run(self, state: WidgetState | None = None, fragment: str = "") -> float:
        """Asks for a run of the script and waits for its end: seconds. Raises RuntimeError where it shows an error."""
        asked = BackMsg()
        rerun = asked.rerun_script
        rerun.query_string, rerun.page_script_hash, rerun.fragment_id = self.query, self.page_hash, fragment
        # The address names the page until the server has told its hash.
        rerun.page_name = "" if self.page_hash else self.page
        if state is not None:
            self.states[state.id] = state
        rerun.widget_states.widgets.extend(self.states.values())
        if state is not None and state.HasField("json_trigger_value"):
            del self.states[state.id]
        start = time.perf_counter()
        await self.socket.send(asked.SerializeToString())
        while True:
            said = ForwardMsg.FromString(await self.socket.recv())
            kind = said.WhichOneof("type")
            if kind == "delta" and said.delta.HasField("new_element"):
                self._meet(said.delta)
            elif kind == "navigation":
                self.page_hash = said.navigation.page_script_hash
            elif kind == "page_info_changed":
                self.query = said.page_info_changed.query_string
            elif kind == "script_finished" and said.script_finished in _FINISHED:
                return time.perf_counter() - start

    def _meet(self, delta) -> None:
        element = delta.new_element
        kind = element.WhichOneof("type")
        mounted = getattr(element, kind)
        if kind == "exception":
            raise RuntimeError(f"the page shows an error: {mounted.message}")
        if self.is_control(element):
            self.controls[mounted.id] = delta.fragment_id
        state = _first_state(kind, mounted)
        if state is not None:
            self.states.setdefault(mounted.id, state)


def _first_state(kind: str, widget) -> WidgetState | None:
    """What a browser reports of a widget that nobody has touched; None of what is not a widget of these pages."""
    state = WidgetState(id=getattr(widget, "id", ""))
    if kind == "selectbox":
        if widget.HasField("default"):
            state.string_value = widget.options[widget.default]
    elif kind == "checkbox":
        state.bool_value = widget.default
    elif kind == "text_input":
        state.string_value = widget.default
    elif kind == "slider":
        state.double_array_value.data.extend(widget.default)
    else:
        return None
    return state


def thumb_of(element) -> bool:
    """Whether an element is a thumb of our Select page."""
    return element.WhichOneof("type") == "bidi_component" and element.bidi_component.component_name == "clipsel_control"


def slider_of(element) -> bool:
    """Whether an element is a plain slider."""
    return element.WhichOneof("type") == "slider"


def thumb_moved(control: str, share: float) -> WidgetState:
    """What the browser sends when a thumb was let go, at a share of 0 to 1 of its track."""
    said = WidgetState(id=_make_trigger_id(control, "events"))
    moved = {"place": round(1000 * share), "move": 1000 * time.time()}
    said.json_trigger_value = json.dumps([{"event": "moved", "value": moved}])
    return said


def slider_moved(span: tuple[float, float]) -> Callable[[str, float], WidgetState]:
    """What the browser sends when a plain slider was moved over a span of scores."""

    def moved(control: str, share: float) -> WidgetState:
        said = WidgetState(id=control)
        said.double_array_value.data.append(span[0] + share * (span[1] - span[0]))
        return said

    return moved


def measure(
    url: str,
    query: str,
    page: str,
    is_control: Callable[[object], bool],
    moved: Callable[[str, float], WidgetState],
    *,
    sessions: int = 20,
    moves: int = 8,
    think_s: tuple[float, float] = (0.5, 1.5),
) -> list[float]:
    """Seconds from letting go to the script's end, of every move of every session."""
    # In a thread of its own: Playwright keeps a loop in the one that asks.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(
            asyncio.run, _crowd(url, query, page, is_control, moved, sessions, moves, think_s)
        ).result()


async def _crowd(url, query, page, is_control, moved, sessions, moves, think_s) -> list[float]:
    address = url.replace("http", "ws", 1) + "/_stcore/stream"

    everyone_is_there = asyncio.Barrier(sessions)

    async def person(number: int) -> list[float]:
        draw, waits = random.Random(number), []
        async with websockets.connect(address, subprotocols=["streamlit"], origin=url, max_size=None) as socket:
            session = Session(socket, query, page, is_control)
            await session.run()
            await everyone_is_there.wait()
            for _ in range(moves):
                await asyncio.sleep(draw.uniform(*think_s))
                control = draw.choice(sorted(session.controls))
                state = moved(control, draw.uniform(0.05, 0.95))
                waits.append(await session.run(state, session.controls[control]))
        return waits

    found = await asyncio.gather(*(person(number) for number in range(sessions)))
    return [wait for waits in found for wait in waits]
