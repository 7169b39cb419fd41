"""Bold: the best value of a column, where it is significantly better than the base's."""

from __future__ import annotations

import numpy as np
from tables_world import densealign, dpg, geneval, item, textocr, tiif, write

from promptecho.benchmarks.geneval.prompts import TAGS
from promptecho.scores import read_scores
from promptecho.tables.collect import find_score_files, read_score_files
from promptecho.tables.kinds import make_table
from promptecho.tables.table import Table


def table_of(root, scorer) -> Table:
    return make_table(scorer, read_score_files(find_score_files([root / "zimage"], scorer), scorer), name=scorer)


def bold(table: Table) -> set[tuple[str, str]]:
    return {(row["model"].text, key) for row in table.rows for key, cell in row.items() if cell.highlight}


def note_of(table: Table) -> str:
    (note,) = [note for note in table.footnotes if "bold" in note.lower()]
    return note


def test_a_gain_is_bold_and_chance_is_not(tmp_path):
    geneval(tmp_path, "base", 0, 0.5)
    geneval(tmp_path, "better-s1", 10, 0.9)
    geneval(tmp_path, "worse-s1", 10, 0.4)
    table = table_of(tmp_path, "geneval")
    row = next(row for row in table.rows if row["model"].text.startswith("better"))
    assert row["delta"].low > 0 and row["delta"].note == "p < 0.001"
    assert bold(table) == {("better-s1 @ 10", key) for key in (*TAGS, "overall")}
    assert note_of(table).startswith("Bold: the best value of a column, where it is significantly better than the base")
    geneval(tmp_path, "better-s1", 10, 0.52)
    table = table_of(tmp_path, "geneval")
    best = max(table.rows, key=lambda row: row["overall"].value)
    assert ("overall" in {key for _, key in bold(table)}) == (best.get("delta") is not None and best["delta"].low > 0)
    assert not bold(table)


def test_the_base_is_not_bold_and_nothing_is_where_it_is_best(tmp_path):
    geneval(tmp_path, "base", 0, 0.9)
    geneval(tmp_path, "worse-s1", 10, 0.5)
    assert not bold(table_of(tmp_path, "geneval"))


def test_three_gains_of_three_are_not_significant(tmp_path):
    for run, step, outcome in (("base", 0, 0.0), ("echo-s1", 9, 1.0)):
        items = [item(f"p{p}", 0, "all", outcome) for p in range(3)]
        write(tmp_path, "textocr", run, step, items, {"overall": outcome})
    table = table_of(tmp_path, "textocr")
    delta = table.rows[1]["delta"]
    assert (delta.value, delta.high) == (100, 100) and delta.low < 0
    assert not bold(table)


def test_without_a_base_nothing_is_bold(tmp_path):
    geneval(tmp_path, "one-s1", 10, 0.9)
    geneval(tmp_path, "two-s1", 10, 0.3)
    table = table_of(tmp_path, "geneval")
    assert not bold(table) and note_of(table) == "Nothing is bold: no row can be compared with its base."


def test_seeds_together_can_be_best(tmp_path):
    geneval(tmp_path, "base", 0, 0.3)
    for seed in (1, 2):
        geneval(tmp_path, f"echo-s{seed}", 10, 0.8)
    table = table_of(tmp_path, "geneval")
    overall = {row["model"].text: row["overall"] for row in table.rows}
    best = max(overall, key=lambda label: round(overall[label].value, 1))
    assert (best, "overall") in bold(table)


def test_groups_and_questions_are_tested_by_themselves(tmp_path):
    textocr(tmp_path, "base", 0, 0.2, groups=("short", "long"))
    textocr(tmp_path, "echo-s1", 9, 0.9, groups=("short", "long"))
    assert bold(table_of(tmp_path, "textocr")) == {("echo-s1 @ 9", key) for key in ("short", "long", "overall")}
    rng = np.random.default_rng(0)
    for run, step, chance in (("base", 0, 0.5), ("echo-s1", 9, 0.9)):
        scores = read_scores(dpg(tmp_path, run, step, chance))
        parts = [
            item(f"partiprompts{p}", q, group, float(rng.random() < (chance if group == "entity" else 0.7)))
            for p in range(40)
            for q, group in enumerate(("entity", "entity", "relation"))
        ]
        means = {g: float(np.mean([i.outcome for i in parts if i.group == g])) for g in ("entity", "relation")}
        write(tmp_path, "dpg", run, step, scores.items, {**scores.summary, **means}, parts=parts)
    # relations differ by chance alone, and no questions are told of the other categories
    assert bold(table_of(tmp_path, "dpg")) == {("echo-s1 @ 9", "entity"), ("echo-s1 @ 9", "overall")}


def test_weighted_columns_and_net_are_tested_too(tmp_path):
    tiif(tmp_path, "base", 0, 0.4)
    tiif(tmp_path, "echo-s1", 9, 0.9)
    marked = {key for _, key in bold(table_of(tmp_path, "tiif"))}
    assert {"short.overall", "long.overall", "short.basic_avg", "long.advanced_avg"} <= marked
    densealign(tmp_path, "one-s1", 9, 0.7, 0.1)
    densealign(tmp_path, "two-s1", 9, 0.3, 0.3)
    table = table_of(tmp_path, "densealign")
    assert bold(table) == {("one-s1 @ 9", "win"), ("one-s1 @ 9", "net")}
    assert "the row's net is significantly above 0" in note_of(table)
    densealign(tmp_path, "one-s1", 9, 0.35, 0.3)
    assert not bold(table_of(tmp_path, "densealign"))
