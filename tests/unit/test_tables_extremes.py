"""Tables of results that nobody plans: odd names, files of two versions, categories without an answer, hand edits."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import tables_world
from rich.console import Console
from tables_world import CATEGORIES, item, write

from promptecho import statistics
from promptecho.errors import DataError
from promptecho.names import by_number
from promptecho.tables.collect import find_score_files, read_score_files
from promptecho.tables.kinds import make_table
from promptecho.tables.table import Cell, Column, Table, print_rich, to_csv, to_markdown


def table_of(root, scorer):
    files = read_score_files(find_score_files([root / "zimage"], scorer), scorer)
    return make_table(scorer, files, name=scorer, max_failure_share=1.0)


def rows_of(table):
    return {row["model"].text: row for row in table.rows}


def dpg(root, run, step, right, *, parts=True, failed=""):
    """20 prompts of 2 images, a question of each category; `right`: how many prompts are right."""
    items = [item(f"p{p}", i, "all", float(p < right)) for p in range(20) for i in range(2)]
    of = [
        item(f"p{p}", q, category, None if category == failed else float(p < right))
        for p in range(20)
        for q, category in enumerate(CATEGORIES)
    ]
    summary = {"overall": right / 20, **{category: right / 20 for category in CATEGORIES if category != failed}}
    return write(root, "dpg", run, step, items, summary, parts=of if parts else ())


def test_groups_of_a_prompt_set_may_be_called_like_other_columns(tmp_path):
    groups = ("overall", "images", "delta", "model", "seeds", "title", "Title")
    for run, step in (("base", 0), ("echo-s1", 10), ("echo-s2", 10)):
        items = [
            item(f"{g}{p}", 0, g, float(p < 10 + k if step else p < k)) for k, g in enumerate(groups) for p in range(20)
        ]
        overall = float(np.mean([one.outcome for one in items]))
        write(tmp_path, "textocr", run, step, items, {"overall": overall})
    table = table_of(tmp_path, "textocr")
    keys = [column.key for column in table.columns]
    assert len(set(keys)) == len(keys)
    assert [column.label for column in table.columns[1:8]] == list(groups)
    for (label, row), gain in zip(rows_of(table).items(), (0, 10, 10, 10), strict=True):
        assert label in ("base", "echo-s1 @ 10", "echo-s2 @ 10", "echo, 2 seeds @ 10")
        assert [row[key].value for key in keys[1:8]] == pytest.approx([5 * (gain + k) for k in range(7)])
        assert all(row[key].highlight == bool(gain) for key in keys[1:8])
    lines = list(csv.reader(io.StringIO(to_csv(table))))
    assert len(set(lines[0])) == len(lines[0]) and {len(line) for line in lines} == {len(lines[0])}


def test_seeds_are_not_represented_by_those_that_have_parts(tmp_path):
    dpg(tmp_path, "base", 0, 10)
    dpg(tmp_path, "echo-s1", 10, 20, parts=False)  # scores of an earlier version
    dpg(tmp_path, "echo-s2", 10, 10)
    cell = rows_of(table_of(tmp_path, "dpg"))["echo, 2 seeds @ 10"]["global"]
    assert (cell.value, cell.low) == (pytest.approx(75), None)


def test_a_category_without_an_answer_is_a_dash(tmp_path):
    for run, step, right in (("base", 0, 10), ("echo", 10, 20)):
        dpg(tmp_path, run, step, right, failed="other")
    table = table_of(tmp_path, "dpg")
    assert all("other" not in row for row in table.rows)
    assert any("the scorer's summary tells no Other" in note for note in table.footnotes)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_a_summary_that_is_no_number_is_refused(tmp_path, value):
    path = dpg(tmp_path, "base", 0, 10, parts=False)
    scores = json.loads(path.read_text())
    scores["summary"]["global"] = value
    path.write_text(json.dumps(scores))
    with pytest.raises(DataError, match=rf"{path}: summary\.global: "):
        table_of(tmp_path, "dpg")


def test_only_checkpoints_are_score_files(tmp_path):
    path = dpg(tmp_path, "base", 0, 10)
    for name in ("._0.json", "notes.json"):
        path.with_name(name).write_text("{}")
    assert find_score_files([tmp_path / "zimage"], "dpg") == [path]


def test_ten_seeds_are_in_the_order_of_their_numbers(tmp_path):
    for seed in (10, 2, 1):
        dpg(tmp_path, f"echo-s{seed}", 10, 10)
    assert list(rows_of(table_of(tmp_path, "dpg")))[:3] == [f"echo-s{seed} @ 10" for seed in (1, 2, 10)]
    names = ["a", "a1", "a01", "1", "a1b", "a10", "a2", "base", ""]
    assert sorted(names, key=by_number) == ["", "1", "a", "a01", "a1", "a1b", "a2", "a10", "base"]


def test_tiif_tells_that_counts_are_of_both_lengths(tmp_path):
    tables_world.tiif(tmp_path, "base", 0, 0.5)
    assert any("count short and long prompts together" in note for note in table_of(tmp_path, "tiif").footnotes)


def test_markdown_neither_decodes_nor_links_a_name():
    name = "a&lt;b~~c~~[d](e) A&B"
    table = Table("t", "T", [Column("model", "Model", decimals=None)], [{"model": Cell(text=name)}])
    assert r"| a&amp;lt;b\~\~c\~\~[d]\(e) A&B |" in to_markdown(table)


def test_a_name_wider_than_the_terminal_breaks_no_line():
    name = "zimage-turbo-promptecho-qwen3vl-32b-reward-lora-r64-lr3e-4-kl0.002-images-first-prompts-v2-filtered-s1"
    columns = [Column("model", "Model", decimals=None), *(Column(key, key, interval=True) for key in "abcdefgh")]
    numbers = {key: Cell(50.0, 40.0, 60.0) for key in "abcdefgh"}
    rows = [{"model": Cell(text=text), **numbers} for text in ("base", f"{name} @ 40", "模型" * 40)]
    file = io.StringIO()
    print_rich(Table("t", "T", columns, rows, footnotes=["a note of many words " * 20]), Console(file=file, width=80))
    assert max(map(len, file.getvalue().splitlines())) <= 80
    assert name in "".join(file.getvalue().split())


def test_the_test_of_many_prompts_does_not_keep_their_signs():
    signs = [statistics._signs("all", n, 10, 0) for n in range(200, 210)]
    assert statistics._large_signs.cache_info().currsize <= 2
    assert (statistics._signs("all", 200, 10, 0) == signs[0]).all()
