"""Results of `runner.py` as one table, for the terminal and as markdown. Needs nothing but Python."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
COLUMNS = ("step", "what", "seconds", "TFLOP/s", "of peak", "MFU", "faster", "peak GB", "remarks")
LEFT = ("step", "what", "remarks")
ABOUT = """\
Seconds: median (least - most) of n. TFLOP/s: useful work over seconds and GPUs; of peak: that over the fastest matrix
product of this card (step `peak`); MFU: the same over the rates of the card's datasheet, where that is known. faster:
seconds of what the remark names over seconds of this row. GB are 1e9 bytes. Steps took turns with nothing else here."""


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
        table(results["rows"]), "", ABOUT,
    ]  # fmt: skip
    for row in results["rows"]:
        if kernels := row.get("kernels"):
            lines += ["", f"## {row['step']}: one guided pass by kernel", "", _kernels(kernels)]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> str:
    """One line of markdown for each row, its columns aligned."""
    peak = max((row["tflops"] for row in rows if row.get("is_peak")), default=None)
    shown = [_cells(row, peak) for row in rows]
    used = [name for name in COLUMNS if name in LEFT or any(cells[name] for cells in shown)]
    return _markdown(used, [[cells[name] for name in used] for cells in shown], LEFT)


def _cells(row: Row, peak: float | None) -> dict[str, str]:
    for key, told in (("failed", "failed"), ("absent", "not there"), ("not_run", "not run")):
        if key in row:
            return {**dict.fromkeys(COLUMNS, ""), "step": row["step"], "remarks": f"{told}: {row[key]}"}
    seconds, tflops = row.get("seconds"), row.get("tflops")
    digits = 4 if seconds and statistics.median(seconds) < 0.1 else 2
    share = tflops / peak if tflops is not None and peak else None
    return {
        "step": row["step"],
        "what": str(row.get("what", "")),
        "seconds": f"{spread(seconds, digits)}, n={len(seconds)}" if seconds else "",
        "TFLOP/s": "" if tflops is None else f"{tflops:.4g}",
        "of peak": "" if share is None or row.get("is_peak") else f"{share:.0%}",
        "MFU": f"{row['mfu']:.0%}" if row.get("mfu") is not None else "",
        "faster": spread(row["ratio"]) if row.get("ratio") else "",
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
