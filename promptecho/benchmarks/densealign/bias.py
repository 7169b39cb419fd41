"""Position bias: does a judge prefer the image that it is shown first (or second)? From raw records, without a call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from promptecho.errors import DataError

OUTCOMES = {"win": 1, "tie": 0, "loss": -1}


def analyse_position(comparisons: Iterable[tuple[bool, int]]) -> dict[str, Any]:
    """Position bias of `(swapped, outcome)` comparisons, the outcome being the candidate's.

    The authors' analysis (analyze_position_bias.py) reports win rates of comparisons shown in order and of swapped
    ones, and a chi-square test of independence of order and winner on the table 2 orders x {win, loss, tie}. So does
    this, with these differences: columns without a count are left out (scipy refuses them, so that the authors' script
    ends in an error for a judge without ties), and the share of comparisons won by the image shown first is reported.

    The test takes comparisons as independent, which several images of one prompt are not; it is an approximation that
    needs `smallest_expected` of 5 or more. With two columns scipy applies Yates's correction.

    Returns:
        {n, first_position_rate, chi2, dof, p_value, smallest_expected, unswapped: {n, win, tie, loss,
        first_position_rate}, swapped: {...}}; win, tie and loss are fractions of that n. first_position_rate is among
        comparisons that were no tie; over all of them it moves off one half without bias too where one side wins
        clearly and the orders are not equally many. Whatever is not defined (no comparison of an order, only one sort
        of outcome) is None.
    """
    table = {order: dict.fromkeys(OUTCOMES, 0) for order in (False, True)}
    names = {value: name for name, value in OUTCOMES.items()}
    for swapped, outcome in comparisons:
        table[swapped][names[outcome]] += 1
    first = {False: table[False]["win"], True: table[True]["loss"]}  # swapped: the baseline's image was shown first
    decided = {order: counts["win"] + counts["loss"] for order, counts in table.items()}
    total = {order: sum(counts.values()) for order, counts in table.items()}

    def rate(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    def of_order(order: bool) -> dict[str, Any]:
        shares = {name: rate(count, total[order]) for name, count in table[order].items()}
        return {"n": total[order], **shares, "first_position_rate": rate(first[order], decided[order])}

    return {
        "n": sum(total.values()),
        "first_position_rate": rate(sum(first.values()), sum(decided.values())),
        **_chi_square([list(counts.values()) for counts in table.values()]),
        "unswapped": of_order(False),
        "swapped": of_order(True),
    }


def _chi_square(table: list[list[int]]) -> dict[str, float | int | None]:
    columns = [column for column in zip(*table, strict=True) if any(column)]
    if len(columns) < 2 or not all(any(row) for row in table):
        return dict.fromkeys(("chi2", "dof", "p_value", "smallest_expected"))
    from scipy.stats import chi2_contingency

    test = chi2_contingency(list(zip(*columns, strict=True)))
    return {
        "chi2": float(test.statistic),
        "dof": int(test.dof),
        "p_value": float(test.pvalue),
        "smallest_expected": float(test.expected_freq.min()),
    }


def comparisons_of(rows: Iterable[dict[str, Any]], where: str) -> list[tuple[bool, int]]:
    """`(swapped, outcome)` of the raw records that did not fail.

    Raises:
        DataError: a record lacks them; `where` names the file.
    """
    found = []
    for number, row in enumerate(rows, start=1):
        failed, swapped, outcome = (row.get(key) for key in ("failed", "swapped", "outcome"))
        if outcome in OUTCOMES.values() and failed is False and isinstance(swapped, bool):
            found.append((swapped, int(row["outcome"])))
        elif failed is not True:
            raise DataError(f"{where}: record {number} is no comparison (failed, swapped, outcome); score again")
    return found


def position_bias(raw_path: str | Path) -> dict[str, Any]:
    """Position bias of a scored file's raw records (N.raw.jsonl): analyse_position's result and `failed`.

    Raises:
        DataError: the file is missing, faulty, or none of a pairwise scorer.
    """
    from promptecho.files import read_jsonl

    rows = read_jsonl(raw_path)
    comparisons = comparisons_of(rows, str(raw_path))
    return {**analyse_position(comparisons), "failed": len(rows) - len(comparisons)}
