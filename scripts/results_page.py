"""Write the tables of docs/results-shapes.md from the score files that are kept in docs/results.

    python scripts/results_page.py                                # write the page's tables again
    python scripts/results_page.py --add results/ablations        # keep an experiment's score files first
    python scripts/results_page.py --add-audit reward-audit/audit.json

What stands on the page between `<!-- results: EXPERIMENT BENCHMARK -->` and `<!-- end of results -->` is made here: the
base model, each training (its seeds together, as further images of the same prompts), and a sentence on each, which
its interval decides. A training of the experiment file that has no scores has a row that says so. Blocks that compare
trainings (`gains`, `sizes`, `path`, `audit`) are made by results_gains.py; what they cost and which came to the same
adapter (`costs`, `adapters`) by results_costs.py. Kept score files are those of
results/E/scores without white space, a twentieth of the raw answers; all commands that take score files take these.
Beside them are kept the rewards on held-out captions, seconds and memory, hashes of adapters, the sizes of VLMs, and
the sums of an audit.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from results_costs import adapters_block, costs_block, keep_adapters, keep_costs, keep_runs
from results_gains import NOT_RUN, audit_block, gains_block, kept_files, name_of, path_block, sizes_block
from results_pictures import draw_pictures

from promptecho.config import load_experiment, run_vlm
from promptecho.config.scorers import max_failed_share
from promptecho.errors import PromptEchoError
from promptecho.files import read_json, write_json, write_text
from promptecho.shipped import model_path
from promptecho.tables.collect import ScoreFile, checkpoint_scores
from promptecho.tables.kinds import make_table
from promptecho.tables.show import gains
from promptecho.tables.table import Column, Table, heading, parts
from promptecho.train.metrics import RunMetrics, find_runs, read_run

ROOT = Path(__file__).resolve().parents[1]
KINDS = "results|gains|sizes|path|audit|costs|adapters"
BLOCK = re.compile(rf"(<!-- ({KINDS}): (?:(\S+) )?(\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
COMPARED = {"gains": gains_block, "sizes": sizes_block, "path": path_block, "audit": audit_block}
OF_RUNS = {"costs": costs_block, "adapters": adapters_block}


def add(source: Path, kept: Path) -> list[Path]:
    """Keep the score files of results/E in `kept`/E, below which they lie as there."""
    paths = []
    for path in checkpoint_scores(source):
        paths.append(kept / source.resolve().name / path.relative_to(source))
        write_text(paths[-1], json.dumps(read_json(path), separators=(",", ":")) + "\n")
    return paths


def follow(source: Path, kept: Path, every: Sequence[RunMetrics]) -> None:
    """Keep the rewards on held-out captions of results/E: run -> iteration -> value."""
    rows = {metrics.run: metrics.series("heldout_reward") for metrics in every}
    values = {run: {str(step): float(f"{value:.6g}") for step, value in some} for run, some in rows.items() if some}
    keep_runs(kept / source.resolve().name / "training.json", values)


def count_parameters(names: Sequence[str], kept: Path) -> None:
    """Keep how many parameters the VLMs have that lie here."""
    place = kept / "vlms.json"
    known = read_json(place) if place.is_file() else {}
    for name in names:
        files = sorted(Path(model_path(name, "vlm")).glob("*.safetensors"))
        if files:
            known[name] = sum(map(_parameters, files))
    if known:
        write_json(place, dict(sorted(known.items())))


def _parameters(path: Path) -> int:
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(one["shape"]) for key, one in head.items() if key != "__metadata__")


def add_audit(source: Path, kept: Path) -> None:
    """Keep of an audit what the page tells of each reward, beside the rewards of earlier audits on the same images."""
    report, place = read_json(source), kept / "audit.json"
    before = read_json(place) if place.is_file() else {"settings": report["settings"], "candidates": []}
    if before["settings"] != report["settings"]:
        sys.exit(f"{source}: of other captions or images than {place}; delete that one, and add all audits again")
    keys = ("label", "reward", "vlm", "query", "settings", "failed")
    found = {one["label"]: one for one in before["candidates"]}
    for one in report["candidates"]:
        pairs = {side: one["pairs"].get(side, {}).get("overall") for side in ("image", "text")}
        found[one["label"]] = {key: one[key] for key in keys} | pairs | {"auc": one["auc"].get("all")}
    write_json(place, {"settings": report["settings"], "candidates": list(found.values())})


def block(experiment: str, benchmark: str, kept: Path, configs: Path) -> str:
    """The table of an experiment's trainings on a benchmark, where it comes from, and a sentence on each."""
    config = load_experiment(configs / f"{experiment}.yaml")
    names = list(dict.fromkeys(name_of(run) for run in config.runs))
    files = kept_files(kept / experiment, benchmark)
    lines = []
    if files:
        allowed = max_failed_share(config, config.benchmarks[benchmark])
        table = make_table(files[0].scores.provenance.scorer, files, name=benchmark, max_failure_share=allowed)
        labels = [row["model"].text for row in table.rows]
        pooled = {label.partition(", ")[0] for label in labels if " seeds @ " in label}
        shown = [row for row, label in zip(table.rows, labels, strict=True)
                 if " seeds @ " in label or name_of(label.partition(" @ ")[0]) not in pooled]  # fmt: skip
        lines += _grids(table, shown)
        told = {row["model"].text for row in shown}
        sentences = [f"- {gain.sentence}." for gain in gains(table) if gain.model in told]
        done = {name_of(label.partition(" @ ")[0].partition(", ")[0]) for label in labels}
    else:
        lines += _grid([Column("model", "Model", decimals=None)], [[f"base: {NOT_RUN}"]])
        sentences, done = [], set()
    missing = [name for name in names if name not in done]
    if files:
        width = lines[-1].count(" | ")
        lines += [f"| {name} |" + f" {NOT_RUN} |" * min(width, 1) + " |" * max(width - 1, 0) for name in missing]
    else:
        lines += [f"| {name}: {NOT_RUN} |" for name in missing]
    return "\n".join([*lines, "", *sentences, *([""] if sentences else []), _origin(files), ""])


