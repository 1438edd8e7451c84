"""What can be started from here that takes long? The buttons that open its forms."""

from __future__ import annotations

from clipsel_core.runs.store import Run
from pages.parts.jobs import forms, pooling, scoring, targets


def buttons(run: Run | None) -> None:
    """A button for each form, in a row. run: the run on show, if there is one."""
    if forms.button("Make a pool", "pool", ":material/add_photo_alternate:"):
        pooling.ask()
    if forms.button("Score a pool", "score", ":material/calculate:"):
        scoring.ask()
    if run and forms.button("Add a target", "target", ":material/my_location:", disabled=not run.finished):
        targets.ask_for_file(run)
