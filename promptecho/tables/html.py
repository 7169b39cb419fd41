"""A table as one HTML page that needs nothing else: rounded as in Markdown, intervals below their values."""

from __future__ import annotations

import jinja2

from promptecho.tables.table import Table, heading, parts

# A table that is wider than the page scrolls by itself.
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ table.title }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.2rem; color: #222; background: #fff; }
h1 { font-size: 1.25rem; margin: 0 0 1rem; }
h2 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .55rem; text-align: left; vertical-align: top; white-space: nowrap; }
th { border-bottom: 2px solid #444; }
td { border-bottom: 1px solid #ddd; }
th.number, td.number { text-align: right; }
small { display: block; color: #666; }
.warning { border-left: 4px solid #c00; padding: .4rem .8rem; background: #fff0f0; }
ul { padding-left: 1.2rem; color: #444; max-width: 60rem; font-size: .9rem; }
</style>
</head>
<body>
<h1>{{ table.title }}</h1>
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
</body>
</html>
"""


def to_html(table: Table) -> str:
    """Best values bold, warnings first, a heading above each panel; text is escaped by the template."""
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
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
    return page.render(table=table, grids=grids).rstrip() + "\n"
