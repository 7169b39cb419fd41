"""A table as one HTML page that needs nothing else: rounded as in Markdown, intervals below their values."""

from __future__ import annotations

import jinja2

from promptecho.html_page import render_page
from promptecho.tables.table import Table, heading, parts

_STYLE = """\
th, td { white-space: nowrap; }
small { display: block; color: #666; }
.warning { border-left: 4px solid #c00; padding: .4rem .8rem; background: #fff0f0; }
ul { padding-left: 1.2rem; color: #444; max-width: 60rem; font-size: .9rem; }
"""
_BODY = """\
<h1>{{ title }}</h1>
{% for warning in table.warnings %}
<p class="warning"><strong>WARNING:</strong> {{ warning }}</p>
{% endfor %}
{% for title, columns, rows in grids %}
{% if title %}
<h2>{{ title }}</h2>
{% endif %}
<div class="scroll">
<table>
<thead>
<tr>{% for label, kind in columns %}<th{{ kind }}>{{ label }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for row in rows %}
<tr>{% for main, rest, best, kind in row -%}
<td{{ kind }}>{% if best %}<strong>{{ main }}</strong>{% else %}{{ main }}{% endif -%}
{% for part in rest %}<small>{{ part }}</small>{% endfor %}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
{% if table.footnotes %}
<ul>
{% for note in table.footnotes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% endif %}
"""


def to_html(table: Table) -> str:
    """Best values bold, warnings first, a heading above each panel; text is escaped by the template."""
    grids = []
    for title, columns in table.grids():
        kinds = [jinja2.filters.Markup("" if c.decimals is None else ' class="number"') for c in columns]
        rows = []
        for row in table.rows:
            cells = [table.cell(row, column) for column in columns]
            rows.append(
                [
                    (*parts(cell, column), cell.highlight, kind)
                    for cell, column, kind in zip(cells, columns, kinds, strict=True)
                ]
            )
        grids.append((title, [(heading(c), kind) for c, kind in zip(columns, kinds, strict=True)], rows))
    return render_page(_BODY, _STYLE, title=table.title, table=table, grids=grids)
