"""What stands below a table: rules, methods, counts and origins; and above it: warnings."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from promptecho.intervals import CONFIDENCE
from promptecho.item_columns import prompts_of
from promptecho.provenance import without_address
from promptecho.scores import raw_path
from promptecho.tables.collect import ScoreFile, same_items
from promptecho.tables.kind import TableKind

_VERSION = re.compile(r'"model_version": ?"((?:[^"\\]|\\.)*)"')


def rules_note(kind: TableKind, files: Sequence[ScoreFile]) -> str:
    """What the numbers are, and who judged."""
    versions: dict[str, set[str]] = {}  # by who judged; several where a warning tells of that
    for file in files:
        provenance = file.scores.provenance
        judge = provenance.judge_model
        judge = without_address(judge) if provenance.backend == "judge" else str(judge)
        versions.setdefault(judge, set()).update(versions_of(file))
    judges = [
        f"{judge} (version {', '.join(sorted(found))})" if found and found != {judge} else judge
        for judge, found in versions.items()
    ]
    return kind.rules.format(mode=files[0].scores.provenance.mode, judge_model=" and ".join(judges))


def versions_of(file: ScoreFile) -> dict[str, int]:
    """Version of the judge -> how many answers it gave; {} where no judge was asked, or none reported its version.

    Scores of earlier versions have it in the raw records beside them alone.
    """
    provenance = file.scores.provenance
    if provenance.backend != "judge":
        return {}
    if provenance.judge_versions is not None:
        return {version: count for version, count in provenance.judge_versions.items() if version}
    try:
        text = raw_path(file.path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found = Counter(json.loads(f'"{version}"') for version in _VERSION.findall(text))
    return {version: count for version, count in sorted(found.items()) if version}


def mixed_versions(files: Sequence[ScoreFile]) -> str | None:
    """A warning where several versions of one judge answered, which may judge differently."""
    rows: dict[str, list[str]] = {}
    for file in files:
        for version in versions_of(file):
            rows.setdefault(version, []).append(file.label)
    if len(rows) < 2:
        return None
    told = "; ".join(f"{version}: {', '.join(dict.fromkeys(labels))}" for version, labels in sorted(rows.items()))
    return f"several versions of the judge answered ({told}); their verdicts may differ, so compare rows with care"


def mixed_orders(files: Sequence[ScoreFile]) -> str | None:
    """A warning where a judge was sent messages of different order, or images of different format."""
    rows: dict[str, list[str]] = {}
    for file in files:
        provenance = file.scores.provenance
        asked = provenance.judge_orders if provenance.judge_orders is not None else {"images_first": 1}
        for order in asked if provenance.backend == "judge" else ():
            rows.setdefault(order, []).append(file.label)
    if len(rows) < 2:
        return None
    told = "; ".join(f"{order}: {', '.join(labels)}" for order, labels in sorted(rows.items()))
    return f"the judge's messages were put together in different ways ({told}); compare rows with care"


def unanswered_note(files: Sequence[ScoreFile]) -> str | None:
    """Why a judge left questions without an answer."""
    why: Counter[str] = Counter()
    for file in files:
        why.update(file.scores.provenance.unanswered or {})
    if not why:
        return None
    names = {"cut": "cut at max_output_tokens", "refused": "refused by the judge", "unparsable": "unreadable"}
    told = ", ".join(f"{count} {names.get(kind, kind)}" for kind, count in sorted(why.items()))
    return f"Questions without an answer, in all rows: {told}."


def limit_told(files: Sequence[ScoreFile]) -> str:
    """What a title says where not all prompts were judged."""
    limit = files[0].scores.provenance.limit
    return f"; limit: {limit}" if limit else ""


def limit_note(files: Sequence[ScoreFile]) -> str | None:
    """What such numbers are good for."""
    if (limit := files[0].scores.provenance.limit) is None:
        return None
    return (
        f"Limit: judged on the {limit}, drawn from all tags in their proportions, as a smoke test; such scores do not "
        "compare with scores of all prompts."
    )


def interval_note(kind: TableKind) -> str:
    """How the intervals are made."""
    within = f", each {kind.group_word} by itself" if kind.stratified and not kind.shared_prompts else ""
    return (
        f"Intervals of {CONFIDENCE:.0%} are Wilson's at the effective number of {kind.unit}, which takes all "
        f"{kind.unit} of a prompt together{within}; they have a width also where all {kind.unit} agree."
    )


def delta_note(kind: TableKind) -> str:
    """How differences are made."""
    indices = "image indices" if kind.unit == "images" else kind.unit
    return (
        f"Δ vs base: difference of Overall in points on the same prompts and {indices}, paired; intervals of Bonett "
        "and Price at the effective number of pairs; p by sign-flip test over prompts, two-sided, not corrected for "
        "the number of rows."
    )


def count_note(kind: TableKind, files: Sequence[ScoreFile], lost: int) -> str:
    """How many prompts and items there are, and what became of failed ones."""
    prompts = [len(prompts_of(file.scores.items)) for file in files]
    per_prompt = [file.scores.provenance.n / number for file, number in zip(files, prompts, strict=True)]

    def span(values: Sequence[float]) -> str:
        low, high = f"{min(values):.4g}", f"{max(values):.4g}"
        return low if low == high else f"{low} to {high}"

    unit = kind.unit.removesuffix("s") if span(per_prompt) == "1" else kind.unit
    each = "each" if per_prompt and all(value == int(value) for value in per_prompt) else "each on average"
    return (
        f"n: {span(prompts)} prompts, {span(per_prompt)} {unit} {each}. Failed {kind.unit} are left out, not "
        "counted as wrong" + (f"; {lost} pairs lost to them." if lost else ".")
    )


def origin_note(files: Sequence[ScoreFile]) -> str:
    """Config, prompt set, version and commit."""

    def listed(key: str) -> str:
        return ", ".join(dict.fromkeys(str(getattr(file.scores.provenance, key)) for file in files))

    return (
        f"Config digest: {listed('config_digest')}. Prompt set: {listed('prompts_digest')}. Scored by promptecho "
        f"{listed('package_version')}, commit {listed('git_commit')}."
    )


def seeds_note(kind: TableKind) -> str:
    """What a row of several seeds is."""
    gain = "Δ" if kind.has_base else "net"
    return (
        "A row of several seeds takes the runs NAME-s1, NAME-s2, ... at one step together: its values are means over "
        f"the {kind.unit} of all these runs, its {gain} the mean of theirs. Its intervals and p take prompts as units, "
        f"each with its {kind.unit} from all seeds, and keep the seeds as they are: they tell how sure the mean of "
        "these trainings is over prompts of this kind, not where another seed would end. For that see s.d. over seeds: "
        f"the standard deviation (n - 1) of the runs' {gain} in points, on the same prompts and image noise."
    )


def short_footnotes(kind: TableKind, files: Sequence[ScoreFile], lost: int, bold: str = "") -> list[str]:
    """The footnotes without which no table can be read: what is counted, by whom, on what; what bold means."""
    notes = [limit_note(files), rules_note(kind, files), *kind.notes(files), bold, count_note(kind, files, lost)]
    return [note for note in [*notes, unanswered_note(files)] if note]


def footnotes(kind: TableKind, files: Sequence[ScoreFile], lost: int, pooled: bool, bold: str) -> list[str]:
    """All footnotes of one benchmark's table; `bold` says what bold means."""
    notes = [rules_note(kind, files), *kind.notes(files), interval_note(kind)]
    notes[:0] = [note] if (note := limit_note(files)) else []
    notes += [delta_note(kind)] if kind.has_base else []
    notes += [bold, count_note(kind, files, lost)]
    notes += [note] if (note := unanswered_note(files)) else []
    runs: dict[str, list[str]] = {}
    for file in files:
        provenance = file.scores.provenance
        runs.setdefault(provenance.experiment, [])
        if provenance.run not in runs[provenance.experiment]:
            runs[provenance.experiment].append(provenance.run)
    told = "; ".join(f"{experiment}: {', '.join(names)}" for experiment, names in runs.items())
    if any(file.scores.provenance.step for file in files):
        notes.append(
            f"Runs ({told}): a run is one training with one seed, named in it; the intervals hold the sampling of "
            "prompts and images, not the spread between training seeds."
        )
    if pooled:
        notes.append(seeds_note(kind))
    return [*notes, origin_note(files)]


