"""The audit's page, as Markdown and as one HTML file that needs nothing else, from the report alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from promptecho.audit.advice import EVIDENCE

TITLE = "Which reward to trust"
SHOWN_WORDS = 15  # of a table, the strongest, and as many of the weakest
SIDE_TITLES = {"text": "changed captions", "image": "changed images"}
SIDE_TEXTS = {
    "text": "One image, its true caption and the same with one fact changed: how often the true caption has the higher "
    "reward, in percent.",
    "image": "One caption, its own image and one that shows a fact changed: how often its own image has the higher "
    "reward, in percent. Training compares images in this way.",
}


@dataclass(frozen=True)
class AuditSection:
    """A part of the page: texts, a table of texts, points, and captions with a number from -1 to 1 for each word."""

    title: str
    texts: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    points: Sequence[str] = ()
    heatmaps: Sequence[Sequence[tuple[str, float, str]]] = field(default_factory=tuple)


def sections(report: dict[str, Any]) -> list[AuditSection]:
    """All of the page, in its order."""
    candidates = report["candidates"]
    found = [_recommendation(report["recommendation"]), _what(report)]
    for side in ("text", "image"):
        if any(side in one["pairs"] for one in candidates):
            found.append(_pairs(candidates, side))
    if report["captions"]["edits"]:
        found.append(_edits(report["captions"]))
    if any(one["auc"] for one in candidates):
        found.append(_auc(candidates))
    for one in candidates:
        for name, words in one["words"].items():
            found.append(_words(one["label"], name, words))
    found += [_length(candidates), _sensitivity(candidates), _cost(candidates)]
    return [one for one in found if one.rows or one.points or one.texts]


def _recommendation(advice: dict[str, Any]) -> AuditSection:
    measure = EVIDENCE[advice["evidence"]]
    if advice["recommended"] is None:
        texts = ["None of the candidates is usable."]
    else:
        tied = f" Tied with it: {'; '.join(advice['tied'])}." if advice["tied"] else " None is tied with it."
        if len(advice["order"]) == 1:
            tied = " It is the only usable one."
        texts = [f"Recommended: {advice['recommended']}.", f"Best by {measure}: {advice['best']}.{tied}"]
    rows = [[one["candidate"], _percent(one), str(one["n"])] for one in advice["order"]]
    points = [f"Not usable: {one['candidate']}: {one['why']}." for one in advice["unusable"]]
    points += [
        f"{one['candidate']} less {one['less']}: {_points(one if 'value' in one else None)}"
        for one in advice["differences"]
    ]
    points += [f"Left out by rule 4: {name}." for name in advice["outdone"]]
    points += [f"Warning: {one}." for one in advice["warnings"]]
    points += [f"Rule {number}: {rule}" for number, rule in enumerate(advice["rules"], start=1)]
    return AuditSection("Recommendation", texts, ["Candidate", "Measure", "Pairs"], rows, points)


def _what(report: dict[str, Any]) -> AuditSection:
    captions = report["captions"]
    texts = []
    if captions["n"]:
        texts.append(f"Captions: {captions['source']}, {captions['n']}, which give {captions['pairs']} pairs.")
    texts.append("Values are followed by 95 % intervals; a tie counts as half.")
    rows = [
        [
            one["benchmark"],
            one["checkpoint"],
            str(one["images"]),
            str(one["prompts"]),
            f"{100 * one['mean_verdict']:.1f}",
        ]
        for one in report["images"]
    ]
    columns = ["Benchmark", "Checkpoint", "Images", "Prompts", "Mean verdict, %"]
    return AuditSection("What was looked at", texts, columns, rows)


def _pairs(candidates: Sequence[dict], side: str) -> AuditSection:
    kinds = sorted({kind for one in candidates for kind in one["pairs"].get(side, {"kinds": {}})["kinds"]})
    rows = []
    for one in candidates:
        if side not in one["pairs"]:
            continue
        found = one["pairs"][side]
        for kind in ["overall", *kinds]:
            value = found["overall"] if kind == "overall" else found["kinds"].get(kind)
            if value is None:
                continue
            name = "mean of the kinds" if kind == "overall" else kind
            rows.append([one["label"], name, _percent(value), *(str(value[key]) for key in ("n", "ties", "missing"))])
    columns = ["Candidate", "Fact", "True one wins", "Pairs", "Ties", "Without reward"]
    return AuditSection(f"Pairs: {SIDE_TITLES[side]}", [SIDE_TEXTS[side]], columns, rows)


def _edits(captions: dict[str, Any]) -> AuditSection:
    rows = []
    for kind, counts in captions["edits"].items():
        others = [f"{what} {count}" for what, count in counts.items() if what != "made"]
        rows.append([kind, str(counts.get("made", 0)), "; ".join(others)])
    text = "Captions of which a pair was made, and why not of others. A rule that is not sure leaves a caption alone."
    return AuditSection("Edits", [text], ["Fact", "Made", "Not made"], rows)


def _auc(candidates: Sequence[dict]) -> AuditSection:
    rows = [
        [one["label"], name, _percent(value), *(str(value[key]) for key in ("n", "prompts", "ties"))]
        for one in candidates for name, value in one["auc"].items()
        if name != "all" or len(one["auc"]) > 2
    ]  # fmt: skip
    text = (
        "Two images of one prompt with different verdicts: how often the better one has the higher reward, in percent. "
        "The intervals count prompts as random."
    )
    return AuditSection(
        "Within a prompt (AUC)", [text], ["Candidate", "Verdicts", "AUC", "Pairs", "Prompts", "Ties"], rows
    )


def _words(label: str, name: str, words: dict[str, Any]) -> AuditSection:
    classes = words["classes"]
    texts = [
        f"Signal of a word: its log-probability on the better image less that on the worse one, in nats, over "
        f"{words['captions']} captions. A word that says nothing of the image has none."
    ]
    for kind, one in classes.items():
        if one["signal"] is not None:
            share = "" if one["share"] is None else f", {100 * one['share']:.1f} % of all signal"
            texts.append(f"{kind.capitalize()}: {one['signal']:+.3f} nats for each of {one['n']}{share}.")
    table = words["table"]
    some = table
    if len(table) > 2 * SHOWN_WORDS:
        some = [*table[:SHOWN_WORDS], *table[-SHOWN_WORDS:]]
        texts.append(
            f"Shown are the {SHOWN_WORDS} strongest and the {SHOWN_WORDS} weakest of {len(table)} words; audit.json "
            f"has all."
        )
    rows = [
        [
            one["word"], _signal(one), str(one["n"]), "–" if one["share"] is None else f"{100 * one['share']:.1f}",
            "yes" if one["stop_word"] else "",
        ]
        for one in some
    ]  # fmt: skip
    top = max((abs(value) for one in words["heatmaps"] for value in one["signals"]), default=0.0) or 1.0
    heatmaps = [
        [(word, value / top, f"{value:+.2f}") for word, value in zip(one["words"], one["signals"], strict=True)]
        for one in words["heatmaps"]
    ]
    columns = ["Word", "Signal, nats", "Captions", "Share, %", "Stop word"]
    return AuditSection(f"Words, {name}: {label}", texts, columns, rows, heatmaps=heatmaps)


def _length(candidates: Sequence[dict]) -> AuditSection:
    rows = [
        [one["label"], name, _correlation(value), str(value["n"])]
        for one in candidates for name, value in one["length"].items()
    ]  # fmt: skip
    text = "Rank correlation (Spearman) of the reward with the caption's number of words."
    return AuditSection("Length", [text], ["Candidate", "Over", "Correlation", "Captions"], rows)


def _sensitivity(candidates: Sequence[dict]) -> AuditSection:
    rows = [
        [one["label"], some["name"], _correlation(some["order"]), str(some["order"]["n"]), _points(some["accuracy"])]
        for one in candidates for some in one["sensitivity"]
    ]  # fmt: skip
    texts = [
        "The same captions and images asked in another way: rank correlation of the true captions' rewards, and what "
        "it changes of the accuracy on changed captions, in points."
    ]
    columns = ["Candidate", "Asked", "Same order", "Captions", "Accuracy, change"]
    return AuditSection("Sensitivity", texts if rows else [], columns, rows)


def _cost(candidates: Sequence[dict]) -> AuditSection:
    rows = []
    for one in candidates:
        cost = one["cost"]
        if cost is None:
            continue
        flops = "–" if cost["flops"] is None else f"{cost['flops'] / 1e12:.4g}"
        tokens = [
            "–" if cost[key] is None else f"{cost[key]:.1f}" if key == "text_tokens" else str(cost[key])
            for key in ("input_tokens", "text_tokens")
        ]
        rows.append([one["label"], f"{cost['seconds']:.1f}", flops, *tokens, cost["why_not"]])
    text = (
        "Seconds were measured here, without loading the model; FLOPs are counted from the code, of replies that the "
        "model writes at their longest."
    )
    columns = [
        "Candidate",
        "Seconds",
        "TFLOPs",
        "Tokens of image and question",
        "Tokens of the text",
        "Not known because",
    ]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return AuditSection("Cost of 1,000 images", [text], columns, rows)


def _signal(one: dict) -> str:
    interval = "" if one["low"] is None else f" [{one['low']:+.3f}, {one['high']:+.3f}]"
    return f"{one['signal']:+.3f}{interval}"


def _percent(one: dict | None) -> str:
    if one is None or one["value"] is None:
        return "–"
    return f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"


def _points(one: dict | None) -> str:
    if one is None:
        return "–"
    return f"{100 * one['value']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"


def _correlation(one: dict) -> str:
    return "–" if one["value"] is None else f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
