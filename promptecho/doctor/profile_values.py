"""Resources and threads in a profile: what Snakemake's own parser makes of them, and what it can't read."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from promptecho.errors import bug_line

Mistake = tuple[str, str]  # what can't be read, the fix
OF_A_JOB = {"input", "wildcards", "threads"}  # names that only a job gives a meaning
SIZES = {"mem_mb": "mem", "mem_mib": "mem", "disk_mb": "disk", "disk_mib": "disk"}
SHAPES = {
    "default-resources": "a line of RESOURCE: VALUE for each, such as runtime: 60",
    "set-resources": "the rule, and below it a line of RESOURCE: VALUE for each, such as train: {runtime: 60}",
    "set-threads": "a line of RULE: THREADS for each, such as train: 4",
}


class ProfileValues:
    """Reads values of the profile in `file`; what can't be read goes to `mistakes`, what depends on a job to
    `computed`. An expression may use `attempt`; it is taken for the first one."""

    def __init__(self, file: Path, mistakes: list[Mistake]):
        self.file, self.mistakes = file, mistakes
        self.computed: list[str] = []

    def resources(self, key: str, value: Any) -> dict[str, dict[str, Any]]:
        """Resources by rule; those of `default-resources` are under "". Sizes become MB (`mem_mb`), times minutes."""
        found: dict[str, dict[str, Any]] = {}
        for line in self._lines(key, value):
            rule, rest = "", line
            if key == "set-resources":
                rule, _, rest = line.partition(":")
            name, equals, text = rest.partition("=")
            if not equals or not name or (key == "set-resources" and not rule):
                self._misshapen(key, line)
                continue
            dotted = ".".join(part for part in (key, rule, name) if part)
            try:
                if _of_a_job(text):
                    self.computed.append(f"{dotted}: {text}")
                    continue
                read = _resource(rest, rule)
            except Exception as error:  # whatever evaluating the expression raises
                self.mistakes.append((f"{self.file}: {dotted}: {text}: {bug_line(error)}", _fix(name, text)))
                continue
            of_rule = found.setdefault(rule, {})
            for name, one in read.items():
                if name in of_rule:
                    told = f"{self.file}: {dotted}: {text}: is said in another unit, too"
                    self.mistakes.append((told, "remove one of the two lines"))
                if one is not None:
                    of_rule[name] = one
        return found

    def threads(self, value: Any) -> dict[str, int]:
        """Threads by rule."""
        from snakemake.cli import parse_set_threads

        found = {}
        for line in self._lines("set-threads", value):
            rule, _, text = line.partition("=")
            try:
                if _of_a_job(text):
                    self.computed.append(f"set-threads.{rule}: {text}")
                    continue
                one = _evaluated(parse_set_threads([line])[rule], rule).value
                if not isinstance(one, int):
                    raise ValueError(f"{one!r} is no number")
                found[rule] = one
            except Exception as error:
                told = f"{self.file}: set-threads.{rule}: {text or line}: {bug_line(error)}"
                self.mistakes.append((told, f"write {SHAPES['set-threads']}"))
        return found

    def _lines(self, key: str, value: Any) -> Iterator[str]:
        """NAME=VALUE or RULE:NAME=VALUE, as Snakemake turns them into arguments of a command line."""
        from snakemake.profiles import ProfileConfigFileParser

        if value is None:
            return
        stream = io.StringIO(yaml.safe_dump({key: value}))
        stream.name = str(self.file)
        try:
            lines = ProfileConfigFileParser().parse(stream)[key]
        except Exception:  # it tells no more than that the shape is wrong
            self._misshapen(key, value)
            return
        for line in [lines] if isinstance(lines, str) else lines:
            if isinstance(line, str) and "=" in line:
                yield line
            else:
                self._misshapen(key, line)

    def _misshapen(self, key: str, value: Any) -> None:
        self.mistakes.append((f"{self.file}: {key}: {value!r} says nothing of a resource", f"write {SHAPES[key]}"))


def _of_a_job(text: str) -> bool:
    """Whether an expression uses what only a job has."""
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError):
        return False
    return bool(OF_A_JOB & {node.id for node in nodes if isinstance(node, ast.Name)})


def _resource(line: str, rule: str) -> dict[str, Any]:
    """What Snakemake makes of NAME=VALUE: the value under its standard name."""
    from snakemake.resources import Resources

    parsed = Resources.parse([line], allow_expressions=True)
    return {name: _evaluated(one, rule).value for name, one in parsed.items()}


def _evaluated(one: Any, rule: str) -> Any:
    return one.evaluate(None, input=[], attempt=1, rulename=rule, async_run=None, threads=1)


def _fix(name: str, text: str) -> str:
    if name in SIZES:
        return f"write a number ({name}: 4000), or a size with its unit as {SIZES[name]}: 4GB"
    if name == "runtime":
        return "write minutes (runtime: 90), or a time with its unit (runtime: 12h)"
    return f"write a number, or a text in two pairs of quotation marks: {name}: \"'{text}'\""
