"""Write the audit's page: audit.md, audit.html and audit.json."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from promptecho.audit.page import TITLE, AuditSection, sections
from promptecho.files import write_json, write_text

_SPECIAL = re.compile(r"([\\`*_|<>]|\](?=\())")  # brackets alone make no link
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.2rem; color: #222; background: #fff; max-width: 75rem; }
h1 { font-size: 1.25rem; } h2 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #444; } td { border-bottom: 1px solid #ddd; }
ul { padding-left: 1.2rem; max-width: 60rem; }
.caption { margin: .25rem 0; } .caption span { padding: 0 .15rem; border-radius: .2rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for part in parts %}
<h2>{{ part.title }}</h2>
{% for text in part.texts %}
<p>{{ text }}</p>
{% endfor %}
{% if part.rows %}
<div class="scroll">
<table>
<thead><tr>{% for name in part.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if part.points %}
<ul>
{% for point in part.points %}
<li>{{ point }}</li>
{% endfor %}
</ul>
{% endif %}
{% for caption in part.heatmaps %}
<p class="caption">
{% for word, strength, number in caption %}
<span style="background: rgba({{ '40, 130, 60' if strength > 0 else '200, 40, 40' }}, \
{{ '%.2f' | format(strength | abs) }})" title="{{ number }}">{{ word }}</span>
{% endfor %}
</p>
{% endfor %}
{% endfor %}
</body>
</html>
"""


def write_audit(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write the three files atomically; returns their paths."""
    parts = sections(report)
    paths = [folder / f"audit.{suffix}" for suffix in ("json", "md", "html")]
    write_json(paths[0], report)
    write_text(paths[1], to_markdown_page(parts))
    write_text(paths[2], to_html_page(parts))
    return paths


def to_markdown_page(parts: Sequence[AuditSection]) -> str:
    """Headings, texts, tables and points; captions come from outside, so that signs of Markdown are escaped."""
    lines = [f"# {TITLE}", ""]
    for part in parts:
        lines += [f"## {_plain(part.title)}", ""]
        for text in part.texts:
            lines += [_plain(text), ""]
        if part.rows:
            lines += [_row(part.columns), _row(["---"] * len(part.columns)), *map(_row, part.rows), ""]
        if part.points:
            lines += [*(f"- {_plain(point)}" for point in part.points), ""]
        if part.heatmaps:
            lines += ["Captions word by word are on the HTML page.", ""]
    return "\n".join(lines).rstrip() + "\n"


def to_html_page(parts: Sequence[AuditSection]) -> str:
    """The same with coloured captions: green words speak for the better image, red ones against it."""
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    return page.render(title=TITLE, parts=parts).rstrip() + "\n"


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"
