"""The status on a terminal, and as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jinja2
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from promptecho.screen import screen, show_live
from promptecho.status.blocks import STYLES, Block, blocks, title_of
from promptecho.status.kinds import ExperimentStatus

REFRESH_S = 10.0

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.2rem; color: #222; background: #fff; }
h1 { font-size: 1.25rem; margin: 0 0 .5rem; }
h2 { font-size: 1.05rem; margin: 1.3rem 0 .4rem; }
.scroll { overflow-x: auto; margin: 1rem 0 .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #444; }
td { border-bottom: 1px solid #ddd; }
.number { text-align: right; white-space: nowrap; }
p { margin: .15rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.running { color: #17702c; } .done, .finished { color: #0b6a7d; } .waiting, .interrupted { color: #8a5a00; }
.failed, .stalled { color: #b00020; font-weight: bold; }
</style>
</head>
<body>
{% for block in blocks %}
{% if block.title %}
<h{{ 1 if loop.first else 2 }}>{{ block.title }}</h{{ 1 if loop.first else 2 }}>
{% endif %}
{% if block.rows %}
<div class="scroll">
<table>
<thead>
<tr>{% for column in block.columns %}
<th class="{{ 'number' if column.number }}">{{ column.label }}</th>
{% endfor %}</tr>
</thead>
<tbody>
{% for row in block.rows %}
<tr>{% for column in block.columns %}
{% set value = row[loop.index0] %}
<td class="{{ 'number' if column.number else value if column.word }}">{{ value }}</td>
{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% for kind, line in block.lines %}
<p class="{{ kind }}">{{ line }}</p>
{% endfor %}
{% endfor %}
</body>
</html>
"""


def frame(status: ExperimentStatus) -> RenderableType:
    """One picture of an experiment."""
    return picture(blocks(status))


def picture(found: Sequence[Block]) -> RenderableType:
    """Blocks one below the other."""
    parts: list[RenderableType] = []
    for number, block in enumerate(found):
        if number:
            parts.append(Text())
        if block.title:
            parts.append(Text(block.title, style="bold"))
        if block.rows:
            parts.append(_table(block))
        parts += [
            Text(line, style=STYLES.get(kind, "dim" if not kind and number else "")) for kind, line in block.lines
        ]
    return Group(*parts)


def _table(block: Block) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column in block.columns:
        table.add_column(column.label, justify="right" if column.number else "left", overflow="fold")
    for row in block.rows:
        cells = [
            Text(value, style=STYLES.get(value, "") if column.word else "")
            for column, value in zip(block.columns, row, strict=True)
        ]
        table.add_row(*cells)
    return table


def page(status: ExperimentStatus) -> str:
    """The same as HTML, with every job; all texts are escaped."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(title=title_of(status), blocks=blocks(status, whole=True))


def show(look: Callable[[], list[ExperimentStatus]], *, watch: bool) -> None:
    """Print the status once; with `watch` again and again until all is done, or Ctrl-C."""

    def picture_of_now() -> tuple[RenderableType, bool]:
        found = look()
        return Group(*(frame(status) for status in found)), all(one.ended for one in found)

    if watch:
        show_live(picture_of_now, refresh_s=REFRESH_S, whole_screen=True)
    else:
        screen().print(picture_of_now()[0])
