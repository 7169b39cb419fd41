"""The status on a terminal, and as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from promptecho.html_page import render_page
from promptecho.screen import screen, show_live
from promptecho.status.blocks import STYLES, Block, blocks, title_of
from promptecho.status.kinds import ExperimentStatus

REFRESH_S = 10.0

_STYLE = """\
section { margin: 1.3rem 0; }
h1, h2 { margin: 0 0 .4rem; }
.scroll { margin: .4rem 0; }
.number { white-space: nowrap; }
p { margin: .15rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.running { color: #17702c; }
.done, .finished { color: #0b6a7d; }
.waiting, .interrupted { color: #8a5a00; }
.failed, .stalled { color: #b00020; font-weight: bold; }
"""
_BODY = """\
{% for block in blocks %}
<section>
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
</section>
{% endfor %}
"""


def picture(found: Sequence[Block], *, whole_lines: bool = False) -> RenderableType:
    """Blocks one below the other.

    Args:
        whole_lines: leave it to the terminal to fold lines that somebody may copy; print with `crop=False`.
    """
    parts: list[RenderableType] = []
    for number, block in enumerate(found):
        if number:
            parts.append(Text())
        if block.title:
            parts.append(Text(block.title, style="bold"))
        if block.rows:
            parts.append(_table(block))
        for kind, line in block.lines:
            text = Text(line, style=STYLES.get(kind, "" if kind == "copy" or not number else "dim"))
            if kind in ("copy", "log") and whole_lines:
                text.no_wrap, text.overflow = True, "ignore"
            parts.append(text)
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
    return render_page(_BODY, _STYLE, title=title_of(status), blocks=blocks(status, whole=True))


def show(look: Callable[[], list[ExperimentStatus]], *, watch: bool) -> None:
    """Print the status once; with `watch` again and again until all is done, or Ctrl-C."""

    def picture_of_now() -> tuple[RenderableType, bool]:
        found = look()
        return _together(found), all(one.ended for one in found)

    if watch:
        show_live(picture_of_now, refresh_s=REFRESH_S, whole_screen=True)
    else:
        screen().print(_together(look(), whole_lines=True), crop=False)


def _together(found: Sequence[ExperimentStatus], *, whole_lines: bool = False) -> RenderableType:
    parts: list[RenderableType] = []
    for status in found:
        parts += [*([Text("\n")] if parts else []), picture(blocks(status), whole_lines=whole_lines)]
    return Group(*parts)
