"""Read YAML, with one line about what is wrong with a file and what to do; lay one mapping over another."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import yaml

from promptecho.errors import ConfigError


class _UniqueKeys(yaml.constructor.SafeConstructor):
    """YAML lets a later key silently replace an earlier one of the same name; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                problem = "a key is a list or a mapping itself; are braces { } written twice?"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *name`: no key, but what keys are taken from
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in seen:
                problem = f"key {key!r} appears twice (line {seen[key]} has it too); remove one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen[key] = line
        return super().construct_mapping(node, deep)


class _UniqueKeyLoader(_UniqueKeys, yaml.SafeLoader):
    """In Python: what is wrong with a file is told in its words."""


class _QuickLoader(_UniqueKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # either of two
    """Of libyaml, where PyYAML was built with it."""


# What PyYAML says, in part, and what that means for who wrote the file.
_MEANINGS = (
    ("'\\t' that cannot start", "a tab is used where YAML allows spaces only; indent with spaces"),
    ("found unexpected end of stream", "a quote that begins here is not closed"),
    ("expected ',' or '}'", "a brace { that is opened here is not closed, or a comma is missing in it"),
    ("expected ',' or ']'", "a bracket [ that is opened here is not closed, or a comma is missing in it"),
    ("mapping values are not allowed", "a second `: ` in one line, or a wrong indentation; put the value in quotes"),
    ("could not find expected ':'", "a key without `: ` after it, or a value that goes on at a wrong indentation"),
    ("expected <block end>", "the indentation differs from the lines before; keys of one section begin in one column"),
    ("cannot start any token", "a value that begins with a special character; put the value in quotes"),
    ("could not determine a constructor for the tag", "a value that begins with `!`; put the value in quotes"),
    ("found undefined alias", "a value that begins with `*`; put the value in quotes"),
    ("but found another document", "`---` begins a second document; keep one in each file"),
    ("expected alphabetic or numeric character", "a value that begins with `*` or `&`; put the value in quotes"),
)


def read_yaml(path: str | Path, *, ours: bool = False) -> dict[str, Any]:
    """Read a YAML mapping.

    Args:
        ours: a program has written it, so that it is read quickly; should that fail, as any other file.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping; one line.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give a file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read ({error.strerror})") from None
    try:
        value = _parsed(_text(data), ours)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line}: is not UTF-8; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_explain(error)}") from None
    if value is None:
        raise ConfigError(f"{path}: is empty, or holds comments only; it must hold keys (config/README.md lists them)")
    if not isinstance(value, dict):
        what = "a list" if isinstance(value, list) else f"the value {str(value)[:40]!r}"
        raise ConfigError(f"{path}: expected a mapping of keys (`key: value`), found {what}")
    return value


def _parsed(text: str, ours: bool) -> Any:
    if ours:
        with contextlib.suppress(yaml.YAMLError):
            return yaml.load(text, Loader=_QuickLoader)
    return yaml.load(text, Loader=_UniqueKeyLoader)


def _text(data: bytes) -> str:
    """Editors on Windows write byte order marks."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def _explain(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1} is {chr(error.character)!r}, which YAML does not allow; remove it"
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    problem = error.problem or ""
    mark = error.problem_mark or error.context_mark
    meaning = next((meaning for part, meaning in _MEANINGS if part in problem), problem)
    opened = "here is not closed" in meaning or "opened here" in meaning
    if opened and error.context_mark is not None:
        mark = error.context_mark
    return (f"line {mark.line + 1}: " if mark else "") + meaning


def deep_merge(base: Any, over: Any) -> Any:
    """`over` on top of `base`: mappings merge key by key, everything else is replaced. Copies, changes nothing."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return copy.deepcopy(over)
    merged = copy.deepcopy(base)
    for key, value in over.items():
        merged[key] = deep_merge(merged[key], value) if key in merged else copy.deepcopy(value)
    return merged
