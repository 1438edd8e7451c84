"""How the page tests open the dashboard: one run, one page, no server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.parts import catalog

MAIN = Path(__file__).parents[2] / "pages" / "main.py"
PAGES = ("overview", "distributions", "map", "gallery", "select")

Opener = Callable[..., AppTest]


@pytest.fixture
def open_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens a page of the dashboard on one run, or on none."""

    def opener(page: str, run: Path | None = None) -> AppTest:
        monkeypatch.setenv("CLIPSEL_DATA", str(tmp_path / "nothing"))
        monkeypatch.setenv("CLIPSEL_RUNS", "")
        catalog.allow([run] if run else [])
        app = AppTest.from_file(str(MAIN), default_timeout=30).run()
        if page != "overview":
            app.switch_page(f"{page}.py").run()
        return app

    return opener


def components(app: AppTest, name: str) -> list[dict]:
    """What the inline components of a kind were given, in the page's order."""
    mounted = (element.proto for element in app.get("bidi_component"))
    return [json.loads(proto.json) for proto in mounted if proto.component_name == name]


def words(app: AppTest) -> str:
    """Everything that the page says: texts, captions, code and escaped HTML."""
    kinds = ("title", "header", "subheader", "markdown", "caption", "text", "code", "info", "warning", "error")
    said = [element.value for kind in kinds for element in app.get(kind)]
    return "\n".join([*map(str, said), *(element.proto.body for element in app.get("html"))])
