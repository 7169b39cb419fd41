"""One word for one thing: no two classes of the project have the same name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("promptecho", "plugins/snakemake-executor-plugin-submitit/snakemake_executor_plugin_submitit", "workflow")
ALLOWED: dict[str, str] = {}  # name -> why it has to occur twice


def repeated(files: Iterable[Path]) -> dict[str, list[str]]:
    """Names of classes that occur more than once, also inside of functions, or are the name of a type alias as well,
    and where; `_Name` counts as `Name`."""
    classes, aliases = defaultdict(list), defaultdict(list)
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name.lstrip("_")].append(f"{file}:{node.lineno}")
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                aliases[node.targets[0].id.lstrip("_")].append(f"{file}:{node.lineno}")
    found = {name: places + aliases[name] for name, places in classes.items()}
    return {name: places for name, places in found.items() if len(places) > 1}


def test_no_two_classes_have_the_same_name():
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 300
    named_twice = repeated(files)
    assert {name: places for name, places in named_twice.items() if name not in ALLOWED} == {}
    assert sorted(ALLOWED) == sorted(named_twice), "ALLOWED names classes that occur once"


def test_a_private_or_nested_class_and_an_alias_count_too(tmp_path):
    (tmp_path / "a.py").write_text("class Row: ...\nclass Other: ...\nclass Curve: ...\n")
    (tmp_path / "b.py").write_text("def f():\n    class _Row: ...\nCurve = list[float]\n")
    found = repeated(sorted(tmp_path.iterdir()))
    assert {name: [place.rsplit("/")[-1] for place in places] for name, places in found.items()} == {
        "Row": ["a.py:1", "b.py:2"],
        "Curve": ["a.py:3", "b.py:3"],
    }
