"""The paper's tables: published numbers as printed, their identities, and whether ours agree."""

from __future__ import annotations

import json

import pytest
from tables_world import densealign, dpg, geneval, tiif
from typer.testing import CliRunner

from promptecho.benchmarks.tiif.attributes import ADVANCED, BASIC, LENGTHS, SUBSCORES
from promptecho.cli import app
from promptecho.errors import ConfigError, DataError
from promptecho.tables.latex import to_latex
from promptecho.tables.paper import AGREE, PaperTables, parse_rows
from promptecho.tables.published import agrees, published
from promptecho.tables.results import Results
from promptecho.tables.table import to_markdown

ECHO, BASE = "Z-Image + PromptEcho", "Z-Image (Baseline)"


def make_run(root, run, step, gain, *, experiment="zimage"):
    geneval(root, run, step, 0.7 + gain, experiment=experiment)
    dpg(root, run, step, 0.85 + gain, experiment=experiment)
    tiif(root, run, step, 0.8 + gain, experiment=experiment)
    if step:
        densealign(root, run, step, 0.5 + gain, 0.3, experiment=experiment)


@pytest.fixture
def results(tmp_path):
    make_run(tmp_path, "base", 0, 0.0)
    make_run(tmp_path, "promptecho-s1", 900, 0.1)
    return tmp_path


def tables_of(root, *rows, experiments=("zimage",)):
    return PaperTables(Results([root / experiment for experiment in experiments]), parse_rows(rows))


def rows_of(table):
    return [(row["model"].text, row["model"].note) for row in table.rows]


# --- the published numbers


def test_published_numbers_round_trip(shared):
    """Against the numbers as they were copied from the paper."""
    told = json.loads((shared / "benchmarks/paper_tables.json").read_text())
    values = published().values
    for name, table in (("geneval", "table2_geneval"), ("dpg", "table3_dpg")):
        for row, numbers in told[table].items():
            assert {key: values[row][f"{name}.{key}"] for key in numbers} == numbers
    for row, numbers in told["table4_tiif"].items():
        for key, pair in numbers.items():
            assert pair == {length: values[row][f"tiif.{length}.{key}"] for length in LENGTHS}
    short, long = (values["Z-Image + InferScore"][f"tiif.{length}.overall"] for length in LENGTHS)
    assert {"short": short, "long": long} == told["table5_tiif_infer_score"]
    rows = [ECHO, "QwenImage-2512 + PromptEcho", "Z-Image + InferScore", "Z-Image + PromptEcho (8B Reward)"]
    for row, numbers in zip(rows, told["densealign"], strict=True):
        for key in ("win", "loss", "tie", "net"):
            assert values[row][f"densealign.{key}"] == numbers[key]
    sizes = {"32B": ECHO, "8B": "Z-Image + PromptEcho (8B Reward)"}
    for row, numbers in told["table8"].items():
        mine = values[next((name for size, name in sizes.items() if f"({size}" in row), BASE)]
        assert numbers == {
            "geneval": mine["geneval.overall"], "dpg": mine["dpg.overall"], "tiif_short": mine["tiif.short.overall"],
            "tiif_long": mine["tiif.long.overall"],
        }  # fmt: skip
    count = sum(len(numbers) for numbers in values.values())
    assert count == 5 * 7 - 5 + 5 * 6 + 4 * 24 + 2 + 4 * 4 + 4 + 5  # nothing else is in the file


def test_published_numbers_keep_the_benchmarks_identities():
    for row, numbers in published().values.items():
        tags = [value for key, value in numbers.items() if key.startswith("geneval.") and key != "geneval.overall"]
        if tags:
            assert numbers["geneval.overall"] == pytest.approx(sum(tags) / 6, abs=0.01), row
        if "densealign.net" in numbers:
            assert numbers["densealign.net"] == pytest.approx(
                numbers["densealign.win"] - numbers["densealign.loss"], abs=0.11
            )
            rates = [numbers[f"densealign.{side}"] for side in ("win", "loss", "tie")]
            assert sum(rates) == pytest.approx(100, abs=0.16)
        for length in LENGTHS if "tiif.short.attr" in numbers else ():
            mine = {key.removeprefix(f"tiif.{length}."): value for key, value in numbers.items()}
            assert mine["overall"] == pytest.approx(sum(mine[s] for s in SUBSCORES) / 9, abs=0.06)
            assert mine["basic_avg"] == pytest.approx(sum(mine[s] for s in BASIC) / 3, abs=0.11)
            weighted = sum((8 if "_" in s else 1) * mine[s] for s in ADVANCED) / 26
            assert mine["advanced_avg"] == pytest.approx(weighted, abs=0.11)


