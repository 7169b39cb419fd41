"""What guards say of each row of a table: means, paired differences to the base, and the warning that one falls while
the trained reward rises.

A guard's values have no ends as shares have, so that their intervals are Student's over prompts, each with the mean of
its images: the units are the prompts, as in all tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from promptecho.guard_files import GuardFile
from promptecho.intervals import CONFIDENCE
from promptecho.tables.table import Cell, Column, Panel

PREFIX = "guard:"  # of the keys of their columns
PANEL = "Guards, in their own units"
Place = tuple[str, str, int]  # experiment, run and step


@dataclass(frozen=True)
class GuardEstimate:
    """A mean over prompts with its interval; without one (low and high None) where there is a single prompt."""

    value: float
    low: float | None
    high: float | None
    n_items: int
    n_prompts: int


def estimate(by_prompt: Mapping[str, Sequence[float]]) -> GuardEstimate:
    """The mean of the prompts' means, with Student's interval over prompts."""
    from scipy.special import stdtrit  # scipy.stats takes longer to import than a table takes to make

    means = [fmean(by_prompt[prompt]) for prompt in sorted(by_prompt)]
    value, n_items = fmean(means), sum(map(len, by_prompt.values()))
    if len(means) < 2:
        return GuardEstimate(value, None, None, n_items, len(means))
    half = float(stdtrit(len(means) - 1, (1 + CONFIDENCE) / 2)) * stdev(means) / math.sqrt(len(means))
    return GuardEstimate(value, value - half, value + half, n_items, len(means))


class Guards:
    """Guards' scores of the rows of one table."""

    def __init__(self, files: Iterable[GuardFile] = ()):
        self._files: dict[str, dict[Place, GuardFile]] = {}
        for title, some in _by_title(files).items():
            self._files[title] = {file.place: file for file in some}
        self._differences: dict[tuple, GuardEstimate | None] = {}

    def __bool__(self) -> bool:
        return bool(self._files)

    @property
    def titles(self) -> list[str]:
        """Their names, those first that some run is trained with."""
        return sorted(self._files, key=lambda one: (not any(map(_is_trained, self._files[one].values())), one))

    def unit(self, title: str) -> str:
        """What its numbers are."""
        return next(iter(self._files[title].values())).scores.provenance.unit

    def value(self, title: str, places: Sequence[Place]) -> GuardEstimate | None:
        """Of a checkpoint, or of the seeds of one training as further images of the same prompts; None where it has no
        scores of one of them."""
        found = [self._files[title].get(place) for place in places]
        values = [_outcomes(file) for file in found if file is not None]
        if not values or len(values) < len(found):
            return None
        return estimate(_together(values)) if any(values) else None

    def difference(self, title: str, places: Sequence[Place]) -> GuardEstimate | None:
        """What these have more than the base of their experiment, on the same images, paired; None where they are no
        trained checkpoints, or there is nothing to compare with."""
        key = (title, *places)
        if key not in self._differences:
            self._differences[key] = self._difference(title, places)
        return self._differences[key]

    def _difference(self, title: str, places: Sequence[Place]) -> GuardEstimate | None:
        differences = []
        for place in places:
            file, base = self._files[title].get(place), self._files[title].get((place[0], "base", 0))
            if file is None or base is None or file is base:
                return None
            if file.scores.provenance.prompts_digest != base.scores.provenance.prompts_digest:
                return None
            before = _outcomes(base)
            differences.append({key: value - before[key] for key, value in _outcomes(file).items() if key in before})
        return estimate(_together(differences)) if any(differences) else None

    def cells(self, places: Sequence[Place]) -> dict[str, Cell]:
        """Column -> cell of a row."""
        found = {}
        for title in self.titles:
            for key, one in ((title, self.value(title, places)), (f"{title}:gain", self.difference(title, places))):
                if one is not None:
                    found[f"{PREFIX}{key}"] = Cell(one.value, one.low, one.high)
        return found

    def columns(self) -> list[Column]:
        """Two of each guard: what it gives, and the difference to the base."""
        found = []
        for title in self.titles:
            found += [
                Column(f"{PREFIX}{title}", title, 3, self.unit(title), interval=True),
                Column(f"{PREFIX}{title}:gain", f"Δ {title} vs base", 3, signed=True, interval=True),
            ]
        return found

    def panels(self, panels: Sequence[Panel], columns: Sequence[Column]) -> list[Panel]:
        """The panels of a table with those of the guards behind them; `columns` are the table's own."""
        own = [*panels] or [Panel("", tuple(column.key for column in columns if column.decimals is not None))]
        return [*own, Panel(PANEL, tuple(column.key for column in self.columns()))]

    def warning(self, label: str, places: Sequence[Place]) -> str:
        """That a reward that these were trained with rises while a guard falls, each by an interval that leaves 0 out;
        "" where that is not so."""
        if not (fallen := self.fallen(places)):
            return ""
        risen = [one for one in self._trained(places) if _above(self.difference(one, places))]
        return (
            f"{label}: trained reward up, guard down: {self._told(risen, places)} while {self._told(fallen, places)} "
            "against the base; look at the images before you take this checkpoint, an earlier one may be better"
        )

    def fallen(self, places: Sequence[Place]) -> list[str]:
        """The guards by which there is a warning."""
        trained = self._trained(places)
        if not any(_above(self.difference(title, places)) for title in trained):
            return []
        found = {title: self.difference(title, places) for title in self.titles if title not in trained}
        return [title for title, one in found.items() if one is not None and one.high is not None and one.high < 0]

    def notes(self, places: Iterable[Place]) -> list[str]:
        """Footnotes."""
        level, rows = f"{CONFIDENCE:.0%}", list(dict.fromkeys(places))
        found = [
            f"Guards ({', '.join(self.titles)}) score the same images and are means over prompts, in their own units; "
            f"{level} intervals are Student's over prompts, differences are paired image by image. A warning tells "
            "where the interval of a reward that the row was trained with lies above 0 and that of another guard below "
            "it; neither is corrected for the number of guards and rows."
        ]
        found += [told for title in self.titles if (told := self._failures(title, rows))]
        found += [told for title in self.titles if (told := self._elsewhere(title, rows))]
        if bare := self._bare(rows):
            found.append(
                f"No guard is known to be the reward that {', '.join(bare)} was trained with, so that no warning can "
                "be given: list that reward in guards, too."
            )
        return found

    def _failures(self, title: str, places: Sequence[Place]) -> str:
        """How many images of these checkpoints have no value of a guard; "" where all have one."""
        files = [file for place in places if (file := self._files[title].get(place)) is not None]
        failed = {file.place: sum(item.outcome is None for item in file.scores.items) for file in files}
        if not any(failed.values()):
            return ""
        worst = max(files, key=lambda file: failed[file.place] / len(file.scores.items))
        _, run, step = worst.place
        return (
            f"Guard {title} has no value of {sum(failed.values())} of {sum(len(file.scores.items) for file in files)} "
            "images, which its means leave out: they can't be decoded, or the reward has none for them. Its largest "
            f"share is at {run} @ {step}: {failed[worst.place]} of {len(worst.scores.items)}."
        )

    def _elsewhere(self, title: str, places: Sequence[Place]) -> str:
        """That a guard has scored no checkpoint of the table, and which it has; "" where it has scored one."""
        files = self._files[title]
        if any(place in files for place in places):
            return ""
        scored = sorted(f"{experiment}: {run} @ {step}" for experiment, run, step in files)
        more = f" and {len(scored) - 3} more" if len(scored) > 3 else ""
        return (
            f"Guard {title} has scored no row of this table: its files are of {', '.join(scored[:3])}{more}. An "
            "experiment is named by its configuration's file."
        )

    def _bare(self, places: Sequence[Place]) -> list[str]:
        """The trained runs of these checkpoints that guards watch, but none that is their reward."""
        several = len({experiment for experiment, _, _ in places}) > 1
        trained: dict[tuple[str, str], bool] = {}
        for experiment, run, step in places:
            files = [file for some in self._files.values() if (file := some.get((experiment, run, step))) is not None]
            if files and run != "base" and not any(file.scores.provenance.adapter for file in files):
                key = (experiment, run)
                trained[key] = trained.get(key, False) or any(map(_is_trained, files))
        return [f"{key[0]}: {key[1]}" if several else key[1] for key in sorted(trained) if not trained[key]]

    def models(self) -> dict[str, str]:
        """By guard, the model that it asks."""
        return {title: next(iter(self._files[title].values())).scores.provenance.judge_model for title in self.titles}

    def facts(self) -> list[dict[str, Any]]:
        """Where all of it comes from."""
        return [
            file.scores.provenance.model_dump(mode="json")
            for title in self.titles
            for file in self._files[title].values()
        ]

    def _trained(self, places: Sequence[Place]) -> list[str]:
        """The guards that are what all of these were trained with."""
        return [
            title
            for title in self.titles
            if all((file := self._files[title].get(place)) is not None and _is_trained(file) for place in places)
        ]

    def _told(self, titles: Sequence[str], places: Sequence[Place]) -> str:
        told = []
        for title in titles:
            one = self.difference(title, places)
            assert one is not None, "it was looked at before"
            told.append(f"{title} {one.value:+.3g} [{one.low:+.3g}, {one.high:+.3g}]")
        return " and ".join(told)