def _grids(table: Table, rows: Sequence[dict]) -> list[str]:
    """The table; a wide one panel by panel, as its Markdown file has it."""
    if not table.panels:
        return _grid(table.columns, [[_cell(row, table, column) for column in table.columns] for row in rows])
    lines: list[str] = []
    for panel in table.panels:
        columns = [column for column in table.columns if column.decimals is None or column.key in panel.keys]
        some = [[_cell(row, table, column) for column in columns] for row in rows]
        lines += [*([""] if lines else []), f"{panel.title}:", "", *_grid(columns, some)]
    return lines


def _cell(row: dict, table: Table, column: Column) -> str:
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

    def made(match: re.Match[str]) -> str:
        head, kind, experiment, benchmark, end = match.groups()
        if kind == "results":
            return head + block(experiment, benchmark, kept, configs) + end
        if kind in OF_RUNS:
            return head + "\n".join(OF_RUNS[kind](kept, experiment, benchmark)) + "\n" + end
        return head + "\n".join(COMPARED[kind](kept, configs, benchmark)) + "\n" + end

    return BLOCK.sub(made, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="folders results/E whose score files to keep")
    parser.add_argument(
        "--add-audit", type=Path, help="audit.json of promptecho reward-audit, of which to keep the sums"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    chosen = parser.parse_args()
    file, kept = chosen.root / "docs/results-shapes.md", chosen.root / "docs/results"
    configs = chosen.root / "config/experiments"
    try:
        for source in chosen.add:
            if not add(source, kept):
                sys.exit(f"{source}: no score files scores/BENCHMARK/RUN/STEP.json in it; score first")
            every = [read_run(source, run) for run in find_runs(source)]
            follow(source, kept, every)
            keep_costs(source, kept, every)
            keep_adapters(source, kept)
            config = load_experiment(configs / f"{source.resolve().name}.yaml")
            count_parameters(list(dict.fromkeys(run_vlm(config, run).path for run in config.runs)), kept)
        if chosen.add_audit is not None:
            add_audit(chosen.add_audit, kept)
        write_text(file, page(file.read_text(encoding="utf-8"), kept, configs))
        for path in draw_pictures(kept, configs, "heldout"):
            print(path)
    except PromptEchoError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
