"""Write the audit's page: audit.md, audit.html and audit.json."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptecho.audit.page import TITLE, AuditSection, sections
from promptecho.files import write_json, write_text
from promptecho.html_page import render_page

_SPECIAL = re.compile(r"([\\`*_|<>]|\](?=\())")  # brackets alone make no link
_STYLE = """\
body { max-width: 75rem; }
ul { padding-left: 1.2rem; max-width: 60rem; }
.caption { margin: .25rem 0; }
.caption span { padding: 0 .15rem; border-radius: .2rem; }
"""
_BODY = """\
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
    return render_page(_BODY, _STYLE, title=TITLE, parts=parts)


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"