def odd_items(files: Sequence[ScoreFile]) -> str | None:
    """A warning where rows were judged on different things."""
    odd = [file.label for file in files if not same_items(files[0], file)]
    if not odd:
        return None
    return (
        f"rows were judged on different prompts or images: {', '.join(odd)} differ from {files[0].label}; "
        "compare them with care"
    )


def warnings(kind: TableKind, files: Sequence[ScoreFile], bases: Mapping[str, ScoreFile]) -> list[str]:
    """What a reader must know before comparing rows."""
    found = [note for note in (odd_items(files), mixed_versions(files), mixed_orders(files)) if note]
    for experiment in sorted({file.scores.provenance.experiment for file in files}):
        digests: dict[str, list[str]] = {}
        for file in files:
            if file.scores.provenance.experiment == experiment:
                digests.setdefault(file.scores.provenance.config_digest, []).append(file.label)
        if len(digests) > 1:
            told = "; ".join(f"{digest}: {', '.join(labels)}" for digest, labels in digests.items())
            found.append(f"rows of {experiment} were made under different configs ({told})")
        if kind.has_base and experiment not in bases:
            found.append(f"no scores of the base model of {experiment}: no differences")
    for file in files:
        if absent := kind.absent(file.scores.items):
            told = f": its Overall is the mean of the other {kind.group_word}s" if kind.stratified else ""
            found.append(f"{file.label} has no verdict of {', '.join(absent)}{told}")
    return found
