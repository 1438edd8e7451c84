"""Which recipes and lists of uids are at hand, and what is being edited? One draft a run, kept for the session.

The draft gives each step a number that stays with it while others come and go, so that its widgets keep their state.
Everything that is counted or exported is the draft's YAML, read by the core's parser; "" stands for no step at all.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import zlib
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from clipsel_core.curation.recipes.recipe import (
    AnyOf,
    AnyStep,
    AtLeast,
    AtMost,
    Between,
    Drop,
    FilterStep,
    Keep,
    KeepBottom,
    KeepTop,
    Recipe,
    Sample,
    ScoreStep,
    Step,
    dump_recipe,
    load_recipe,
)
from clipsel_core.curation.recipes.uidlists import LIST_ENDINGS, read_uid_list
from clipsel_core.errors import ClipselError, UidError
from clipsel_core.places import Place
from clipsel_core.runs.columns import NEAREST, S_CLIPLOSS, words_of
from clipsel_core.runs.store import Run
from pages.parts import catalog, registry, sessions, words
from pages.parts.catalog import Entry

Draft = dict[int, AnyStep]
_LISTS = "lists"


@dataclass
class Drafts:
    """The drafts of a session, by the keys of their runs. next_number: of a new step, never used before."""

    by_run: dict[str, Draft] = field(default_factory=dict)
    next_number: int = 0

    def number(self) -> int:
        """The number of one more step."""
        self.next_number += 1
        return self.next_number - 1


def saved(run: Run) -> dict[str, Place]:
    """The recipes saved with the run, by name."""
    names = [name for name in run.recipes_dir.names() if name.endswith(".yaml")]
    return {name.removesuffix(".yaml"): run.recipes_dir / name for name in names}


def list_files(run: Run) -> list[str]:
    """The lists of uids at hand, as a recipe of the run names them: saved with the recipes, uploaded or exported."""
    kept, endings = run.recipes_dir, LIST_ENDINGS.split(", ")
    folders = {"": kept, f"{_LISTS}/": kept / _LISTS, "../exports/": run.exports_dir}
    named = ((before, folder / name) for before, folder in folders.items() for name in folder.names())
    return [before + file.name for before, file in named if f".{file.ending}" in endings and _is_own(run, file)]


def _is_own(run: Run, file: Place) -> bool:
    """Whether it is a file, and no link that leads out of the run; a store has none."""
    return file.remote or (file.is_file() and Path(file).resolve().is_relative_to(Path(run.root).resolve()))


def store_list(run: Run, name: str, content: bytes) -> str:
    """Keeps an uploaded list beside the run's recipes, under a name of our own, and returns how recipes name it.

    name: the user's file name; only its ending and its harmless characters are used. The same content under the same
    name is stored once. Raises: UidError where it is no list of uids, RunError where the folder is a link that leads
    out of the run; nothing is kept then.
    """
    given = Path(name)
    suffix = given.suffix.lower()
    if suffix not in LIST_ENDINGS.split(", "):
        raise UidError(given.name, expected=f"a name ending in {LIST_ENDINGS}", found=given.suffix or "no ending")
    stem = re.sub(r"[^A-Za-z0-9]+", "-", given.stem).strip("-")[:40] or "list"
    safe = f"{stem}-{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
    folder = run.recipes_dir / _LISTS
    catalog.check_within(run.root, folder)
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside) / safe
        file.write_bytes(content)
        try:
            read_uid_list(file)
        except UidError as error:
            raise UidError(given.name, expected=error.expected, found=error.found, remedy=error.remedy) from error
        (folder / safe).write_bytes(content)
    return f"{_LISTS}/{safe}"


def suggestion(run: Run) -> list[AnyStep]:
    """The paper's two steps as far as the run was scored for them: 30 %, then 20 % of the pool.

    Targets that are added later change nothing of it: an address without a recipe stands for this one.
    """
    scored = run.config.metrics
    steps: list[AnyStep] = []
    if S_CLIPLOSS.name in scored:
        steps.append(KeepTop(column=S_CLIPLOSS.name, keep_top=Decimal("0.3")))
    near = next((name for name in scored if name.startswith(NEAREST)), None)
    if near:
        steps.append(KeepTop(column=near, keep_top=Decimal("0.2")))
    return steps or [KeepTop(column=name, keep_top=Decimal("0.3")) for name in scored[:1]]


def draft(entry: Entry, run: Run) -> Draft:
    """The steps being edited in this session, in order; the suggestion at first."""
    drafts = sessions.get(Drafts).by_run
    if entry.key not in drafts:
        replace_draft(entry, suggestion(run))
    return drafts[entry.key]


def replace_draft(entry: Entry, steps: list[AnyStep]) -> None:
    """Puts other steps in the draft's place, under numbers that were never used before."""
    drafts = sessions.get(Drafts)
    drafts.by_run[entry.key] = {drafts.number(): step for step in steps}


def add_step(entry: Entry, run: Run, step: AnyStep) -> None:
    """Adds a step behind the others, but before a sample."""
    steps, drafts = draft(entry, run), sessions.get(Drafts)
    drafts.by_run[entry.key] = _sample_last({**steps, drafts.number(): step})