def test_every_table_has_the_papers_columns_and_rows():
    known = published()
    counts = {"table1": 4, "table2": 7, "table3": 6, "table4": 24, "table5": 15, "table6": 4, "table7": 4, "table8": 4}
    for name, table in known.tables.items():
        keys = [key for key in table.keys if key in known.columns]
        assert len(keys) == len(set(keys)) == counts[name]
        assert set(table.rows) <= set(known.values) and set(table.labels) <= set(table.keys)
        for row in table.rows:
            assert set(keys) <= set(known.values[row]), (name, row)
    assert set(known.tables) == set(counts) and set(known.runs) == set(known.values)


# --- agreement


@pytest.mark.parametrize(
    ("value", "decimals", "low", "high", "expected"),
    [
        (0.82, 2, 0.79, 0.85, True),
        (0.82, 2, 0.8249, 0.85, True),  # 0.8249 is printed 0.82
        (0.82, 2, 0.8251, 0.85, False),
        (0.82, 2, 0.70, 0.815, True),  # 0.815 is on the edge
        (0.82, 2, 0.70, 0.8149, False),
        (87.9, 1, 87.94, 90.0, True),
        (-3.3, 1, -3.25, 1.0, True),
        (-3.3, 1, -3.24, 1.0, False),
    ],
)
def test_agreement_is_the_interval_widened_by_half_a_printed_digit(value, decimals, low, high, expected):
    assert agrees(value, decimals, low, high) is expected


def test_each_published_number_tells_whether_it_agrees(results):
    table = tables_of(results, f"{ECHO}=zimage/promptecho-s1@900").table("table2")
    ours, paper = table.rows[2:4]
    assert (ours["model"].note, paper["model"].note) == ("(zimage/promptecho-s1 @ 900)", "(paper)")
    notes = {}
    for key, cell in paper.items():
        if key != "model":
            mine = ours[key]
            assert cell.note == ("agrees" if mine.low - 0.005 <= cell.value <= mine.high + 0.005 else "differs")
            assert cell.decimals == 2 and 0 < mine.value <= 1  # the paper's unit: fractions
            notes[key] = cell.note
    (told,) = [note for note in table.footnotes if note.startswith(f"{ECHO}: ")]
    assert told.startswith(f"{ECHO}: {list(notes.values()).count('agrees')} of 7 published numbers agree")
    assert AGREE in table.footnotes
    assert ours["geneval.delta"].value > 0 and ours["geneval.delta"].note.startswith("p ")
    assert "geneval.delta" not in paper and "geneval.delta" not in table.rows[0]


def test_another_metric_is_not_compared(results):
    table = tables_of(results).table("table3")
    assert table.rows[1]["dpg.overall"].note in ("agrees", "differs")
    assert AGREE in table.footnotes and table.warnings == []
    dpg(results, "base", 0, 0.85, backend="judge", judge_model="a VLM")
    dpg(results, "promptecho-s1", 900, 0.95, backend="judge", judge_model="a VLM")
    table = tables_of(results).table("table3")
    assert table.rows[0]["dpg.overall"].value > 80 and table.rows[1]["dpg.overall"].note == ""
    assert AGREE not in table.footnotes and not any("published numbers agree" in note for note in table.footnotes)
    assert table.warnings == [
        "DPG-Bench: another metric than the paper's, not compared with the published numbers, which are mplug's"
    ]


