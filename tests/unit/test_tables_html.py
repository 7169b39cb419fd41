"""A table's HTML page: what a parser of HTML reads in it is what the table holds, rounded as everywhere."""

from __future__ import annotations

from html.parser import HTMLParser

from promptecho.tables.html import to_html
from promptecho.tables.table import Cell, Column, Panel, Table


class Page(HTMLParser):
    """Text by tag, in order, and the rows of all tables; unclosed and unknown tags are errors."""

    EMPTY = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self.loaded: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.loaded += [value for key, value in attributes if key in ("src", "href")]
        if tag in self.EMPTY:
            return
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, text):
        if self._open:
            self.texts[self._open[-1]][-1] += text
        if {"td", "th"}.intersection(self._open):
            self.rows[-1][-1] += ("" if "small" not in self._open else " ") + text


HOSTILE = "a_b & <script>alert('x')</script> \"q\" é"


def example() -> Table:
    columns = [
        Column("m", "Model", decimals=None),
        Column("x", "Score", unit="%", interval=True, best=True),
        Column("d", "Δ vs base", signed=True, interval=True),
    ]
    rows = [
        {"m": Cell(text="base"), "x": Cell(41.25, 36.04, 46.96)},
        {"m": Cell(text="run @ 40"), "x": Cell(63.0, 57.91, 67.66), "d": Cell(21.75, 16.0, 27.5, note="p < 0.001")},
    ]
    table = Table("t", "Captions", columns, rows, footnotes=["n: 400 prompts"], warnings=["1 image is missing"])
    table.highlight_best(lambda index, column: True)
    return table


def test_numbers_are_rounded_and_the_best_is_bold():
    page = Page(to_html(example()))
    assert page.rows == [
        ["Model", "Score", "Δ vs base"],
        ["base", "41.2 [36.0, 47.0]", "–"],
        ["run @ 40", "63.0 [57.9, 67.7]", "+21.8 [+16.0, +27.5] p < 0.001"],
    ]
    assert page.texts["strong"] == ["WARNING:", "63.0"] and page.texts["li"] == ["n: 400 prompts"]
    assert page.texts["title"] == page.texts["h1"] == ["Captions"] and page.loaded == []


def test_text_stays_text():
    table = Table(
        "t", HOSTILE, [Column("m", HOSTILE, decimals=None)], [{"m": Cell(text=HOSTILE)}], [HOSTILE], [HOSTILE]
    )
    page = Page(to_html(table))
    assert page.rows == [[HOSTILE], [HOSTILE]] and "script" not in page.texts
    assert page.texts["li"] == page.texts["title"] == page.texts["h1"] == [HOSTILE]


def test_panels_have_headings_and_all_rows():
    table = example()
    table.panels = [Panel("First", ("x",)), Panel("Second", ("d",))]
    page = Page(to_html(table))
    assert page.texts["h2"] == ["First", "Second"]
    assert [row[:1] + row[1:2] for row in page.rows[::3]] == [["Model", "Score"], ["Model", "Δ vs base"]]
    assert len(page.rows) == 6 and all(len(row) == 2 for row in page.rows)
