"""Which jobs are at work, how far are they, and how did the others end? The panel that shows them on any page.

A page starts one with `launch`, calls `draw_panel` where it is to be watched, and asks `at_work` before it offers
another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import streamlit as st

from clipsel_core.errors import ClipselError, counted
from clipsel_core.jobs import control
from clipsel_core.jobs.control import Job, JobState, forget, listing, note_opened
from clipsel_core.places import protocol_of
from clipsel_core.runs.store import Run
from clipsel_core.status import Status
from pages.parts import catalog, messages, search_links, sessions, stores, words
from pages.parts.catalog import Entry
from pages.parts.jobs import dialogs, folders

_SECONDS = 0.5
_ENDED_SHOWN = 3
# Whose titles do not name what they are about.
_ABOUT_A_RUN = ("add-column", "add-target", "project", "search")
_ICONS: dict[JobState, str] = {
    "done": ":material/check_circle:",
    "failed": ":material/error:",
    "cancelled": ":material/cancel:",
    "lost": ":material/help:",
}


# Jobs whose end this server has taken note of.
_heard: set[str] = set()


@dataclass
class Panel:
    """What a session did with jobs. failed: why one could not be started or cancelled, to be said.

    opened: whether another run or a form was opened from the panel, so that the page has to be drawn anew.
    """

    failed: ClipselError | None = None
    opened: bool = False


def launch(
    command: str,
    paths: Sequence[str | os.PathLike[str]],
    options: Mapping[str, control.Option] | None = None,
    *,
    title: str,
    about: str | os.PathLike[str],
) -> Job | None:
    """Starts one of our commands as a job; see control.start. None where it could not: show_failure says why."""
    try:
        job = control.start(
            catalog.jobs_folder(),
            command,
            paths,
            options,
            title=title,
            about=about,
            may_read=folders.job_roots(),
        )
    except ClipselError as error:
        refuse(error)
        return None
    # The same that ended earlier has nothing to say any more.
    _clear([other for other in _listed() if other.info.words == job.info.words and other.id != job.id])
    return job


def resume_scoring(run: Run) -> None:
    """Starts the scoring of an unfinished run again, as it was begun."""
    arguments = messages.score_options(run)
    launch("score", [run.pool_address, run.root], arguments, title=f"Score {run.root.name}", about=run.root)


def refuse(error: ClipselError) -> None:
    """Has show_failure say why a job is not even asked for."""
    sessions.get(Panel).failed = error


def show_failure() -> None:
    """Why a job could not be started or cancelled, once; for where no panel is drawn anew that says it."""
    panel = sessions.get(Panel)
    if panel.failed:
        messages.show_error(panel.failed, "The job could not be started or cancelled")
        panel.failed = None


def at_work(word: str, about: str | os.PathLike[str]) -> Job | None:
    """The job about a folder that is at work, or waits to be, and has this word in its command line; None without one.

    word: the command, or where it writes to: --out=FILE.
    """
    return next((job for job in _jobs(word, about) if job.active), None)


def latest(command: str, about: str | os.PathLike[str]) -> Job | None:
    """The job of this command that was started last on a folder, None where there is none."""
    return next(iter(_jobs(command, about)), None)


def looked_at(file: str | os.PathLike[str], about: str | os.PathLike[str]) -> None:
    """Notes that what the jobs about a folder wrote into this file (--out) is on show: no page need lead there now."""
    for job in _jobs(f"--out={file}", about):
        if job.state == "done" and not job.opened:
            note_opened(job)


def _jobs(word: str, about: str | os.PathLike[str]) -> list[Job]:
    """The jobs about a folder whose command lines have this word, the latest first."""
    return [job for job in _listed(_named(about)) if word in job.info.words]


def draw_glance() -> None:
    """One quiet line a job for the sidebar, on every page: what is at work, how far, and what waits."""
    active_then = [job.id for job in _listed() if job.active]

    def draw() -> None:
        control.reap()
        found = _listed()
        active = [job for job in found if job.active]
        if [job.id for job in active] != active_then:
            st.rerun()
        for job in reversed(active):
            if job.state == "waiting":
                messages.show_note(f"{job.info.title} · {_place(job, found)}")
                continue
            status = job.status
            # A title may quote what somebody typed: escaped here, where the bar's own text would be markdown.
            messages.show_note(f"{job.info.title} · {100 * status.share:.0f} %")
            st.progress(status.share)

    if active_then:
        sessions.fragment(draw, run_every=2 * _SECONDS)()


def draw_search(job: Job) -> None:
    """How far one search is, for where it was started beside the panel; at its end, the way to what it found."""

    def draw() -> None:
        control.reap()
        everywhere, status = _listed(), job.status
        how = job.state_at(status)
        if how == "done":
            _lead_to_found(job, key=f"watched {job.id}")
            return
        if how in ("cancelled", "failed", "lost"):
            what: dict[JobState, str] = {"cancelled": "was cancelled", "failed": "failed"}
            ended = what.get(how, "ended without a word")
            messages.show_note(f"The search {ended}; the Jobs on Overview and Search say more.")
            return
        notes: dict[JobState, str] = {"stopping": "stopping …", "waiting": _place(job, everywhere)}
        act: dict[str, Any] = {"disabled": how == "stopping", "on_click": _cancel, "args": (job,)}
        with st.container(horizontal=True, vertical_alignment="center"):
            st.progress(status.share, text=f"All pairs: {notes.get(how) or _how_far(job, status)}")
            st.button("Cancel", key=f"cancel watched {job.id}", **act)

    sessions.fragment(draw, run_every=_SECONDS)()


def _lead_to_found(job: Job, *, key: str) -> None:
    """What a search found can be seen where the run is on show that it was made in."""
    entry, out = _entry_of(job), next((word for word in job.info.words if word.startswith("--out=")), "")
    if entry is None or entry.label != st.session_state.get("run") or not out:
        return
    file = entry.root / "searches" / PurePath(out).name
    if file.is_file():
        search_links.draw_link("See what it found", ":material/travel_explore:", key=key, kept=file.name)


def draw_panel(about: str | os.PathLike[str] | None = None) -> None:
    """The jobs; nothing where there is none. The page is drawn anew when one ends.

    about: only those about a folder, for a page that has other things to show: of those that ended one line.
    """
    control.reap()
    show_failure()
    folder = _named(about) if about else None
    then = _listed(folder)
    active_then = [job.id for job in then if job.active]
    labels_then = [entry.label for entry in catalog.entries()]

    def draw() -> None:
        control.reap()
        found = _listed(folder)
        active = [job for job in found if job.active]
        ended = [job for job in found if job not in active]
        # Whoever else shows what a job makes has to look again: the run picker, the map, the sliders.
        session, labels = sessions.get(Panel), [entry.label for entry in catalog.entries()]
        opened, session.opened = session.opened, False
        if opened or [job.id for job in active] != active_then or labels != labels_then:
            st.rerun()
        # What a job made tells of itself where it is seen, and a map is seen where it was waited for.
        telling = [job for job in ended if job.state != "done" or not (job.opened or job.command == "project")][:1]
        if about is None:
            with st.container(border=True, key="jobs", gap="small"):
                _show_all(active, ended)
        elif active or telling:
            with st.container(border=bool(active), key="jobs", gap="small"):
                if active:
                    _show_all(active, [])
                for job in telling:
                    _show_ended(job, brief=True)

    if then:
        sessions.fragment(draw, run_every=_SECONDS if active_then else None)()


def _show_all(active: list[Job], ended: list[Job]) -> None:
    st.markdown("**Jobs**")
    # All jobs stand in the queue, those about another run too; who comes first stands first.
    everywhere = _listed()
    for job in sorted(active, key=lambda job: (not job.begun, job.id)):
        status = job.status
        how = job.state_at(status)
        notes: dict[JobState, str] = {"stopping": "stopping …", "waiting": _place(job, everywhere)}
        with st.container(horizontal=True, vertical_alignment="center"):
            with st.container():
                messages.show_title(_title(job), notes.get(how, status.note))
            st.button("Cancel", key=f"cancel {job.id}", disabled=how == "stopping", on_click=_cancel, args=(job,))
        if how != "waiting":
            st.progress(status.share, text=_how_far(job, status))
            with st.expander("Log", key=f"log {job.id}"):
                st.code(job.log_tail or "nothing printed yet", language=None, wrap_lines=True)
    for job in ended[:_ENDED_SHOWN]:
        _show_ended(job)
    if len(ended) > 1:
        with st.container(horizontal=True, horizontal_alignment="right"):
            st.button("Clear those that ended", type="tertiary", key="clear jobs", on_click=_clear, args=(ended,))


def _place(job: Job, everywhere: list[Job]) -> str:
    """Where a job stands in the queue."""
    before = control.jobs_before(job, everywhere)
    return f"waiting, {words.number(before)} before it" if before else "starting"


def _how_far(job: Job, status: Status) -> str:
    if not status.total:
        return f"starting · {words.duration(job.seconds)}"
    if status.unit:
        parts = [f"{words.number(status.done or 0)} of {counted(status.total, status.unit)}"]
        parts += [f"{words.rate(status.per_s)} {status.unit}/s"] if status.per_s else []
    else:
        parts = [f"{100 * status.share:.0f} %"]
    left = f"{words.duration(status.left_s)} left" if status.left_s else f"{words.duration(job.seconds)} so far"
    return " · ".join([*parts, left])


def _show_ended(job: Job, *, brief: bool = False) -> None:
    """How a job ended and what can be done now. brief: in one line, with what it said behind a button."""
    status = job.status
    how = job.state_at(status)
    goes_on = "; it goes on where it stopped" if job.command in control.RESUMES else ""
    notes: dict[JobState, str] = {
        "done": f"done in {words.duration(job.seconds)}",
        "failed": "failed",
        "cancelled": f"cancelled after {words.duration(job.seconds)}{goes_on}",
        "lost": f"ended without a word: killed, or the machine was restarted{goes_on}",
    }
    label = _run_label(job)

    def open_run() -> None:
        st.session_state["run"], sessions.get(Panel).opened = label, True

    def ask_to_score() -> None:
        dialogs.open_with("score", folders.short_path(Path(job.info.about)))
        sessions.get(Panel).opened = True

    with st.container(horizontal=True, vertical_alignment="center", key=f"ended {job.id}" if brief else None):
        st.markdown(_ICONS[how], width="content")
        with st.container():
            messages.show_title(_title(job), notes[how])
        if brief and how in ("failed", "lost"):
            with st.popover("Why"):
                _show_said(job, how, status)
        if how == "done" and job.command in ("score", "search") and label not in (None, st.session_state.get("run")):
            st.button("Open the run", key=f"open {job.id}", on_click=open_run)
        if how == "done" and job.command == "embed":
            st.button("Score it", key=f"score {job.id}", on_click=ask_to_score)
        if how == "done" and job.command == "search":
            _lead_to_found(job, key=f"found {job.id}")
        if how != "done":
            st.button("Start again", key=f"again {job.id}", on_click=_again, args=(job,))
        away: dict[str, Any] = {"icon": ":material/close:", "help": "Dismiss", "type": "tertiary"}
        st.button("Dismiss", key=f"forget {job.id}", on_click=forget, args=(job,), **away)
    if not brief:
        _show_said(job, how, status)


def _show_said(job: Job, how: JobState, status: Status) -> None:
    if how in ("done", "failed") and status.message:
        st.code(status.message, language=None, wrap_lines=True)
    if how in ("failed", "lost"):
        with st.expander("Log and command", key=f"log {job.id}"):
            st.code(job.log_tail or "nothing was printed", language=None, wrap_lines=True)
            st.code(messages.command(*job.info.words), language="bash", wrap_lines=True)


def _title(job: Job) -> str:
    """What the job is, and which run it is about where that is not the one on show."""
    label = _run_label(job) if job.command in _ABOUT_A_RUN else None
    return job.info.title if label in (None, st.session_state.get("run")) else f"{job.info.title} · {label}"


def _run_label(job: Job) -> str | None:
    """What the run picker calls the run that the job is about; None where it does not show it."""
    entry = _entry_of(job)
    return entry.label if entry else None


def _entry_of(job: Job) -> Entry | None:
    """The run that the job is about; None where it is not on show."""
    about = _named(job.info.about)
    return next((entry for entry in catalog.entries() if _named(entry.root) == about), None)


def _named(about: str | os.PathLike[str]) -> str:
    """How jobs name what they are about: by its address, or its path with links followed; no store is opened for it."""
    return str(about) if protocol_of(str(about)) else os.path.realpath(about)


def _listed(about: str | None = None) -> list[Job]:
    """The jobs there are, or those about a folder, the latest first.

    What one that ended has changed in a store is asked for anew, once: the page that is drawn next shows it.
    """
    found = listing(catalog.jobs_folder(), about)
    for job in found:
        if job.id not in _heard and not job.active:
            if protocol_of(job.info.about) and (entry := _entry_of(job)):
                stores.ask_anew(entry.root)
            _heard.add(job.id)  # last: whoever finds it here finds what it changed
    return found


def _cancel(job: Job) -> None:
    try:
        control.cancel(job)
    except ClipselError as error:
        refuse(error)


def _again(job: Job) -> None:
    try:
        control.again(catalog.jobs_folder(), job, may_read=folders.job_roots())
        forget(job)
    except ClipselError as error:
        refuse(error)


def _clear(ended: list[Job]) -> None:
    for job in ended:
        forget(job)