def test_rows_whose_images_others_looked_at_stand_in_one_table(results):
    """Those of the paper's metric are compared, the others are told."""
    for run, step in (("base", 0), ("promptecho-s1", 900)):
        dpg(results, run, step, 0.85, experiment="qwenimage", backend="judge", judge_model="a VLM")
    tables = tables_of(results, experiments=("zimage", "qwenimage"))
    table = tables.table("table3")
    notes = {row["model"].text: row["dpg.overall"].note for row in table.rows if row["model"].note == "(paper)"}
    assert notes[BASE] in ("agrees", "differs") and notes["QwenImage-2512 (Baseline)"] == ""
    assert any("dpg-judge 1.0 and a VLM" in note for note in table.footnotes)
    assert table.warnings == [
        "DPG-Bench: another metric than the paper's in the rows qwenimage/base, qwenimage/promptecho-s1 @ 900, not "
        "compared with the published numbers, which are mplug's"
    ]


def test_numbers_without_an_interval_are_not_compared(results):
    table = tables_of(results).table("table3")
    paper = table.rows[3]
    assert [paper[f"dpg.{key}"].note != "" for key in ("global", "other", "overall")] == [False, False, True]
    assert any(note.startswith(f"{ECHO}: ") and "of 1 published numbers" in note for note in table.footnotes)
    assert "91.60" in to_markdown(table)  # as printed


# --- rows


def test_rows_without_scores_show_the_published_numbers_alone(results):
    table = tables_of(results).table("table2")
    assert rows_of(table) == [
        (BASE, "(zimage/base)"), (BASE, "(paper)"), (ECHO, "(zimage/promptecho-s1 @ 900)"), (ECHO, "(paper)"),
        ("QwenImage-2512 (Baseline)", "(paper)"), ("QwenImage-2512 + PromptEcho", "(paper)"),
    ]  # fmt: skip
    assert any(note.startswith("No score files of ours for: QwenImage-2512 (Baseline), ") for note in table.footnotes)


def test_all_tables_and_rows_of_other_runs(results):
    make_run(results, "base", 0, 0.0, experiment="qwenimage")
    make_run(results, "promptecho", 300, 0.05, experiment="qwenimage")
    make_run(results, "inferscore", 900, 0.0)
    make_run(results, "eight", 900, 0.03)
    rows = ["Z-Image + PromptEcho (8B Reward) = zimage/eight@900"]
    tables = tables_of(results, *rows, experiments=("zimage", "qwenimage"))
    for name in published().tables:
        table = tables.table(name)
        assert len(table.rows) == 2 * len(published().tables[name].rows)
        assert not table.warnings
        assert not any(note.startswith("No score files") for note in table.footnotes)
        for ours in table.rows[::2]:
            for column in table.columns[1:]:
                trained = "Baseline" not in ours["model"].text
                assert (column.key in ours) or (not trained and column.key.endswith("delta")), (name, column.key)
        judges = {key.partition(".")[0] for key in published().tables[name].keys}
        for judge in judges:
            assert any(f"{judge}-judge 1.0" in note for note in table.footnotes)
        assert to_latex(table).count(r"\begin{tabular}") >= max(1, len(table.panels))


def test_seeds_are_taken_together_unless_one_is_named(results):
    make_run(results, "promptecho-s2", 900, 0.05)
    together = tables_of(results).table("table1").rows[0]
    assert together["model"].note == "(zimage/promptecho, 2 seeds @ 900)"
    assert together["densealign.images"].value == 120
    one = tables_of(results, f"{ECHO}=zimage/promptecho-s2").table("table1").rows[0]
    assert one["model"].note == "(zimage/promptecho-s2 @ 900)" and one["densealign.images"].value == 60


def test_the_last_step_is_one_that_all_benchmarks_have(results):
    geneval(results, "promptecho-s1", 1000, 0.9)
    assert tables_of(results).table("table2").rows[2]["model"].note == "(zimage/promptecho-s1 @ 900)"
    named = tables_of(results, f"{ECHO}=zimage/promptecho-s1@1000").table("table2")
    assert named.rows[2]["model"].note == "(zimage/promptecho-s1 @ 1000)"


