"""Write the tables of docs/results-shapes.md from the score files that are kept in docs/results.

    python scripts/results_page.py                                # write the page's tables again
    python scripts/results_page.py --add results/ablations        # keep an experiment's score files first

What stands on the page between `<!-- results: EXPERIMENT BENCHMARK -->` and `<!-- end of results -->` is made here: the
base model, each training (its seeds together, as further images of the same prompts), and a sentence on each, which
its interval decides. A training of the experiment file that has no scores has a row that says so. Kept score files are
those of results/E/scores without white space, a twentieth of the raw answers; all commands that take score files take
these.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from promptecho.config import load_experiment
from promptecho.errors import PromptEchoError
from promptecho.files import read_json, write_text
from promptecho.tables.collect import ScoreFile, find_score_files, read_score_files
from promptecho.tables.compare import SEED_OF_RUN
from promptecho.tables.kinds import make_table
from promptecho.tables.show import gains
from promptecho.tables.table import Column, heading, parts

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- results: (\S+) (\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
NOT_RUN = "not run yet"


def add(source: Path, kept: Path) -> list[Path]:
    """Keep the score files of results/E in `kept`/E, below which they lie as there."""
    paths = []
    for path in sorted(source.glob("scores/*/*/*.json")):
        if path.stem.isdigit():
            paths.append(kept / source.resolve().name / path.relative_to(source))
            write_text(paths[-1], json.dumps(read_json(path), separators=(",", ":")) + "\n")
    return paths


def _name(run: str) -> str:
    match = SEED_OF_RUN.fullmatch(run)
    return match["name"] if match else run


def _files(folder: Path, benchmark: str) -> list[ScoreFile]:
    if not any((folder / "scores" / benchmark).glob("*/*.json")):
        return []
    paths = find_score_files([folder], benchmark)
    return read_score_files(paths, read_json(paths[0])["provenance"]["scorer"])


def block(experiment: str, benchmark: str, kept: Path, configs: Path) -> str:
    """The table of an experiment's trainings on a benchmark, where it comes from, and a sentence on each."""
    names = list(dict.fromkeys(_name(run) for run in load_experiment(configs / f"{experiment}.yaml").runs))
    files = _files(kept / experiment, benchmark)
    lines = []
    if files:
        table = make_table(files[0].scores.provenance.scorer, files, name=benchmark)
        labels = [row["model"].text for row in table.rows]
        pooled = {label.partition(", ")[0] for label in labels if " seeds @ " in label}
        shown = [row for row, label in zip(table.rows, labels, strict=True)
                 if " seeds @ " in label or _name(label.partition(" @ ")[0]) not in pooled]  # fmt: skip
        lines += _grid(table.columns, [[_cell(row, table, column) for column in table.columns] for row in shown])
        told = {row["model"].text for row in shown}
        sentences = [f"- {gain.sentence}." for gain in gains(table) if gain.model in told]
        done = {_name(label.partition(" @ ")[0].partition(", ")[0]) for label in labels}
    else:
        lines += _grid([Column("model", "Model", decimals=None)], [[f"base: {NOT_RUN}"]])
        sentences, done = [], set()
    missing = [name for name in names if name not in done]
    if files:
        width = lines[0].count("|") - 2
        lines += [f"| {name} |" + f" {NOT_RUN} |" * min(width, 1) + " |" * max(width - 1, 0) for name in missing]
    else:
        lines += [f"| {name}: {NOT_RUN} |" for name in missing]
    return "\n".join([*lines, "", *sentences, *([""] if sentences else []), _origin(files), ""])


def _cell(row: dict, table, column: Column) -> str:
    cell = table.cell(row, column)
    main, rest = parts(cell, column)
    return " ".join([f"**{main}**" if cell.highlight else main, *rest]).replace("<", "&lt;")


def _grid(columns: Sequence[Column], rows: list[list[str]]) -> list[str]:
    head = "| " + " | ".join(heading(column) for column in columns) + " |"
    rule = "|" + "|".join(" :--- " if column.decimals is None else " ---: " for column in columns) + "|"
    return [head, rule, *("| " + " | ".join(row) + " |" for row in rows)]


def _origin(files: Sequence[ScoreFile]) -> str:
    """Which code made the scores."""
    made = sorted({(f.scores.provenance.package_version, f.scores.provenance.git_commit[:12]) for f in files})
    told = "; ".join(f"version {version}, commit {commit}" for version, commit in made)
    return f"Scored by {told}." if told else "No scores are kept yet."


def page(text: str, kept: Path, configs: Path) -> str:
    """The page's text with all its blocks made again."""
    return BLOCK.sub(lambda match: match[1] + block(match[2], match[3], kept, configs) + match[4], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="folders results/E whose score files to keep")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    chosen = parser.parse_args()
    file, kept = chosen.root / "docs/results-shapes.md", chosen.root / "docs/results"
    try:
        for source in chosen.add:
            if not add(source, kept):
                sys.exit(f"{source}: no score files scores/BENCHMARK/RUN/STEP.json in it; score first")
        write_text(file, page(file.read_text(encoding="utf-8"), kept, chosen.root / "config/experiments"))
    except PromptEchoError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
