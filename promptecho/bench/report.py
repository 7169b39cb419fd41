"""Results of `runner.py` as one table, for the terminal and as markdown. Needs nothing but Python."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
COLUMNS = ("step", "what", "seconds", "TFLOP/s", "of peak", "MFU", "speed-up", "peak GB", "remarks")
LEFT = ("step", "what", "remarks")
STATES = (("failed", "failed"), ("absent", "not there"), ("not_run", "not run"))  # of steps without numbers
ABOUT = """\
Seconds are the median (least - most) of n measurements. TFLOP/s is useful work, divided by seconds. "Of peak" is its
share of the fastest matrix product that the step `peak` measured here, and "MFU" its share of the speed in the card's
datasheet. "Speed-up" is the time of what the remark names, divided by the time of this row: above 1, this row is
faster. GB are 1e9 bytes. Steps ran one after the other; nobody looked whether other programs used the machine."""


def spread(values: Sequence[float], digits: int = 2, kind: str = "f") -> str:
    """Median (least - most); `digits` behind the point, or with `kind` "g" those that count."""
    middle, least, most = (f"{f(values):.{digits}{kind}}" for f in (statistics.median, min, max))
    return f"{middle} ({least} - {most})"


def significant(values: Sequence[float]) -> str:
    """The same with three digits that count, for values of very different sizes."""
    return spread(values, 3, "g")


def page(results: dict[str, Any]) -> str:
    """Markdown: the machine, the table, the kernels."""
    machine = ", ".join(
        f"{key} {results[key]}" for key in ("torch", "cuda", "python", "driver") if results.get(key) is not None
    )
    lines = [
        f"# {results.get('title', 'Measured')}", "",
        f"{results.get('device', 'unknown device')}; {machine}; {results.get('versions', '')}".rstrip("; "), "",
        f"`{results.get('command', '')}`: {results.get('seconds', 0):.0f} s of {60 * results['minutes']:.0f}"
        + (", interrupted" if results.get("interrupted") else ""), "",
        *summary(results["rows"]), table(results["rows"]), "", ABOUT,
    ]  # fmt: skip
    if took := results.get("step_seconds"):
        told = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items())
        lines += ["", f"The processes took, with loading: {told}."]
    for row in results["rows"]:
        if kernels := row.get("kernels"):
            lines += ["", f"## {row['step']}: one guided pass by kernel", "", _kernels(kernels)]
    return "\n".join(lines) + "\n"


def summary(rows: Sequence[Row]) -> list[str]:
    """What most readers look for first, a line each: an iteration, what is faster than what, and steps that failed."""
    peak, found = peak_of(rows), []
    for row in rows:
        if row["step"] == row.get("what") == "iteration" and row.get("seconds"):
            share = f", {percent(row['tflops'] / peak)} of this card's peak" if peak and row.get("tflops") else ""
            found.append(f"- A training iteration takes {rounded(row['seconds'])} s ({row['remarks']}){share}.")
        elif row.get("ratio") and " " not in row["step"]:  # of the configuration as it is
            against = str(row.get("remarks", "")).split(";")[0]
            found.append(f"- {row['step']}, {row['what']}: speed-up {rounded(row['ratio'])} {against}.")
    for key, told in STATES:
        if names := list(dict.fromkeys(row["step"] for row in rows if key in row)):
            found.append(f"- {told.capitalize()}: {', '.join(names)}.")
    return ["In short:", "", *found, ""] if found else []


def peak_of(rows: Sequence[Row]) -> float | None:
    """TFLOP/s of the fastest product of the step `peak`."""
    return max((row["tflops"] for row in rows if row.get("is_peak")), default=None)


def rounded(values: Sequence[float]) -> str:
    """Median (least - most) with as many digits behind the point as the median needs to show three; one value alone."""
    middle = abs(statistics.median(values))
    digits = max(0, 2 - math.floor(math.log10(middle))) if middle else 2
    return spread(values, digits) if len(values) > 1 else f"{values[0]:.{digits}f}"


def percent(share: float) -> str:
    """A share, with a digit behind the point where it is below 10 %."""
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def table(rows: Sequence[Row]) -> str:
    """One line of markdown for each row, its columns aligned. Where a step failed after rows of its own, that is told
    of "the rest"."""
    peak = peak_of(rows)
    shown = [_cells(row, peak) for row in rows]
    for i, (row, cells) in enumerate(zip(rows, shown, strict=True)):
        if "failed" in row and any(one["step"] == row["step"] for one in rows[:i]):
            cells["what"] = "the rest"
    used = [name for name in COLUMNS if name in LEFT or any(cells[name] for cells in shown)]
    return _markdown(used, [[cells[name] for name in used] for cells in shown], LEFT)


def _cells(row: Row, peak: float | None) -> dict[str, str]:
    for key, told in STATES:
        if key in row:
            return {**dict.fromkeys(COLUMNS, ""), "step": row["step"], "remarks": f"{told}: {row[key]}"}
    seconds, tflops = row.get("seconds"), row.get("tflops")
    share = tflops / peak if tflops is not None and peak else None
    return {
        "step": row["step"],
        "what": str(row.get("what", "")),
        "seconds": f"{rounded(seconds)}, n={len(seconds)}" if seconds else "",
        "TFLOP/s": "" if tflops is None else f"{tflops:.4g}",
        "of peak": "" if share is None or row.get("is_peak") else percent(share),
        "MFU": percent(row["mfu"]) if row.get("mfu") is not None else "",
        "speed-up": rounded(row["ratio"]) if row.get("ratio") else "",
        "peak GB": f"{row['peak_gb']:.2f}" if row.get("peak_gb") else "",
        "remarks": str(row.get("remarks", "")),
    }


def _kernels(kernels: Sequence[Row]) -> str:
    cells = [[f"{one['ms']:.2f}", f"{one['share']:.0%}", str(one["calls"]), one["name"]] for one in kernels]
    return _markdown(["ms", "share", "calls", "kernel"], cells, ("kernel",))


def _markdown(names: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str]) -> str:
    rows = [[cell.replace("|", "/").replace("\n", " ") for cell in row] for row in rows]
    widths = [max([len(name), 4, *(len(row[i]) for row in rows)]) for i, name in enumerate(names)]
    if names[-1] in left:
        widths[-1] = len(names[-1])  # the last column may be as long as it likes

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(w) if name in left else cell.rjust(w) for cell, w, name in zip(cells, widths, names, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if name in left else "-" * (w - 1) + ":" for w, name in zip(widths, names, strict=True)]
    return "\n".join([line(names), line(rule), *map(line, rows)])
