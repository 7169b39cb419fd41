"""A figure as one HTML page, for the workflow's report: there a tall picture alone would be cut at its top."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

from promptecho.files import write_text

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
<style>body { margin: 1rem; background: #fff; } img { max-width: 100%; }</style>
</head>
<body>
<img alt="{{ title }}" src="data:image/png;base64,{{ picture }}">
</body>
</html>
"""


def write_page(picture: Path) -> Path:
    """Write NAME.html beside NAME.png, with the picture in it; returns its path.

    Raises:
        DataError: the disk is full or not writable.
    """
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    path = picture.with_suffix(".html")
    data = base64.b64encode(picture.read_bytes()).decode()
    write_text(path, page.render(title=picture.stem, picture=data) + "\n")
    return path
