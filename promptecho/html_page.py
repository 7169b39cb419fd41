"""A page of HTML that needs nothing else: its head, and how tables look on it. All texts are escaped."""

from __future__ import annotations

_BEGIN = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.2rem; color: #222; background: #fff; }
h1 { font-size: 1.25rem; margin: 0 0 1rem; }
h2 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #444; }
td { border-bottom: 1px solid #ddd; }
.number { text-align: right; }
"""
_MIDDLE = "</style>\n</head>\n<body>\n"
_END = "</body>\n</html>\n"


def render_page(body: str, style: str = "", **values: object) -> str:
    """The whole page.

    Args:
        body: a template of jinja2, as `style` is, whose rules come after those that all pages have.
        values: what both are filled with; `title` among them.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return environment.from_string(f"{_BEGIN}{style}{_MIDDLE}{body}{_END}").render(**values)