def test_rows_from_a_file(results, tmp_path):
    path = tmp_path / "rows.yaml"
    path.write_text(f"{BASE}: zimage/base\n{ECHO}: zimage/promptecho-s1@900\n")
    assert parse_rows([str(path)])[ECHO].step == 900
    path.write_bytes(f"{ECHO}: zimage/größe-s1@90\r\n".encode("utf-16"))
    assert parse_rows([str(path)])[ECHO].run == "größe-s1"
    for faulty, told in {"- one\n": "expected a mapping", "a: 1\n": "expected pairs", "a: b\na: c\n": "twice"}.items():
        path.write_text(faulty)
        with pytest.raises(ConfigError, match=f"--paper-rows .*rows.yaml: .*{told}"):
            parse_rows([str(path)])
    with pytest.raises(ConfigError, match="absent.yaml: no such"):
        parse_rows(["absent.yaml"])


def test_rows_that_do_not_exist_are_refused(results):
    with pytest.raises(ConfigError, match="'Z-Image' is no row of the paper; its rows: Z-Image "):
        parse_rows(["Z-Image=zimage/base"])
    with pytest.raises(ConfigError, match="is not EXPERIMENT/RUN or EXPERIMENT/RUN@STEP"):
        parse_rows([f"{ECHO}=promptecho"])
    with pytest.raises(ConfigError, match="expected ROW=EXPERIMENT/RUN@STEP"):
        parse_rows([ECHO])
    with pytest.raises(DataError, match=r"no score files of zimage/other @ 3 for row .* zimage/promptecho-s1"):
        tables_of(results, f"{ECHO}=zimage/other@3").table("table2")
    with pytest.raises(ConfigError, match="the paper has no 'table9'; known: table1, "):
        tables_of(results).table("table9")


def test_benchmark_keys_are_free_but_must_be_one(results):
    root = results / "zimage/scores"
    for run, step in (("base", 0), ("promptecho-s1", 900)):
        geneval(results, run, step, 0.9, benchmark="geneval-strict")
    assert len(tables_of(results).table("table2").rows) == 6  # the one with the scorer's name
    for path in sorted((root / "geneval").rglob("*.json")):
        path.unlink()
    assert tables_of(results).table("table2").rows[0]["geneval.overall"].value > 0.8
    geneval(results, "base", 0, 0.9, benchmark="geneval-other")
    with pytest.raises(DataError, match="benchmarks geneval-other, geneval-strict are all scored by geneval"):
        tables_of(results).table("table2")


def test_judges_of_one_table_must_agree(results):
    make_run(results, "base", 0, 0.0, experiment="qwenimage")
    geneval(results, "base", 0, 0.7, experiment="qwenimage", judge_model="another")
    with pytest.raises(DataError, match="score files differ in judge_model"):
        tables_of(results, experiments=("zimage", "qwenimage")).table("table2")


def test_command(results, tmp_path):
    out = tmp_path / "out"
    call = ["tables", "--paper", "all", "--scores", str(results / "zimage"), "--out", str(out)]
    run = CliRunner().invoke(app, [*call, "--json"])
    assert run.exit_code == 0, run.output
    assert [table["name"] for table in json.loads(run.stdout)] == [f"table{number}" for number in range(1, 9)]
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    assert len(before) == 48
    files = sorted((results / "zimage").rglob("*.json"), reverse=True)
    run = CliRunner().invoke(app, [*call[:4], *map(str, files), *call[5:]])
    assert run.exit_code == 0, run.output
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    run = CliRunner().invoke(app, ["tables", "--paper", "table4", "--scores", str(results / "zimage"), "--print"])
    assert run.exit_code == 0 and "agrees" in run.stdout and "(paper)" in run.stdout
    run = CliRunner().invoke(app, [*call, "--table", "dpg"])
    assert "leave --table and --benchmark out" in str(run.exception)
    run = CliRunner().invoke(app, ["tables", *call[3:], "--paper-rows", "a=b/c"])
    assert "--paper-rows is for --paper" in str(run.exception)
