"""Which reward to take, by rules that are written on the page and follow from the numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MISSING_SHARE = 0.05  # of rewards; above it a training would stop (inferscore's max_failure_share)
GOOD = 0.95  # accuracy that each kind of error should reach
LENGTH = 0.3  # size of a rank correlation with length that is told
ORDER = 0.99  # rank correlation below which another way of computing gives another order

EVIDENCE = {
    "auc": "the within-prompt AUC over all images with verdicts",
    "image": "the accuracy on changed images, mean of the kinds",
    "text": "the accuracy on changed captions, mean of the kinds",
}
RULES = (
    f"A candidate is usable if at most {MISSING_SHARE:.0%} of its rewards are missing and the 95 % interval of its "
    "measure lies above 50 %, which is chance.",
    "The measure is the within-prompt AUC, because training compares images of one prompt. Where no images with "
    "verdicts were given it is the accuracy on changed images, and where there are none either, that on changed "
    "captions.",
    "The usable candidate with the highest measure is the best. Every other one whose paired difference to it has a "
    "95 % interval that holds 0 is tied with it.",
    "Of the best and those tied with it, one is left out that is worse than another of them on changed images (on "
    "changed captions where there are no such images) by a paired difference whose 95 % interval lies below 0.",
    "Of what remains the cheapest is recommended: the one with the fewest FLOPs, or where these are "
    "not known of all, with the fewest seconds; equal ones in the order in which they were given.",
    f"Warnings: a kind of error whose accuracy is below {GOOD:.0%}, or whose interval reaches below it; a rank "
    f"correlation with length beyond ±{LENGTH} whose interval leaves out 0; a rank correlation below {ORDER} with the "
    "same rewards computed in another type; an accuracy that changes with the images' size by more than its interval.",
)

Differ = Callable[[str, int, int], dict | None]


def advise(candidates: Sequence[dict[str, Any]], evidence: str, asked: int, differ: Differ) -> dict:
    """The recommendation: which measure, the candidates in its order, who is best, tied, recommended, and warnings.

    Args:
        candidates: their parts of the report.
        evidence: a key of `EVIDENCE`.
        asked: rewards that each was asked for.
        differ: paired difference of a measure (a key of `EVIDENCE`), candidate `j` less candidate `i`; None where no
            item has both.
    """
    measures = [_measure(one, evidence) for one in candidates]
    unusable = {i: why for i, one in enumerate(measures) if (why := _unusable(candidates[i], one, asked))}
    usable = [i for i in range(len(candidates)) if i not in unusable]
    order = sorted(usable, key=lambda i: (-measures[i]["value"], i))
    result: dict[str, Any] = {
        "rules": list(RULES), "evidence": evidence,
        "order": [{"candidate": candidates[i]["label"], **measures[i]} for i in order],
        "unusable": [{"candidate": candidates[i]["label"], "why": why} for i, why in unusable.items()],
        "best": None, "tied": [], "outdone": [], "recommended": None, "differences": [], "warnings": [],
    }  # fmt: skip
    if not order:
        return result
    best, tied = order[0], []
    for i in order[1:]:
        found = differ(evidence, best, i)
        result["differences"].append(
            {"candidate": candidates[i]["label"], "less": candidates[best]["label"], **(found or {})}
        )
        if found is None or found["low"] <= 0 <= found["high"]:
            tied.append(i)
    among = _not_outdone(candidates, sorted([best, *tied]), evidence, differ)
    key = "flops" if all(candidates[i]["cost"]["flops"] is not None for i in among) else "seconds"
    chosen = min(among, key=lambda i: (candidates[i]["cost"][key], i))
    result |= {
        "best": candidates[best]["label"], "tied": [candidates[i]["label"] for i in tied], "by": key,
        "outdone": [candidates[i]["label"] for i in (best, *tied) if i not in among],
        "recommended": candidates[chosen]["label"], "warnings": warnings_of(candidates[chosen]),
    }  # fmt: skip
    return result


def _not_outdone(candidates: Sequence[dict[str, Any]], among: list[int], evidence: str, differ: Differ) -> list[int]:
    """Those that no other one of them beats on pairs; where the measure is that of pairs, all."""
    if evidence != "auc":
        return among
    pairs = "image" if any("image" in candidates[i]["pairs"] for i in among) else "text"
    found = {(i, j): differ(pairs, i, j) for i in among for j in among if i != j}
    beaten = {j for (_, j), one in found.items() if one is not None and one["high"] < 0}
    return [i for i in among if i not in beaten]


def _measure(candidate: dict[str, Any], evidence: str) -> dict:
    found = candidate["auc"].get("all") if evidence == "auc" else candidate["pairs"].get(evidence, {}).get("overall")
    found = found or {"value": None, "low": None, "high": None, "n": 0}
    return {key: found[key] for key in ("value", "low", "high", "n")}


def _unusable(candidate: dict[str, Any], measure: dict, asked: int) -> str:
    if candidate["failed"] is not None:
        return f"cannot be asked ({candidate['failed']})"
    if candidate["missing"] > MISSING_SHARE * asked:
        return f"{candidate['missing']} of {asked} rewards are missing"
    if measure["value"] is None:
        return "nothing to measure it on"
    if measure["low"] <= 0.5:
        return f"its interval reaches {measure['low']:.1%}: not better than chance"
    return ""


def warnings_of(candidate: dict[str, Any]) -> list[str]:
    """What the numbers of one candidate warn of."""
    found = []
    for side, told in (("text", "changed captions"), ("image", "changed images")):
        kinds = candidate["pairs"].get(side, {}).get("kinds", {})
        below = {kind: one for kind, one in kinds.items() if one["value"] is not None and one["value"] < GOOD}
        unsure = {
            kind: one for kind, one in kinds.items() if one["value"] is not None and one["low"] < GOOD <= one["value"]
        }
        found += [f"{told}, {kind}: {_told(one)}, below {GOOD:.0%}" for kind, one in below.items()]
        if unsure:
            some = "; ".join(f"{kind} {_told(one)}" for kind, one in unsure.items())
            found.append(f"{told}: more pairs are needed to show {GOOD:.0%} of {some}")
    for name, one in candidate["length"].items():
        if one["value"] is not None and abs(one["value"]) > LENGTH and one["low"] * one["high"] > 0:
            correlation = f"{one['value']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
            found.append(f"length ({name}): rank correlation {correlation}")
    for one in candidate["sensitivity"]:
        order, change = one["order"], one["accuracy"]
        if one["what"] == "dtype" and order["value"] is not None and order["value"] < ORDER:
            found.append(f"{one['name']}: rank correlation {order['value']:.3f}, another order of images")
        if one["what"] == "size" and change and (change["low"] > 0 or change["high"] < 0):
            found.append(f"{one['name']}: accuracy changes by {100 * change['value']:+.1f} points")
    return found


def _told(one: dict) -> str:
    return f"{one['value']:.1%} [{one['low']:.1%}, {one['high']:.1%}], n {one['n']}"
