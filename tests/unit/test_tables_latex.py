"""Tables as LaTeX: the same numbers, any text, and no line wider than the paper's; compiled where there is a TeX."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from tables_world import densealign, dpg, geneval, textocr, tiif

from promptecho.tables.collect import find_score_files, read_score_files
from promptecho.tables.kinds import make_table
from promptecho.tables.latex import to_latex
from promptecho.tables.latex_text import escape_latex, text_width, wrapped
from promptecho.tables.paper import PaperTables, parse_rows
from promptecho.tables.results import Results
from promptecho.tables.table import Cell, Column, Table, number

SCORERS = {"geneval": geneval, "dpg": dpg, "tiif": tiif, "textocr": textocr}
PAPER = ("table1", "table2", "table4", "table5", "table8")
CHARACTERS = [chr(code) for code in range(1, 0x180)] + list("αΩ→±≤…–“„”✓中文한🙂\u0301\u200b\u2028́∞∈½ﬁйא")
TRAPS = (
    r"a_b&c%d#e$f{g}~h^i\j|k*l<m[n]>o", "[1] first", "* starred", "--end---", "100% & more_", "ends with \\", "^^M^^41",
    "``quoted'' ?` !`", "été naïve Ångström Łódź Groß œuvre Dvořák", "Δ vs base ± 3 → ½", "\\input{absent}",
    "a\nb\n\nc", "x" * 300, "a_rather_long_name/of_an_experiment-of-somebody/else: run_1%&# @ 100000", "{}" * 60, "",
)  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, Table]:
    """Tables of all scorers with two seeds, some of the paper's, and one of texts that nobody would write."""
    root = tmp_path_factory.mktemp("results")
    for make in SCORERS.values():
        make(root, "base", 0, 0.5)
        for seed in (1, 2):
            make(root, f"promptecho-s{seed}", 400, 0.9)
    densealign(root, "promptecho-s1", 400, 0.6, 0.3)
    found = {
        name: make_table(name, read_score_files(find_score_files([root / "zimage"], name), name), name=name)
        for name in (*SCORERS, "densealign")
    }
    paper = PaperTables(Results([root / "zimage"]), parse_rows([]))
    return found | {name: paper.table(name) for name in PAPER} | {"odd": odd_table()}


def odd_table() -> Table:
    """Traps and random characters in every place that takes a text."""
    rng = np.random.default_rng(5)
    texts = [*TRAPS, *("".join(rng.choice(CHARACTERS, size=rng.integers(1, 30))) for _ in range(20))]
    columns = [Column("m", TRAPS[0], decimals=None)]
    columns += [Column(f"x{n}", TRAPS[n], interval=n == 1, unit=texts[-n][:9]) for n in (1, 2)]
    rows = [
        {"m": Cell(text=text, note=texts[-n][:20]), "x1": Cell(n, n - 1e4, n + 1e4), "x2": Cell(-n, note=text[:20])}
        for n, text in enumerate(texts)
    ]
    rows[3]["x1"].highlight = rows[3]["m"].highlight = True
    return Table("odd_%name", TRAPS[0], columns, rows, footnotes=texts[::2], warnings=texts[1::2])


def narrow(text: str) -> str:
    """What a narrow page takes."""
    return text.partition("\\else % narrower")[2] or text


def tabulars(text: str) -> list[tuple[str, list[str]]]:
    """(columns, lines) of each."""
    grids = re.findall(r"\\begin\{tabular\}\{@\{\}([lr@{}]+)@\{\}\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    return [(sides.replace("@{}", ""), re.findall(r"(.*) \\\\(?:\[-2pt\])?\n", body)) for sides, body in grids]


def cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)&", line)) + line.count(r"\multicolumn{2}") + 1


@pytest.mark.parametrize("short", [False, True])
def test_every_line_has_as_many_cells_as_columns_and_braces_close(tables, short):
    for name, table in tables.items():
        text = to_latex(table, short)
        assert text.startswith("% Needs \\usepackage{booktabs}")
        for sides, lines in tabulars(text):
            assert len(lines) > 1
            assert {cells(line) for line in lines} == {len(sides)}, name
        bare = re.sub(r"\\[\\{}]", "", text)
        assert bare.count("{") == bare.count("}"), name


@pytest.mark.parametrize("name", [*SCORERS, "densealign", *PAPER])
def test_both_forms_show_the_tables_numbers_and_the_short_one_no_intervals(tables, name):
    table = tables[name]
    whole, short = to_latex(table), to_latex(table, short=True)
    assert "$_{" not in short and r"\scriptsize p" not in short and "$_{" in whole
    for row in table.rows:
        for column in table.columns:
            cell = table.cell(row, column)
            if cell.value is None:
                continue
            value, signs = number(cell.value, column, cell.decimals), lambda text: text.replace("-", "$-$")
            if column.decimals == 0:  # a column, or a note where all rows agree
                assert re.search(rf"\b{value}\b", narrow(whole)) and re.search(rf"\b{value}\b", narrow(short))
                continue
            assert signs(value) in short
            low, high = (None if end is None else number(end, column) for end in (cell.low, cell.high))
            limits = f"$_{{{low}}}^{{{high}}}$" if low and column.interval else ""
            shown = rf"\textbf{{{signs(value)}}}" if cell.highlight else signs(value)
            assert (f"{shown} & {limits}" if limits else shown) in narrow(whole)


