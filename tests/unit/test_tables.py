"""Tables: collected score files, one Table object, four renderings with the same numbers."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from promptecho.benchmarks.geneval.prompts import TAGS
from promptecho.benchmarks.geneval.scorer import summary_of
from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.provenance import Provenance
from promptecho.scores import ScoreItem, Scores, write_scores
from promptecho.tables.collect import find_score_files, read_score_files
from promptecho.tables.kinds import make_table
from promptecho.tables.latex import to_latex
from promptecho.tables.table import Cell, Column, Table, print_rich, to_csv, to_json, to_markdown


def make(root, run, step, chance, *, experiment="shapes", prompts=12, failed=0, tags=TAGS, **changed):
    """Write one score file as the scorer would; returns its path."""
    rng = np.random.default_rng([step, len(run)])
    items = []
    for number, tag in enumerate(tags):
        for prompt in range(prompts):
            for image in range(2):
                fails = len(items) < failed
                value = None if fails else float(rng.random() < chance)
                key = f"{number * prompts + prompt:05}"
                items.append(ScoreItem(prompt_id=key, image_index=image, group=tag, outcome=value, failed=fails))
    values = {
        "experiment": experiment, "run": run, "step": step, "benchmark": "geneval", "scorer": "geneval",
        "backend": "oracle", "mode": "official", "judge_model": "oracle", "config_digest": "d1", "git_commit": "c1",
        "prompts_digest": f"p{prompts}", "n": len(items), "failures": failed,
    }  # fmt: skip
    scores = Scores(provenance=Provenance(**(values | changed)), summary=summary_of(items), items=items)
    path = root / experiment / "scores" / "geneval" / run / f"{step}.json"
    write_scores(path, scores)
    return path


@pytest.fixture
def results(tmp_path):
    make(tmp_path, "promptecho-s2", 10, 0.5)
    make(tmp_path, "promptecho-s1", 100, 0.9)
    make(tmp_path, "promptecho-s1", 20, 0.7, failed=1)
    make(tmp_path, "base", 0, 0.4)
    return tmp_path


def table_of(*folders, **options):
    files = read_score_files(find_score_files(list(folders), "geneval"), "geneval")
    return make_table("geneval", files, **{"name": "geneval", **options})


def labels(table):
    return [row["model"].text for row in table.rows]


def test_rows_are_base_then_runs_by_step(results):
    table = table_of(results / "shapes")
    assert labels(table) == ["base", "promptecho-s1 @ 20", "promptecho-s1 @ 100", "promptecho-s2 @ 10"]
    assert [c.label for c in table.columns] == [
        "Model", "Single Obj.", "Two Obj.", "Counting", "Colors", "Position", "Attr. Bind.", "Overall", "Δ vs base",
        "Images", "Failed",
    ]  # fmt: skip
    base, first, *_ = table.rows
    assert "delta" not in base
    assert first["delta"].value is not None
    assert (first["images"].value, first["failures"].value) == (143, 1)
    assert first["overall"].value == pytest.approx(np.mean([first[tag].value for tag in TAGS]))
    assert not table.warnings


def test_several_experiments_are_compared_each_with_its_own_base(results):
    make(results, "base", 0, 0.8, experiment="wide")
    make(results, "x-s1", 5, 0.1, experiment="wide")
    table = table_of(results / "shapes", results / "wide")
    assert labels(table)[-2:] == ["wide: base", "wide: x-s1 @ 5"]
    assert table.rows[-1]["delta"].value < -50


def test_a_model_that_is_only_evaluated_stands_beside_the_runs(results):
    make(results, "base", 0, 0.8, experiment="turbo", config_digest="d2")
    table = table_of(results / "shapes", results / "turbo")
    assert labels(table)[-1] == "turbo: base" and table.rows[-1]["overall"].value > table.rows[0]["overall"].value
    assert "delta" not in table.rows[-1]  # the difference to a base model of another experiment is not taken


NUMBER = r"[+-]?\d+(?:\.\d+)?"


def test_all_renderings_show_the_same_numbers(results):
    table = table_of(results / "shapes")
    lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")][2:]
    markdown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    data = json.loads(to_json(table))
    assert len(markdown) == len(rows) == len(data["rows"]) == 4
    for index, row in enumerate(data["rows"]):
        for position, column in enumerate(table.columns):
            if column.decimals is None:
                assert markdown[index][position] == rows[index][column.key] == row[column.key]["text"]
                continue
            cell = row.get(column.key)
            shown = re.findall(NUMBER, markdown[index][position].split(" p ")[0].replace("**", ""))
            if cell is None:
                assert shown == [] and rows[index][column.key] == ""
                continue
            exact = [cell["value"]] + ([cell["low"], cell["high"]] if column.interval else [])
            assert [float(text) for text in shown] == pytest.approx(exact, abs=0.5001 * 10**-column.decimals)
            keys = [column.key] + ([f"{column.key}_low", f"{column.key}_high"] if column.interval else [])
            assert [float(rows[index][key]) for key in keys] == exact


def test_best_values_are_bold_and_a_tie_of_all_is_not():
    """Where they are significant, which test_tables_bold.py is about."""
    column = Column("x", "X", best=True)
    table = Table("t", "T", [column], [{"x": Cell(10.04)}, {"x": Cell(9.96)}, {"x": Cell(1.0)}])
    table.highlight_best(lambda index, column: True)
    assert [row["x"].highlight for row in table.rows] == [True, True, False]  # equal as printed
    assert "**10.0**" in to_markdown(table) and r"\textbf{10.0}" in to_latex(table)
    alike = Table("t", "T", [column], [{"x": Cell(3.0)}, {"x": Cell(3.0)}])
    alike.highlight_best(lambda index, column: True)
    assert not any(row["x"].highlight for row in alike.rows)
    table.highlight_best(lambda index, column: (index, column.key) == (1, "x"))
    assert [row["x"].highlight for row in table.rows] == [False, True, False]


def test_special_characters_are_escaped():
    hostile = r"a_b&c%d#e$f{g}~h^i\j|k*l<m[n]"
    table = Table(
        "t", hostile, [Column("m", hostile, decimals=None)], [{"m": Cell(text=hostile)}], [hostile], [hostile]
    )
    markdown = to_markdown(table)
    assert markdown.count("\\|") == 5 and "<" not in markdown
    assert next(csv.reader(io.StringIO(to_csv(table).splitlines()[1]))) == [hostile]


def test_minus_zero_is_zero():
    table = Table("t", "T", [Column("x", "X", signed=True)], [{"x": Cell(-0.04)}, {"x": Cell(0.06)}, {"x": Cell(-3.0)}])
    rows = [line for line in to_markdown(table).splitlines() if line.startswith("|")][2:]
    assert rows == ["| 0.0 |", "| +0.1 |", "| -3.0 |"]
    assert "$-$3.0" in to_latex(table)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_terminal_shows_every_number_at_any_width(results, width):
    table = table_of(results / "shapes")
    stream = io.StringIO()
    print_rich(table, Console(file=stream, width=width))
    text = stream.getvalue()
    assert "…" not in text
    for row in table.rows:
        for tag in (*TAGS, "overall"):
            assert f"{row[tag].value:.1f}" in text
            assert f"[{row[tag].low:.1f}, {row[tag].high:.1f}]" in text
    grid = text[: text.index("- Percent")]
    assert max(map(len, grid.splitlines())) <= width


def test_rows_on_other_prompts_get_a_warning_and_no_difference(results):
    make(results, "promptecho-s3", 10, 0.5, prompts=11)
    table = table_of(results / "shapes")
    assert "delta" not in table.rows[-1]
    assert "promptecho-s3 @ 10 differ from base" in table.warnings[0]
    assert "WARNING" in to_markdown(table) and r"\textbf{Warning:} rows were judged" in to_latex(table)


def test_other_configs_absent_base_and_absent_subtasks_are_told(results):
    make(results, "promptecho-s3", 10, 0.5, config_digest="d2")
    (results / "shapes/scores/geneval/base/0.json").unlink()
    make(results, "promptecho-s4", 10, 0.5, tags=TAGS[:4])
    warnings = "\n".join(table_of(results / "shapes").warnings)
    assert "different configs" in warnings and "d2: promptecho-s3 @ 10" in warnings
    assert "no scores of the base model of shapes" in warnings
    assert "promptecho-s4 @ 10 has no verdict of Position, Attr. Bind." in warnings


def test_what_cannot_share_a_table_is_refused(results):
    path = make(results, "promptecho-s3", 10, 0.5, backend="mask2former")
    with pytest.raises(DataError, match="score files differ in backend"):
        table_of(results / "shapes")
    make(results, "promptecho-s3", 10, 0.5, tags=("colors", "texture"))
    with pytest.raises(DataError, match=f"{path}: unknown GenEval sub-task 'texture'"):
        table_of(results / "shapes")


def test_too_many_failures_are_refused(results):
    path = make(results, "promptecho-s3", 10, 0.5, failed=2)
    with pytest.raises(DataError, match=f"{path}: 2 of 144 items failed, more than the 1.0% allowed"):
        table_of(results / "shapes")
    assert table_of(results / "shapes", max_failure_share=0.02).rows[-1]["failures"].value == 2


def test_a_score_file_in_the_wrong_place_is_refused(results):
    path = results / "shapes/scores/geneval/promptecho-s1/30.json"
    path.write_bytes((path.parent / "20.json").read_bytes())
    with pytest.raises(DataError, match=f"{path}: provenance.step is '20', the path says '30'"):
        table_of(results / "shapes")


def test_explicit_files_and_their_errors(results, tmp_path):
    base = results / "shapes/scores/geneval/base/0.json"
    copy = tmp_path / "copy.json"
    copy.write_bytes(base.read_bytes())
    assert labels(table_of(copy)) == ["base"]
    with pytest.raises(DataError, match="the same run and step as"):
        table_of(copy, base)
    with pytest.raises(DataError, match="absent: no such score file"):
        table_of(tmp_path / "absent")
    with pytest.raises(DataError, match="no score files scores/geneval/RUN/STEP.json"):
        table_of(tmp_path / "shapes" / "scores")
    with pytest.raises(DataError, match="give --benchmark, one of: geneval"):
        find_score_files([results / "shapes"], "geneval-official")
    copy.write_text('{"schema_version": 1')
    with pytest.raises(DataError, match=r"copy.json: not valid JSON"):
        table_of(copy)
    with pytest.raises(DataError, match="scored by 'geneval', this table needs 'dpg'"):
        read_score_files([base], "dpg")


def test_tables_command(results, tmp_path):
    out = tmp_path / "out"
    run = CliRunner().invoke(app, ["tables", "--scores", str(results / "shapes"), "--out", str(out), "--json"])
    assert run.exit_code == 0, run.output
    names = [f"geneval.{kind}" for kind in ("md", "html", "csv", "tex")] + ["short/geneval.tex", "geneval.json"]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == sorted(names)
    told, written = json.loads(run.stdout), json.loads((out / "geneval.json").read_text())
    assert told.pop("files") == [str(out / name) for name in names]
    assert told == written
    assert [s["run"] for s in written["provenance"]["scores"]] == ["base"] + ["promptecho-s1"] * 2 + ["promptecho-s2"]
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    files = sorted((results / "shapes").rglob("*.json"), reverse=True)
    run = CliRunner().invoke(app, ["tables", "--scores", *map(str, files), "--out", str(out), "--print"])
    assert run.exit_code == 0, run.output
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before  # whatever the order of the files
    assert "Overall" in run.stdout and "promptecho-s2" in run.stdout
    run = CliRunner().invoke(app, ["tables", "--scores", str(results / "shapes")])
    assert "nothing to do" in str(run.exception)
    run = CliRunner().invoke(app, ["tables", "--scores", str(results / "shapes"), "--table", "none", "--print"])
    assert "unknown benchmark" in str(run.exception)
