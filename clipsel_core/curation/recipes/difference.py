"""What does one recipe say that another does not? Their steps side by side, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from clipsel_core.curation.recipes.recipe import Recipe
from clipsel_core.curation.recipes.recipe_steps import AnyStep, AtLeast, AtMost, Drop, Keep, KeepTop

Kind = Literal["same", "changed", "moved", "added", "removed"]


@dataclass(frozen=True)
class Change:
    """A step of either recipe. before: as the first recipe has it, after: as the second; None where it lacks it.

    kind: same, changed (another value, or switched on or off), moved (the same or changed, but run at another point),
    added or removed.
    """

    kind: Kind
    before: AnyStep | None
    after: AnyStep | None

    @property
    def text(self) -> str:
        """The change in words.

        >>> from clipsel_core.curation.recipes.recipe_files import parse_recipe
        >>> a = parse_recipe("steps: [{metric: clip_score, keep_top: 0.3}]")
        >>> b = parse_recipe("steps: [{metric: clip_score, keep_top: 0.2}]")
        >>> differences(a, b)[0].text
        'changed: top 30 % of the pool by clip_score -> top 20 % of the pool by clip_score'
        """
        if self.before is None or self.after is None:
            return f"{self.kind}: {said(self.after or self.before)}"
        first, last = said(self.before), said(self.after)
        if isinstance(self.before, Keep | Drop) and self.before != self.after:
            last = f"{last} ({_by_hand(self.before, self.after)})"
        return f"{self.kind}: {first}" if first == last else f"{self.kind}: {first} -> {last}"


def differences(first: Recipe, second: Recipe) -> list[Change]:
    """The steps of both recipes in an order that both keep as far as they agree.

    Two steps are the same step where they use the same metric, list or kind of hand-made choice. Those in the longest
    stretches that both recipes run in one order are matched first; what is left is matched as moved.
    """
    before, after = list(first.steps), list(second.steps)
    matcher = SequenceMatcher(None, [_key(step) for step in before], [_key(step) for step in after], autojunk=False)
    rows: list[tuple[AnyStep | None, AnyStep | None]] = []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            rows += zip(before[i:i_end], after[j:j_end], strict=True)
        else:
            rows += [(step, None) for step in before[i:i_end]] + [(None, step) for step in after[j:j_end]]
    return _joined(rows)


def said(step: AnyStep | None) -> str:
    """A step in words, and whether it is off."""
    if step is None:
        return "none"
    return step.text if step.enabled else f"{step.text} (off)"


def _key(step: AnyStep) -> tuple[str, str]:
    if isinstance(step, KeepTop | AtLeast | AtMost):
        return "metric", step.metric
    return ("by hand", step.kind) if isinstance(step, Keep | Drop) else (step.kind, getattr(step, step.kind))


def _joined(rows: list[tuple[AnyStep | None, AnyStep | None]]) -> list[Change]:
    """A step that is gone from one place and new at another is one that moved, told where it is now."""
    gone = [step for step, other in rows if step is not None and other is None]
    changes: list[Change] = []
    moved: list[AnyStep] = []
    for before, after in rows:
        if before is not None and after is not None:
            changes.append(Change("same" if before == after else "changed", before, after))
        elif after is not None:
            old = next((step for step in gone if _key(step) == _key(after)), None)
            if old is None:
                changes.append(Change("added", None, after))
            else:
                gone = [step for step in gone if step is not old]
                moved.append(old)
                changes.append(Change("moved", old, after))
        else:
            changes.append(Change("removed", before, None))
    return [change for change in changes if change.kind != "removed" or not any(change.before is old for old in moved)]


def _by_hand(before: AnyStep, after: AnyStep) -> str:
    """How two lists by hand differ, in pairs."""
    old, new = set(getattr(before, before.kind)), set(getattr(after, after.kind))
    return f"{len(new - old):,} more, {len(old - new):,} fewer"