def test_a_row_of_several_lines_has_its_values_in_the_first(tables):
    ((_, lines), *_) = tabulars(narrow(to_latex(tables["geneval"])))
    number_of_row = next(index for index, line in enumerate(lines) if line.startswith("promptecho-s1"))
    assert r"\scriptsize" not in lines[number_of_row] and "$_{" in lines[number_of_row]
    assert lines[number_of_row + 1].startswith("&") and r"\scriptsize p $<$ 0.001" in lines[number_of_row + 1]


def test_blocks_are_even_and_begin_with_what_counts_most(tables):
    text = to_latex(tables["geneval"])
    assert text.count(r"\ifdim\textwidth>") == 1 and text.count(r"\fi") == 1
    wide, blocks = text[: -len(narrow(text))], tabulars(narrow(text))
    assert len(tabulars(wide)) == 1
    sizes = [sides.count("r") for sides, _ in blocks]
    assert len(sizes) > 1 and max(sizes) - min(sizes) <= 1
    assert blocks[0][1][2].startswith(r"Model & \multicolumn{2}{c}{Overall} & \multicolumn{2}{c}{base} & seeds")
    assert sum(sizes) == tabulars(wide)[0][0].count("r")


def test_counts_that_all_rows_share_are_a_note_and_others_a_column(tmp_path):
    dpg(tmp_path, "base", 0, 0.5)
    dpg(tmp_path, "echo-s1", 9, 0.5)

    def made() -> str:
        files = read_score_files(find_score_files([tmp_path / "zimage"], "dpg"), "dpg")
        return to_latex(make_table("dpg", files, name="dpg"), short=True)

    assert "The same in every row that has them: Prompts 40, Images 160, Failed 0." in made()
    dpg(tmp_path, "echo-s1", 9, 0.5, failed=1)
    assert "that has them: Prompts 40." in made() and "Failed" in "".join(tabulars(made())[0][1][:2])


def test_the_short_form_says_who_judged_and_what_bold_means_and_fits_one_column(tables):
    short = to_latex(tables["densealign"], short=True)
    assert r"\begin{table}" in short and r"\label{tab:densealign-short}" in short and "Bold: the best" in short
    assert "judged by: densealign-judge 1.0" in short and "n: 60 prompts" in short and "Config digest" not in short
    assert r"\begin{table*}" in to_latex(tables["densealign"])


def test_long_tables_go_on_in_further_floats_under_one_number(tables):
    rows = [row for row in tables["geneval"].rows for _ in range(40)]
    text = narrow(to_latex(replace(tables["geneval"], rows=rows)))
    floats = text.count(r"\begin{table*}")
    assert floats > 2 and text.count(r"\addtocounter{table}{-1}") == floats - 1 == text.count("(continued)}")
    assert text.count(r"\label{tab:geneval}") == 1


def test_texts_are_escaped():
    assert escape_latex(TRAPS[0]) == (
        r"a\_b\&c\%d\#e\$f\{g\}\textasciitilde{}h\textasciicircum{}i\textbackslash{}j\textbar{}k{*}l$<$m{[}n{]}$>$o"
    )
    assert escape_latex("[*] a--b") == "{[}{*}{]} a-{}-b"
    assert escape_latex("é ø → ± Δ λ – 中 e\u0301") == (
        r"\'{e} \o{} $\rightarrow$ $\pm$ $\Delta$ $\lambda$ -- (U+4E2D) \'{e}"
    )
    assert escape_latex("a\n\x00\u2028b") == "a b"
    assert all(escape_latex(character).isascii() for character in CHARACTERS)


def test_widths_and_lines():
    assert text_width("80.4", 9.0) == pytest.approx(16.45, rel=0.03)  # cmr9: 3 digits of 4.625, a point of 2.569
    assert text_width("80.4", 9.0, bold=True) > text_width("80.4", 9.0) > text_width("80.4", 8.0)
    assert wrapped("Attr.+Rela.", 7, 14) == ["Attr.+", "Rela."] and wrapped("Counting", 7, 14) == ["Counting"]
    assert wrapped("", 7, 14) == [""] and wrapped("中中", 7, 14) == ["中", "中"]
    assert wrapped("of a pair", 7, 14) == ["of a", "pair"]
    assert "".join(wrapped("y" * 50, 7, 14)) == "y" * 50 and max(map(len, wrapped("y" * 50, 7, 14))) == 14


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="NOT TESTED: pdflatex is not installed")
@pytest.mark.parametrize("options", ["10pt", "twocolumn"])
def test_tables_compile_into_an_article_as_they_are(tables, tmp_path, options):
    """Any text, one and two columns: no error, no line too wide, no float too high, no label twice."""
    body = []
    for name, table in tables.items():
        for form, short in (("", False), ("-short", True)):
            (tmp_path / f"{name}{form}.tex").write_text(to_latex(table, short), encoding="utf-8")
            body.append(rf"Table~\ref{{tab:{name}{form}}}.\input{{{name}{form}}}\clearpage")
    head = rf"\documentclass[{options}]{{article}}\usepackage{{booktabs}}\begin{{document}}"
    document = "\n".join([head, *body, r"\end{document}"]).replace("tab:odd", "tab:odd_-name")
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
    )  # fmt: skip
    log = (tmp_path / "paper.log").read_text(errors="replace")
    assert ran.returncode == 0, re.findall(r"^!.*\n.*\n.*", log, re.MULTILINE)
    assert not re.findall(r"Overfull \\hbox.*|Float too large.*|.*multiply.defined.*|Missing character.*", log)
    used = (tmp_path / "paper.aux").read_text(errors="replace")
    assert set(re.findall(r"Reference `(tab:[^']*)'", log)) == set(re.findall(r"newlabel\{(tab:[^}]*)\}", used))
