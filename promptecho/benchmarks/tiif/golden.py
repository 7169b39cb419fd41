"""Checks of golden cases: inputs with the answers of the official TIIF-Bench code."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from promptecho.benchmarks.golden_case import Check
from promptecho.benchmarks.tiif.answers import AnswerCountError, extract_yes_no
from promptecho.benchmarks.tiif.attributes import ATTRIBUTES
from promptecho.benchmarks.tiif.rules import AnswerCount, column_scores, tally

# The official names of the columns.
GROUPS = {
    "Basic_Following_Overall - Overall": "basic_avg",
    "Basic_Attribute - Attribute": "attr",
    "Basic_Relation - Relation": "rela",
    "Basic_Reasoning - Reasoning": "reas",
    "Advanced_Following_Overall - Overall": "advanced_avg",
    "Advanced_Attribute+Relation - Attribute+Relation": "attr_rela",
    "Advanced_Attribute+Reasoning - Attribute+Reasoning": "attr_reas",
    "Advanced_Relation+Reasoning - Relation+Reasoning": "rela_reas",
    "Advanced_Text Generation - Text Generation": "text",
    "Advanced_Style Control - Style Control": "style",
    "Real_World_Following_Overall - Overall": "real_world",
    "Real_Complex - Complex": "real_world",
    "Overall average score of 9 sub-attributes": "overall",
}
WORDS = {"y": "yes", "n": "no", "Y": "Yes", "N": "No"}
# For a model that only one side has.
NOTHING: dict[str, dict[str, Any]] = {"accuracy_4dp": {}, "total": {}, "correct": {}, "groups": {}}
PRINTED = 6e-5  # groups are printed with four decimals


def check_tiif_extract(case: dict) -> list[str]:
    """One reply: the answers in it, or the official error with its message."""
    expected = case["expected"]
    try:
        found: dict[str, Any] = {"preds": extract_yes_no(case["model_output"], case["n_questions"])}
    except AnswerCountError as error:
        message = f"Preds count {error.found} != questions count {error.questions}"
        found = {"error": "OutputFormatError", "message": message}
    return [
        f"{key}: expected {expected.get(key)!r}, found {found.get(key)!r}"
        for key in sorted(found.keys() | expected.keys())
        if found.get(key) != expected.get(key)
    ]


def check_tiif_summary(case: dict) -> list[str]:
    """Many images of several models: accuracies, counts and groups, null where there is no data."""
    problems = []
    for model in sorted(case["answers"].keys() | case["expected"].keys()):
        attributes = case["answers"].get(model, {})
        tallies = {
            f"{attribute}/{length}": sum((_tally(letters) for letters in images.values()), start=AnswerCount())
            for attribute, lengths in attributes.items()
            for length, images in lengths.items()
        }
        problems += [f"{model}: {problem}" for problem in _compare(tallies, case["expected"].get(model) or NOTHING)]
    return problems


def _tally(letters: str) -> AnswerCount:
    expected, answers = ([WORDS[letter] for letter in side] for side in letters.split("|"))
    return tally(expected, answers)


def _compare(tallies: dict[str, AnswerCount], expected: dict) -> list[str]:
    """Against one model's `expected`; keys of `tallies` are `ATTRIBUTE/LENGTH`."""
    exact = [value.correct / value.total for value in tallies.values() if value.total]
    found: dict[str, dict[str, Any]] = {
        "accuracy_4dp": {key: value.accuracy("official") for key, value in tallies.items()}
        | {"Mean_Accuracy": round(fmean(exact), 4) if exact else None},
        "total": {key: value.total for key, value in tallies.items()},
        "correct": {key: value.correct for key, value in tallies.items()},
    }
    problems = []
    for kind, values in found.items():
        for key in sorted(values.keys() | expected[kind].keys()):
            if values.get(key) != expected[kind].get(key):
                problems.append(f"{kind} {key}: expected {expected[kind].get(key)!r}, found {values.get(key)!r}")
    for length in ("short", "long"):
        # The official groups pass over attributes that they don't know.
        mine = {a: tallies[f"{a}/{length}"] for a in ATTRIBUTES if f"{a}/{length}" in tallies}
        columns = column_scores(mine)
        for label, lengths in expected["groups"].items():
            theirs, ours = lengths.get(length), columns.get(GROUPS[label])
            same = theirs is ours if None in (theirs, ours) else abs(theirs - ours) < PRINTED
            if not same:
                problems.append(f"{label}, {length}: expected {theirs!r}, found {ours!r}")
    return problems


CHECKS = {
    "tiif/extract_yes_no.jsonl": Check(frozenset({"model_output", "n_questions"}), check_tiif_extract),
    "tiif/summary.jsonl": Check(frozenset({"answers", "judge"}), check_tiif_summary),
}