def _by_title(files: Iterable[GuardFile]) -> dict[str, list[GuardFile]]:
    """Guards' files by the name of their column; where guards of one name differ in reward, model or unit, each has a
    column of its own, which names that."""
    found: dict[str, dict[tuple[str, str, str], list[GuardFile]]] = {}
    for file in files:
        one = file.scores.provenance
        found.setdefault(one.guard, {}).setdefault((one.scorer, one.judge_model, one.unit), []).append(file)
    by_title = {}
    for guard, kinds in found.items():
        differing = [len(set(parts)) > 1 for parts in zip(*kinds, strict=True)]
        for kind, some in kinds.items():
            told = ", ".join(part or "no unit" for part, differs in zip(kind, differing, strict=True) if differs)
            by_title[f"{guard} ({told})" if told else guard] = some
    return by_title


def _is_trained(file: GuardFile) -> bool:
    return file.scores.provenance.trained


def _above(one: GuardEstimate | None) -> bool:
    return one is not None and one.low is not None and one.low > 0


def _outcomes(file: GuardFile) -> dict[tuple[str, int], float]:
    return {(one.prompt_id, one.image_index): one.outcome for one in file.scores.items if one.outcome is not None}


def _together(files: Sequence[Mapping[tuple[str, int], float]]) -> dict[str, list[float]]:
    by_prompt: dict[str, list[float]] = {}
    for values in files:
        for (prompt, _), value in sorted(values.items()):
            by_prompt.setdefault(prompt, []).append(value)
    return by_prompt
