"""`snakemake --report`: tables and figures under their experiment with labels and captions, also in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.parse
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from workflow_copy import Workflow, copy_checkout

from promptecho.figures.page import write_page
from promptecho.tables.table import Cell, Column, Table
from promptecho.tables.write import write

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
SHOWN = {
    "results/tiny/tables/geneval.html": {"content": "result table", "of": "geneval"},
    "results/tiny/figures/curves_geneval.html": {"content": "scores by iteration", "of": "geneval"},
    "results/tiny/figures/training.html": {"content": "training curves", "of": "all runs"},
    "results/tiny/figures/samples_echo-s1.html": {"content": "samples of images", "of": "echo-s1"},
    "results/paper/tables/table1.html": {"content": "result table", "of": "table1"},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workflow:
    """A checkout with those results that a report shows; it needs no others."""
    one = copy_checkout(tmp_path_factory.mktemp("report"))
    rows = [{"m": Cell(text="echo-s1 @ 4"), "x": Cell(63.04, 57.9, 67.7)}]
    columns = [Column("m", "Model", decimals=None), Column("x", "Overall", interval=True)]
    write(Table("geneval", "GenEval, tiny (%)", columns, rows), one.root / "results/tiny/tables")
    write(Table("table1", "Table 1", columns, rows), one.root / "results/paper/tables")
    (one.root / "results/tiny/figures").mkdir()
    for path in list(SHOWN)[1:4]:
        picture = (one.root / path).with_suffix(".png")
        Image.new("RGB", (32, 16), "red").save(picture)
        write_page(picture)
    return one


@pytest.fixture(scope="module")
def report(finished) -> str:
    done = finished.snakemake("--report", "report.html", "--", "all", "paper")
    assert done.returncode == 0, done.stdout
    return (finished.root / "report.html").read_text()


def test_the_report_holds_tables_and_figures_with_labels_and_captions(finished, report):
    (found,) = re.findall(r"var results = (\{.*?\});?$", report, re.MULTILINE)
    results = json.loads(found)
    assert {path: result["labels"] for path, result in results.items()} == SHOWN
    table = results["results/tiny/tables/geneval.html"]
    assert data_of(table["data_uri"]) == (finished.root / "results/tiny/tables/geneval.html").read_bytes()
    captions = [re.sub(r"\s+", " ", results[path]["caption"]) for path in SHOWN]
    told = ("paired difference", "nothing was measured between", "is being exploited", "not chosen", "published")
    for caption, says in zip(captions, told, strict=True):
        assert says in caption and "{" not in caption
    assert all("tiny" in caption for caption in captions[:4])
    assert re.search(r"the <em>i</em>\s+beside it", report)


def data_of(uri: str) -> bytes:
    kind, _, data = uri.partition(",")
    return base64.b64decode(data) if kind.endswith(";base64") else urllib.parse.unquote_to_bytes(data)


def test_an_archive_holds_the_same(finished):
    done = finished.snakemake("--report", "report.zip", "--", "all", "paper")
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(finished.root / "report.zip") as archive:
        names = archive.namelist()
    assert {Path(name).name for name in SHOWN} <= {Path(name).name for name in names}
    assert any(name.endswith("report.html") for name in names)


# Clicks what has each text, or, for a list, the link of that number in the row that holds its texts.
CLICKS = """<script>
const steps = %s;
function links(texts, number) {
  const rows = [...document.querySelectorAll("tr")].filter(row => texts.every(text => row.textContent.includes(text)));
  return rows.length ? rows[0].querySelectorAll("a, button")[number] : undefined;
}
function named(text) {
  const found = [...document.querySelectorAll("a, button")].filter(one => one.textContent.trim() === text);
  return found[0];
}
function step(n) {
  if (n == steps.length) { document.title = "all clicked"; return; }
  const target = typeof steps[n] === "string" ? named(steps[n]) : links(steps[n].slice(1), steps[n][0]);
  if (target) target.click();
  setTimeout(step, 200, target ? n + 1 : n);
}
setTimeout(step, 200, 0);
</script></body>"""


def seen_after(report: str, folder: Path, steps: list) -> str:
    """The page's elements as the browser has them after these clicks."""
    page = folder / "clicked.html"
    page.write_text((CLICKS % json.dumps(steps)).join(report.rsplit("</body>", 1)))
    # A browser that runs as root refuses its sandbox; the page is our own.
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    options += [f"--user-data-dir={folder / 'browser'}"]
    done = subprocess.run([BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    assert "<title>all clicked</title>" in done.stdout
    return done.stdout[done.stdout.index('id="app"') :]


@pytest.mark.skipif(BROWSER is None, reason="NO BROWSER: `make test-browser` installs Chromium where it can")
def test_a_browser_shows_them(finished, report, tmp_path):
    seen = seen_after(report, tmp_path, ["tiny", [0, "result table", "geneval"]])
    (frame,) = re.findall(r'<iframe[^>]* src="([^"]*)"', seen)
    assert data_of(frame.replace("&amp;", "&")) == (finished.root / "results/tiny/tables/geneval.html").read_bytes()
    assert all(label in seen for labels in list(SHOWN.values())[:4] for label in labels.values())
    seen = seen_after(report, tmp_path, ["tiny", [1, "training curves", "all runs"]])
    assert "is being exploited" in seen
