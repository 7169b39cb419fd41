"""The tables of DPG-Bench, TIIF-Bench, DenseAlignBench and text rendering."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console
from tables_world import CATEGORIES, densealign, dpg, geneval, item, textocr, tiif, write
from typer.testing import CliRunner

from promptecho.benchmarks.tiif.attributes import ADVANCED, ATTRIBUTES, BASIC, COLUMNS, LENGTHS, SUBSCORES
from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.intervals import wilson_interval
from promptecho.scores import read_scores
from promptecho.tables.collect import find_score_files, read_score_files
from promptecho.tables.kinds import make_table
from promptecho.tables.latex import to_latex
from promptecho.tables.table import print_rich, to_csv, to_json, to_markdown


def table_of(root, scorer, *, experiment="zimage", **options):
    files = read_score_files(find_score_files([root / experiment], scorer), scorer)
    return make_table(scorer, files, name=scorer, **options)


def labels(table):
    return [row["model"].text for row in table.rows]


def value(row, key):
    return row[key].value


# --- TIIF-Bench


def test_tiif_columns_are_the_official_means(tmp_path):
    path = tiif(tmp_path, "base", 0, 0.8, prompts=lambda attribute: 3 + len(attribute) % 4)
    row, scores = table_of(tmp_path, "tiif").rows[0], read_scores(path)
    for length in LENGTHS:
        for column in COLUMNS:
            told = 100 * scores.summary[f"{length}.{column}"]
            cell = row[f"{length}.{column}"]
            assert cell.value == told and cell.low <= told <= cell.high
        subscores = [value(row, f"{length}.{name}") for name in SUBSCORES]
        assert value(row, f"{length}.overall") == pytest.approx(np.mean(subscores), abs=1e-9)
        basic = [value(row, f"{length}.{name}") for name in BASIC]
        assert value(row, f"{length}.basic_avg") == pytest.approx(np.mean(basic), abs=1e-9)
        advanced = [value(row, f"{length}.{name}") for name in ADVANCED]
        weighted = (8 * sum(advanced[:3]) + sum(advanced[3:])) / 26
        assert value(row, f"{length}.advanced_avg") == pytest.approx(weighted, abs=1e-9)
        assert value(row, f"{length}.advanced_avg") != pytest.approx(np.mean(advanced), abs=1e-3)
    prompts = sum(3 + len(attribute) % 4 for attribute in ATTRIBUTES)
    assert [value(row, key) for key in ("prompts", "images", "failures")] == [prompts, 6 * prompts, 0]


def test_tiif_attributes_without_outcomes_leave_the_means_and_are_told(tmp_path):
    some = [a for a in ATTRIBUTES if "texture" not in a and a not in ("style", "text")]
    tiif(tmp_path, "base", 0, 0.7, attributes=some)
    tiif(tmp_path, "echo-s1", 9, 0.8, attributes=some)
    table = table_of(tmp_path, "tiif")
    row = table.rows[0]
    assert "short.style" not in row and "long.text" not in row and "short.attr" in row  # shape+color is left of it
    assert "| – |" in to_markdown(table) and " & -- & " in to_latex(table)
    assert json.loads(to_json(table))["rows"][0].get("short.style") is None
    line = next(csv.DictReader(io.StringIO(to_csv(table))))
    assert line["short.style"] == line["short.style_low"] == "" and float(line["short.attr"]) > 0
    (note,) = [note for note in table.footnotes if note.startswith("Without outcomes in all rows: ")]
    assert all(a in note for a in ATTRIBUTES if a not in some) and "shape+color" not in note
    assert not table.warnings
    assert value(table.rows[1], "short.delta") == pytest.approx(
        value(table.rows[1], "short.overall") - value(row, "short.overall"), abs=0.01
    )


def test_tiif_failed_questions_are_left_out(tmp_path):
    path = tiif(tmp_path, "base", 0, 0.8, prompts=lambda attribute: 20)
    scores = read_scores(path)
    dead = [one.group == "short:style" and one.prompt_id == "style/0" for one in scores.items]
    items = [
        one.model_copy(update={"outcome": None, "failed": True}) if gone else one
        for one, gone in zip(scores.items, dead, strict=True)
    ]
    write(tmp_path, "tiif", "base", 0, items, scores.summary)
    row = table_of(tmp_path, "tiif").rows[0]
    left = [one.outcome for one in items if one.group == "short:style" and not one.failed]
    assert len(left) == 57 and value(row, "failures") == 3
    # not the summary's number, which is of all questions here: more than rounding apart
    assert value(row, "short.style") == pytest.approx(100 * np.mean(left))


def test_tiif_short_and_long_are_compared_each_with_its_own(tmp_path):
    tiif(tmp_path, "base", 0, 0.6)
    path = tiif(tmp_path, "echo-s1", 9, 0.6)
    base = read_scores(tmp_path / "zimage/scores/tiif/base/0.json")
    better = [one.model_copy(update={"outcome": 1.0}) if one.group.startswith("long:") else one for one in base.items]
    write(tmp_path, "tiif", "echo-s1", 9, better, read_scores(path).summary)
    row = table_of(tmp_path, "tiif").rows[1]
    assert (value(row, "short.delta"), row["short.delta"].note) == (0.0, "p = 1.000")
    assert value(row, "long.delta") > 20 and row["long.delta"].note == "p < 0.001" and row["long.delta"].low > 0


def test_tiif_seeds_have_a_spread_for_each_length(tmp_path):
    tiif(tmp_path, "base", 0, 0.6)
    for seed in (1, 2):
        tiif(tmp_path, f"echo-s{seed}", 9, 0.6 + 0.1 * seed)
    table = table_of(tmp_path, "tiif")
    assert labels(table)[-1] == "echo, 2 seeds @ 9"
    one, two, both = table.rows[1:]
    for length in LENGTHS:
        gains = [value(row, f"{length}.delta") for row in (one, two)]
        assert value(both, f"{length}.delta") == pytest.approx(np.mean(gains))
        assert value(both, f"{length}.seed_sd") == pytest.approx(np.std(gains, ddof=1))
    keys = [column.key for column in table.columns]
    assert keys.count("seeds") == 1 and len(keys) == len(set(keys))
    assert "seeds" in table.panels[0].keys and "long.seed_sd" in table.panels[2].keys


@pytest.mark.parametrize("width", [80, 120, 200])
def test_tiif_reads_well_in_every_format(tmp_path, width):
    """Four grids of a handful of columns instead of one of thirty; nothing is lost in any."""
    tiif(tmp_path, "base", 0, 0.8)
    tiif(tmp_path, "promptecho-s1", 900, 0.85)
    table = table_of(tmp_path, "tiif")
    shown = {key for panel in table.panels for key in panel.keys}
    assert shown == {column.key for column in table.columns} - {"model"}
    markdown, latex = to_markdown(table), to_latex(table)
    assert markdown.count("\n## ") == latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 4
    assert max(line.count("|") for line in markdown.splitlines()) <= 11
    assert latex.count(r"\label{tab:tiif}") == latex.count(r"\textit{Long prompts, advanced") == 1
    assert latex.count(r"\begin{minipage}") == 1  # footnotes once
    stream = io.StringIO()
    print_rich(table, Console(file=stream, width=width))
    text = stream.getvalue()
    assert "…" not in text
    for row in table.rows:
        for column in table.columns:
            if column.interval and column.key in row:
                cell = row[column.key]
                sign = "+" if column.signed else ""
                assert f"{cell.value:.1f}" in markdown and f"{cell.value:.1f}" in text and f"{cell.value:.1f}" in latex
                assert column.signed or f"[{cell.low:{sign}.1f}, {cell.high:{sign}.1f}]" in text
    grid = text[: text.index("- Percent")]
    assert max(map(len, grid.splitlines())) <= width


# --- DPG-Bench


def test_dpg_categories_have_intervals_where_the_scores_hold_their_questions(tmp_path):
    scores = read_scores(dpg(tmp_path, "base", 0, 0.85))
    rng = np.random.default_rng(0)
    parts = [
        item(f"partiprompts{p}", k, name, float(rng.random() < 0.9))
        for p in range(40)
        for k, name in enumerate(name for name in CATEGORIES if name != "other" or p < 20)
    ]
    means = {name: float(np.mean([part.outcome for part in parts if part.group == name])) for name in CATEGORIES}
    path = write(tmp_path, "dpg", "base", 0, scores.items, {**scores.summary, **means}, parts=parts)
    assert read_scores(path).parts == parts
    row = table_of(tmp_path, "dpg").rows[0]
    for name in CATEGORIES:
        assert value(row, name) == pytest.approx(100 * means[name], abs=1e-9)
        assert row[name].low < value(row, name) < row[name].high
    narrow, wide = (row[name].high - row[name].low for name in ("entity", "other"))  # 40 prompts and 20
    assert wide > narrow


def test_dpg_overall_has_an_interval_and_categories_without_questions_have_none(tmp_path):
    path = dpg(tmp_path, "base", 0, 0.85)
    dpg(tmp_path, "echo-s1", 9, 0.9)
    table, summary = table_of(tmp_path, "dpg"), read_scores(path).summary
    assert [c.label for c in table.columns] == [
        "Model", "Global", "Entity", "Attribute", "Relation", "Other", "Overall", "Δ vs base", "Prompts", "Images",
        "Failed",
    ]  # fmt: skip
    row = table.rows[0]
    for name in CATEGORIES:
        assert (value(row, name), row[name].low) == (100 * summary[name], None)
    assert value(row, "overall") == pytest.approx(100 * summary["overall"])
    assert row["overall"].low < value(row, "overall") < row["overall"].high
    assert value(row, "overall") != pytest.approx(np.mean([value(row, name) for name in CATEGORIES]))
    assert value(table.rows[1], "delta") == pytest.approx(value(table.rows[1], "overall") - value(row, "overall"))


def test_dpg_prompts_count_alike_whatever_failed(tmp_path):
    """Overall is the mean over prompts: a prompt that lost an image counts no less."""
    summary = read_scores(dpg(tmp_path, "base", 0, 0.85, failed=3)).summary
    table = table_of(tmp_path, "dpg", max_failure_share=0.1)
    assert value(table.rows[0], "overall") == pytest.approx(100 * summary["overall"], abs=1e-9)
    assert [value(table.rows[0], key) for key in ("prompts", "images", "failures")] == [40, 157, 3]
    with pytest.raises(DataError, match="3 of 160 items failed, more than the 1.0% allowed"):
        table_of(tmp_path, "dpg")


def test_a_category_that_the_summary_does_not_tell_is_a_dash(tmp_path):
    path = dpg(tmp_path, "base", 0, 0.85)
    scores = read_scores(path)
    write(tmp_path, "dpg", "base", 0, scores.items, {k: v for k, v in scores.summary.items() if k != "other"})
    table = table_of(tmp_path, "dpg")
    assert "other" not in table.rows[0] and "| – |" in to_markdown(table)
    assert "A dash: the scorer's summary tells no Other." in table.footnotes


# --- DenseAlignBench


def test_densealign_has_no_base_row_and_counts_exactly(tmp_path):
    path = densealign(tmp_path, "echo-s1", 9, 0.6, 0.3, failed=2, prompts=400)
    table, scores = table_of(tmp_path, "densealign"), read_scores(path)
    assert labels(table) == ["echo-s1 @ 9"] and not table.warnings
    assert [c.label for c in table.columns] == [
        "Model", "Win", "Loss", "Tie", "Net", "Prompts", "Pairs", "Failed", "Position bias p"
    ]  # fmt: skip
    row, outcomes = table.rows[0], [one.outcome for one in scores.items if not one.failed]
    for side, outcome in (("win", 1), ("loss", -1), ("tie", 0)):
        n = outcomes.count(outcome)
        assert value(row, side) == pytest.approx(100 * n / 398) == pytest.approx(100 * scores.summary[side])
        low, high = wilson_interval(n, 398)
        assert (row[side].low, row[side].high) == pytest.approx((100 * low, 100 * high))
    assert value(row, "net") == pytest.approx(100 * scores.summary["net"])
    assert value(row, "net") == pytest.approx(value(row, "win") - value(row, "loss"))
    assert 0 < row["net"].low < value(row, "net") < row["net"].high and row["net"].note == "p < 0.001"
    assert [value(row, key) for key in ("images", "failures", "position_bias_p")] == [398, 2, 0.25]
    assert any("Compared with base @ 0." in note for note in table.footnotes)
    assert not any("vs base:" in note for note in table.footnotes)


def test_densealign_pairs_of_one_prompt_are_no_independent_evidence(tmp_path):
    densealign(tmp_path, "one", 9, 0.5, 0.3, prompts=100)
    scores = read_scores(tmp_path / "zimage/scores/densealign/one/9.json")
    four = [one.model_copy(update={"image_index": i}) for one in scores.items for i in range(4)]
    write(tmp_path, "densealign", "four", 9, four, scores.summary, experiment="other")
    one, four = (table_of(tmp_path, "densealign", experiment=e).rows[0] for e in ("zimage", "other"))
    for key in ("net", "win"):  # the variance of four is estimated, which costs a little
        assert (four[key].low, four[key].high) == pytest.approx((one[key].low, one[key].high), abs=0.5)
        assert four[key].high - four[key].low > one[key].high - one[key].low


def test_densealign_seeds_and_baselines(tmp_path):
    densealign(tmp_path, "echo-s1", 9, 0.6, 0.3)
    densealign(tmp_path, "echo-s2", 9, 0.5, 0.4)
    table = table_of(tmp_path, "densealign")
    one, two, both = table.rows
    gains = [value(row, "net") for row in (one, two)]
    assert value(both, "net") == pytest.approx(np.mean(gains))
    assert value(both, "seed_sd") == pytest.approx(np.std(gains, ddof=1)) and "position_bias_p" not in both
    assert any("its net the mean of theirs" in note for note in table.footnotes)
    densealign(tmp_path, "echo-s2", 9, 0.5, 0.4, baseline="other @ 3")
    with pytest.raises(DataError, match="score files differ in baseline: 'base @ 0'"):
        table_of(tmp_path, "densealign")


@pytest.mark.parametrize(("win", "loss"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_densealign_unanimity_is_not_certainty(tmp_path, win, loss):
    densealign(tmp_path, "echo", 9, win, loss, prompts=30)
    net = table_of(tmp_path, "densealign").rows[0]["net"]
    assert net.value == 100 * (win - loss) and -100 <= net.low <= net.value <= net.high <= 100
    assert 5 < net.high - net.low < 30


# --- text rendering


def test_textocr_groups_are_those_of_the_prompt_set(tmp_path):
    textocr(tmp_path, "base", 0, 0.6)
    table = table_of(tmp_path, "textocr")
    assert [c.label for c in table.columns] == [
        "Model", "Accuracy", "Δ vs base", "Character errors", "Prompts", "Images", "Failed"
    ]  # fmt: skip
    assert value(table.rows[0], "character_error_rate") == 12.5
    for run, step, chance in (("base", 0, 0.5), ("echo-s1", 9, 0.8)):
        textocr(tmp_path, run, step, chance, groups=("sign", "poster"), experiment="long")
    table = table_of(tmp_path, "textocr", experiment="long")
    assert [c.label for c in table.columns][1:4] == ["Sign", "Poster", "Accuracy"]
    row = table.rows[1]
    assert value(row, "overall") == pytest.approx((value(row, "sign") + value(row, "poster")) / 2)
    assert row["delta"].value == pytest.approx(value(row, "overall") - value(table.rows[0], "overall"))
    scores = read_scores(textocr(tmp_path, "base", 0, 0.5, experiment="judged"))
    write(tmp_path, "textocr", "base", 0, scores.items, {"overall": scores.summary["overall"]}, experiment="judged")
    assert "Character errors" not in [c.label for c in table_of(tmp_path, "textocr", experiment="judged").columns]


# --- the command


@pytest.mark.parametrize("scorer", ["dpg", "tiif", "densealign", "textocr", "geneval"])
def test_every_table_by_command_twice_the_same(tmp_path, scorer):
    make = {"dpg": dpg, "tiif": tiif, "textocr": textocr, "geneval": geneval}
    if scorer == "densealign":
        densealign(tmp_path, "echo-s1", 9, 0.6, 0.3, benchmark="mine")
    else:
        make[scorer](tmp_path, "base", 0, 0.5, benchmark="mine")
        make[scorer](tmp_path, "echo-s1", 9, 0.8, benchmark="mine")
    call = ["tables", "--table", scorer, "--benchmark", "mine", "--scores", str(tmp_path / "zimage"), "--out"]
    for out in ("a", "b"):
        run = CliRunner().invoke(app, [*call, str(tmp_path / out)])
        assert run.exit_code == 0, run.output
    names = [*(f"mine.{kind}" for kind in ("csv", "html", "json", "md", "tex")), "short/mine.tex"]
    assert sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*.*")) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert f"{scorer}-judge 1.0" in (tmp_path / "a/mine.md").read_text()  # who judged


def test_an_unknown_attribute_is_refused(tmp_path):
    path = write(tmp_path, "tiif", "base", 0, [item("x/0", 0, "short:smell", 1.0)], {"overall": 1.0})
    with pytest.raises(DataError, match=f"{path}: unknown TIIF-Bench attribute 'short:smell'"):
        table_of(tmp_path, "tiif")
