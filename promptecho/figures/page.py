"""A figure as one HTML page, for the workflow's report: there a tall picture alone would be cut at its top."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2

from promptecho.files import write_text

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1rem; color: #222; background: #fff; }
h1 { font-size: 1.25rem; }
img { max-width: 100%; }
ol { max-width: 60rem; font-size: .9rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<img alt="{{ title }}" src="data:image/png;base64,{{ picture }}">
{% if lines %}
<ol>
{% for line in lines %}
<li>{{ line }}</li>
{% endfor %}
</ol>
{% endif %}
</body>
</html>
"""


def write_page(picture: Path, title: str = "", lines: Sequence[str] = ()) -> Path:
    """Write NAME.html beside NAME.png, with the picture in it; returns its path.

    Args:
        picture: the PNG.
        title: what stands above it; default: its name.
        lines: a numbered list below it.

    Raises:
        DataError: the disk is full or not writable.
    """
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    path = picture.with_suffix(".html")
    data = base64.b64encode(picture.read_bytes()).decode()
    write_text(path, page.render(title=title or picture.stem, picture=data, lines=lines) + "\n")
    return path
