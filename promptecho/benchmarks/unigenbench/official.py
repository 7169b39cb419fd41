"""What is made of the fetched files, none of which has a known hash: prompts get their names when counted.

The authors' wording of the question is taken out of their scripts, for `judges.templates`. These are read as text and
never run.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from promptecho.benchmarks.unigenbench.dimensions import DIMENSIONS, FILES, LANGUAGES, PARTS
from promptecho.benchmarks.unigenbench.judge import NAMES
from promptecho.benchmarks.unigenbench.prompts import read_prompts
from promptecho.errors import DataError
from promptecho.files import atomic_path, copy_file, write_json, write_text

COUNTS = "counts.json"
TEMPLATES = "templates"  # below the set's folder: what `judges.templates` names
AGAIN = "delete the file and fetch it again"
# What the scripts fill in -> the placeholder of our templates. The two others are texts of several lines.
_PLACES = {"prompt": "{prompt}", "testpoint": "{checkpoints}"}
_LINES = {"explanation": "{definitions}", "test_explanation": "{descriptions}"}


def make_set(folder: Path) -> None:
    """Make the prompt files of those fetched into data/, counts.json, and the authors' wording in
    `templates/unigenbench/`.

    Raises:
        DataError: a prompt file is not in the format or has another number of prompts, or a script holds no wording.
    """
    counts = {}
    for name, expected in FILES.items():
        fetched = folder / "data" / name
        try:
            prompts = read_prompts(fetched)
        except DataError as error:
            raise DataError(f"{error}; or {AGAIN}") from None
        if len(prompts) != expected:
            raise DataError(f"{fetched}: {len(prompts)} prompts, expected {expected}; {AGAIN}")
        found = Counter(point.subdimension for prompt in prompts for point in prompt.points)
        told = {one: found[one] for one in (*DIMENSIONS, *PARTS) if found[one]}
        counts[name] = {"prompts": len(prompts), "test_points": found.total(), "by_subdimension": told}
    for name in FILES:
        with atomic_path(folder / name) as temporary:
            copy_file(folder / "data" / name, temporary, folder / name)
    write_json(folder / COUNTS, counts)
    for language in LANGUAGES:
        task, definitions = wording_in(folder / f"eval/qwenvl_72b_{language}_eval.py")
        out = folder / TEMPLATES / "unigenbench"
        write_text(out / f"{NAMES[language]}.txt", task)
        write_text(out / f"{NAMES[language]}_definitions.txt", definitions)


def wording_in(script: Path) -> tuple[str, str]:
    """The task and the definitions of sub-dimensions that one of the authors' scripts holds, as our templates have
    them.

    Raises:
        DataError: they are not where they were when this was written.
    """
    lost = DataError(f"{script}: holds no question for the judge that can be read; {AGAIN}")
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError):
        raise lost from None
    first: dict[str, ast.expr] = {}  # name -> the first value that it gets
    more: dict[str, list[str]] = {}  # name -> texts that are added to it, outside of the loop over test points
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            first.setdefault(node.targets[0].id, node.value)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            text = node.value.value if isinstance(node.value, ast.Constant) else None
            more.setdefault(node.target.id, []).extend([text] if isinstance(text, str) else [])
    try:
        known = ast.literal_eval(first["explanation_dict"])
        places = dict(_PLACES)
        for name, placeholder in _LINES.items():
            [closing] = more[name]
            places[name] = f"{ast.literal_eval(first[name])}\n{placeholder}{closing}"
        asked = first["system_prompt"]
        if not isinstance(asked, ast.JoinedStr):
            raise lost
        task = "".join(_piece(part, places) for part in asked.values)
        definitions = "".join(f"{name}: {text}\n" for name, text in known.items())
    except (AttributeError, KeyError, TypeError, ValueError):
        raise lost from None
    return task, definitions


def _piece(part: ast.expr, places: dict[str, str]) -> str:
    """A part of an f-string: its text, or the placeholder for the name that stands there."""
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
        return places[part.value.id]
    return str(ast.literal_eval(part))
