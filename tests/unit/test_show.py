"""`promptecho show`: finished tables in the terminal, as wide as it is, and the sentences that say what was gained."""

from __future__ import annotations

import io
import json

import pytest
import tables_world
from rich.console import Console
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.tables.collect import read_score_files
from promptecho.tables.kinds import make_table
from promptecho.tables.show import find_tables, gains, look_next, print_results, read_table
from promptecho.tables.table import Cell, Column, Table
from promptecho.tables.write import write


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """results/E with tables of three benchmarks: two checkpoints of a run that gains, and one that is like the base."""
    root = tmp_path_factory.mktemp("results")
    for scorer in ("geneval", "tiif", "densealign"):
        score = getattr(tables_world, scorer)
        files = [] if scorer == "densealign" else [score(root, "base", 0, 0.4)]
        for run, step, chance in (("echo", 2, 0.5), ("echo", 4, 0.7), ("same", 4, 0.4)):
            files.append(score(root, run, step, *((chance, 0.2) if scorer == "densealign" else (chance,))))
        write(make_table(scorer, read_score_files(files, scorer), name=scorer), root / "zimage/tables")
    return root / "zimage"


def shown(*words, width=80):
    result = CliRunner(env={"COLUMNS": str(width)}).invoke(app, ["show", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.mark.parametrize("name", ["geneval", "tiif", "densealign"])
def test_a_table_is_read_as_it_was_written(results, tmp_path, name):
    table = read_table(results / f"tables/{name}.json")
    for path in write(table, tmp_path):
        assert path.read_bytes() == (results / "tables" / path.relative_to(tmp_path)).read_bytes()


def test_tables_of_before_schema_versions_are_read_and_newer_ones_refused_in_one_line(results, tmp_path):
    path, copy = results / "tables/geneval.json", tmp_path / "geneval.json"
    content = json.loads(path.read_text())
    assert list(content)[0] == "schema_version" and content["schema_version"] == 1
    without = {key: value for key, value in content.items() if key not in ("schema_version", "panels", "short_notes")}
    copy.write_text(json.dumps(without))
    assert read_table(copy).rows == read_table(path).rows
    copy.write_text(json.dumps(content | {"schema_version": 2, "colours": []}))
    with pytest.raises(DataError) as error:
        read_table(copy)
    assert f"{copy}: schema_version is 2, this version reads up to 1: a newer version" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("width", [80, 200])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_escaped(results, width):
    text = shown(results, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "p < 0.001" in text and "&lt;" not in text
    assert all(title in text for title in ("GenEval, zimage (%)", "DenseAlignBench, zimage (%)", "Short prompts"))
    assert "Failed images are left out" in " ".join(text.split())
    assert "Failed images are left out" not in " ".join(shown(results, "--no-notes", width=width).split())


def test_gains_are_the_tables_own_of_the_last_checkpoint(results):
    table = read_table(results / "tables/geneval.json")
    (echo,) = [row for row in table.rows if row["model"].text == "echo @ 4"]
    found = {gain.model: gain for gain in gains(table)}
    assert set(found) == {"echo @ 4", "same @ 4"}  # neither the base nor checkpoint 2
    gain, cell = found["echo @ 4"], echo["delta"]
    assert (gain.value, gain.low, gain.high, gain.note) == (cell.value, cell.low, cell.high, cell.note)
    assert gain.sentence == (
        f"geneval: echo @ 4 gains +{cell.value:.1f} points [+{cell.low:.1f}, +{cell.high:.1f}] over base, p < 0.001"
    )
    assert json.loads(shown(results, "--table", "geneval", "--json"))[0]["sentence"] in (
        one.sentence for one in found.values()
    )


def test_both_lengths_of_tiif_and_the_net_of_pairs_are_gains(results):
    tables = [read_table(results / f"tables/{name}.json") for name in ("tiif", "densealign")]
    told = [gain.sentence for table in tables for gain in gains(table)]
    assert sum("tiif (short prompts): echo @ 4" in one for one in told) == 1
    assert sum("tiif (long prompts): echo @ 4" in one for one in told) == 1
    assert any(one.startswith("densealign: echo @ 4 gains") and "over the baseline" in one for one in told)


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (1.0, 9.0, "gains +5.0 points [+1.0, +9.0] over base"),
        (-9.0, -1.0, "loses -5.0 points [-9.0, -1.0] against base"),
        (-1.0, 11.0, "has +5.0 points [-1.0, +11.0] against base: no difference that 40 prompts could show"),
        (0.0, 10.0, "no difference that 40 prompts could show"),
    ],
)
def test_an_interval_that_holds_zero_is_no_gain(low, high, says):
    columns = [Column("model", "Model", decimals=None), Column("delta", "Δ vs base", signed=True, interval=True),
               Column("prompts", "Prompts", decimals=0)]  # fmt: skip
    row = {"model": Cell(text="run @ 4"), "delta": Cell((low + high) / 2, low, high), "prompts": Cell(40)}
    (gain,) = gains(Table("t", "T", columns, [row]))
    assert says in gain.sentence


def test_only_what_is_there_is_named_as_next(results):
    (results / "figures").mkdir(exist_ok=True)
    (results / "figures/training.png").write_bytes(b"")
    console = Console(width=300, highlight=False, file=io.StringIO())
    print_results([], [results], notes=True, console=console)
    text = console.file.getvalue()
    assert f"{results}/figures/training.png" in text and f"{results}/tables/*.md" in text
    assert "samples_" not in text and "adapter" not in text
    assert f"promptecho browse {results}" in text  # it has scores
    assert not any("browse" in where for _, where in look_next(results / "tables"))


def test_what_is_no_table_is_named(results, tmp_path):
    with pytest.raises(DataError, match="no table 'genevall'; there are: densealign, geneval, tiif; did you"):
        find_tables([results], ["genevall"])
    with pytest.raises(DataError, match=r"no tables/\*\.json in it"):
        find_tables([tmp_path], [])
    for text in ("{}", "[1]", '{"columns": [], "rows": [], "panels": [], "name": "x", "title": "y", "more": 1}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x\.json: not a table that this version"):
            read_table(tmp_path / "x.json")
