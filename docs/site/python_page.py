"""Modules as pages: what is public in them, from their text alone, so that nothing heavy is imported.

A docstring is Markdown here, as in the code. A file outside of the packages, such as an example, is shown as it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from myst_parser.parsers.sphinx_ import MystParser

PACKAGES = ("promptecho/", "plugins/")
SECTIONS = ("Args", "Raises", "Returns", "Yields")
Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def module_name(docname: str) -> str:
    """`promptecho/vlm/__init__` is promptecho.vlm; a package of plugins/ begins below its own folder."""
    parts = docname.split("/")
    return ".".join(parts[2:] if parts[0] == "plugins" else parts).removesuffix(".__init__")


def page(source: str, docname: str) -> str:
    """The Markdown page of a file."""
    if not docname.startswith(PACKAGES):
        return f"---\norphan: true\n---\n\n# `{docname}.py`\n\n```python\n{source}```\n"
    tree = ast.parse(source)
    parts = [f"# `{module_name(docname)}`", docstring(tree)]
    for node in _public(tree):
        parts += [f"## `{node.name}`", _code(_head(node, source)), docstring(node)]
        if isinstance(node, ast.ClassDef):
            for method in _public(node):
                parts += [f"### `{node.name}.{method.name}`", _code(_head(method, source)), docstring(method)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _public(node: ast.Module | ast.ClassDef) -> Iterator[Named]:
    """Classes and functions with a docstring whose names begin with no underscore; a class's call, too."""
    for one in node.body:
        documented = isinstance(one, Named) and ast.get_docstring(one)
        if documented and (not one.name.startswith("_") or one.name == "__call__"):
            yield one


def _head(node: Named, source: str) -> str:
    """A signature as it is written, and a class's annotated fields with their comments."""
    lines = source.splitlines()
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)]) - 1
    head = lines[first : node.body[0].lineno - 1]
    if isinstance(node, ast.ClassDef):
        for one in node.body:
            if isinstance(one, ast.AnnAssign) and not ast.unparse(one.target).startswith("_"):
                head += lines[one.lineno - 1 : one.end_lineno]
    indent = len(head[0]) - len(head[0].lstrip())
    return "\n".join(line[indent:].removesuffix("  # fmt: skip") for line in head if line.strip())


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def docstring(node: Named | ast.Module) -> str:
    """A docstring with its sections as lists."""
    lines, out, section = (ast.get_docstring(node) or "").splitlines(), [], False
    for line in lines:
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section = True
            out += [f"**{line}**", ""]
        elif section and (item := re.fullmatch(r"    (\S[^:]*): (.+)", line)):
            out.append(f"- `{item[1]}`: {_plain(item[2])}")
        else:
            section = section and (not line or line.startswith("    "))
            out.append(_plain(line.removeprefix("    ") if section and not line.startswith(" " * 5) else line))
    return "\n".join(out)


def _plain(line: str) -> str:
    """Outside of code, `<`, `$` and `*` are what they are."""
    if line.startswith("    "):
        return line
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if index % 2 else re.sub(r"[<$*]", r"\\\g<0>", part) for index, part in enumerate(parts))


class PythonParser(MystParser):
    supported = ("python-page",)

    def parse(self, inputstring: str, document) -> None:
        super().parse(page(inputstring, document.settings.env.docname), document)


def setup(app) -> dict[str, bool]:
    app.add_source_suffix(".py", "python-page")
    app.add_source_parser(PythonParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