def change_step(entry: Entry, run: Run, number: int, step: AnyStep | None) -> None:
    """Puts another step in a step's place, or takes it out where there is none."""
    steps = {key: step if key == number else old for key, old in draft(entry, run).items()}
    sessions.get(Drafts).by_run[entry.key] = {key: kept for key, kept in steps.items() if kept is not None}


def move_step(entry: Entry, run: Run, number: int, by: int) -> None:
    """Lets a step run so many places later; earlier where it is below 0."""
    steps = list(draft(entry, run).items())
    place = next(place for place, (key, _) in enumerate(steps) if key == number)
    moved = steps.pop(place)
    steps.insert(min(max(place + by, 0), len(steps)), moved)
    sessions.get(Drafts).by_run[entry.key] = _sample_last(dict(steps))


def _sample_last(steps: Draft) -> Draft:
    """The steps in their order, but a sample, which is drawn of what all others leave."""
    return dict(sorted(steps.items(), key=lambda numbered: isinstance(numbered[1], Sample)))


def same_steps(one: Draft, other: Draft) -> bool:
    """Whether two drafts have the same steps, but perhaps for how much each of them keeps."""
    return list(one) == list(other) and all(_bare(one[number]) == _bare(other[number]) for number in one)


def _bare(step: AnyStep) -> AnyStep:
    """A step without its amount."""
    return step.model_copy(update={step.kind: None}) if isinstance(step, ScoreStep) else step


def by_hand(entry: Entry, run: Run) -> dict[str, str]:
    """What was said of single pairs: from a uid, 32 hex digits, to keep or drop. The last step that names it counts."""
    steps = (step for step in draft(entry, run).values() if isinstance(step, Keep | Drop) and step.enabled)
    return {uid: step.kind for step in steps for uid in getattr(step, step.kind)}


def keep_or_drop(entry: Entry, run: Run, uid: str, kind: str) -> None:
    """Keeps or drops a pair by hand; the same again takes it back. kind: keep or drop.

    The pair leaves every step by hand that names it and joins the last one of its kind, or a new one behind all others.
    The draft changes once, at the end: see cards.handle_presses.
    """
    taken_back, steps, drafts = by_hand(entry, run).get(uid) == kind, Draft(), sessions.get(Drafts)
    for number, step in draft(entry, run).items():
        if isinstance(step, Keep | Drop) and uid in getattr(step, step.kind):
            left = tuple(other for other in getattr(step, step.kind) if other != uid)
            if not left:
                continue
            step = step.model_copy(update={step.kind: left})
        steps[number] = step
    if not taken_back:
        made = Keep if kind == "keep" else Drop
        fitting = [number for number, step in steps.items() if isinstance(step, made) and step.enabled]
        last = fitting[-1] if fitting else None
        if last is None:
            last = drafts.number()
            steps[last] = made.model_validate({kind: [uid]})
        else:
            steps[last] = steps[last].model_copy(update={kind: (*getattr(steps[last], kind), uid)})
    drafts.by_run[entry.key] = _sample_last(steps)


def draft_yaml(entry: Entry, run: Run) -> str:
    """The draft as a recipe."""
    return as_yaml(list(draft(entry, run).values()))


def as_yaml(steps: list[AnyStep]) -> str:
    """The recipe of these steps; "" where there is none."""
    return dump_recipe(Recipe(steps=tuple(steps))) if steps else ""


def ranked_by(step: ScoreStep) -> str:
    """The column, or mix, that a step compares or ranks by: of keep_bottom not the one that is turned round."""
    return step.ranked if isinstance(step, KeepBottom) else step.metric


def mark(recipe: Recipe) -> str:
    """What tells a recipe from another in what the browser is sent: 8 hex digits."""
    return f"{zlib.crc32(dump_recipe(recipe).encode()):08x}"


def in_words(entry: Entry, path: Place) -> str:
    """What a saved recipe does, in one line; or what is wrong with it."""
    try:
        return ", then ".join(step_in_words(entry, step) for step in load_recipe(path).steps)
    except ClipselError as error:
        return str(error)


def step_in_words(entry: Entry, step: Step, amount: str | None = None) -> str:
    """One step as a person would say it. amount: said in place of its own, of a step with a thumb."""
    match step:
        case KeepTop() | KeepBottom():
            end = "top" if isinstance(step, KeepTop) else "bottom"
            said = registry.title(entry, step.column or ranked_by(step))
            text = f"{end} {amount or words.percent(step.part)} of the {step.of} by {said}"
        case AtLeast() | AtMost():
            sign = "≥" if isinstance(step, AtLeast) else "≤"
            text = f"{registry.title(entry, step.column or step.metric)} {sign} {amount or f'{step.value:.15g}'}"
        case Between(between=(low, high)):
            text = f"{registry.title(entry, step.column)} from {low:.15g} to {high:.15g}"
        case FilterStep():
            text = f"{registry.title(entry, step.column)}{step.text.removeprefix(step.column)}"
        case AnyOf():
            text = " or ".join(step_in_words(entry, judge) for judge in step.any_of)
        case Sample():
            text = step.text.replace(words_of(step.metric), registry.title(entry, step.metric))
        case _:
            text = step.text
    return text if step.enabled else f"{text} (off)"
