"""Golden cases: inputs with the answers of the official evaluators; run them against this package.

A golden folder, or a tar archive of one, holds one folder per benchmark with JSON Lines files, a case a line. What a
file holds is told by its folder and name (`NAME/cases.jsonl`, `NAME/cases_more.jsonl`), or else by the keys of
its first case. Files without a check here are listed by name, never passed over in silence.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptecho.benchmarks.golden_case import Check
from promptecho.config.benchmarks import available_benchmarks, load_part
from promptecho.errors import DataError, PromptEchoError


def checks() -> dict[str, Check]:
    """The checks of all benchmarks, by the name of their file."""
    named = (found.thing for found in available_benchmarks() if found.thing.golden)
    return {name: check for one in named for name, check in load_part(one.name, "golden").items()}


@dataclass
class FileReport:
    """Result of one golden file; `kind` is a key of `checks()`."""

    file: str
    kind: str
    total: int = 0
    passed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: str, problems: list[str]) -> None:
        """Count a case; one with problems has failed."""
        self.total += 1
        self.passed += not problems
        if problems:
            self.failures.append({"id": case, "problems": problems})


def verify(golden: Path, prompts: Path | None = None) -> tuple[list[FileReport], list[str]]:
    """Run every golden case of a folder, or of a tar archive of one.

    A case that is malformed, or that makes its check fail otherwise, is a failed case.

    Args:
        golden: the folder, or the archive.
        prompts: the official prompts, for benchmarks whose checks need them; by default those in `../mirror/` seen
            from a folder, and without them what the check knows of the official set.

    Returns:
        A report per checked file, and the names of the files without a check.

    Raises:
        DataError: the folder holds no golden file, the archive can't be read, or the given prompt file is missing.
    """
    if golden.is_file():
        with tempfile.TemporaryDirectory(prefix="golden-") as folder:
            return _verify_folder(_unpack(golden, Path(folder)), prompts, golden)
    return _verify_folder(golden, prompts, golden)


def _unpack(archive: Path, folder: Path) -> Path:
    """Where the archive's cases are: in the folder, or in the only folder inside."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")  # nothing outside of the folder, no devices
    except (tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise DataError(f"{archive}: not a readable tar archive of golden cases ({reason}); fetch it anew") from None
    below = list(folder.iterdir())
    return below[0] if len(below) == 1 and below[0].is_dir() and not list(below[0].glob("*.jsonl")) else folder


def _verify_folder(golden: Path, prompts: Path | None, given: Path) -> tuple[list[FileReport], list[str]]:
    """`given`: what the user named, for errors."""
    golden = Path(os.path.abspath(golden))  # names as they are given, not what links stand for
    paths = _find(golden)
    if not paths:
        raise DataError(f"{given}: no golden files (*/*.jsonl) in it; give the folder that holds those of benchmarks")
    reports, skipped, known = [], [], checks()
    for path in paths:
        name, cases = path.relative_to(golden).as_posix(), _read_cases(path)
        kind = find_kind(path, [case for _, case in cases])
        if kind is None:
            skipped.append(name)
            continue
        report = FileReport(name, kind)
        check, extra = known[kind].function, _extra(known[kind], golden, path, prompts)
        for label, case in cases:
            report.add(label, _check(check, case, extra))
        if not cases:
            report.add(name, ["the file holds no case"])
        reports.append(report)
    return reports, skipped


def _find(golden: Path) -> list[Path]:
    """Every *.jsonl below the folder, through links to folders too; a folder that is reached twice counts once."""
    seen, paths = set(), []
    for folder, below, names in os.walk(golden, followlinks=True):
        seen.add(os.path.realpath(folder))
        below[:] = [name for name in sorted(below) if os.path.realpath(os.path.join(folder, name)) not in seen]
        paths += [Path(folder, name) for name in names if name.endswith(".jsonl")]
    return sorted(paths)


def find_kind(path: Path, cases: list[dict | str]) -> str | None:
    """Which of `checks()` a file is: by folder and name, which may go on (`cases_more`), or by its first object."""
    known = checks()
    for kind in known:
        folder, stem = kind.removesuffix(".jsonl").split("/")
        if path.parent.name == folder and re.fullmatch(rf"{stem}(?![a-z]).*", path.stem):
            return kind
    first = next((case for case in cases if isinstance(case, dict)), {})
    fitting = [kind for kind, facts in known.items() if facts.keys <= first.keys()]
    return fitting[0] if len(fitting) == 1 else None


def _extra(kind: Check, golden: Path, path: Path, prompts: Path | None) -> tuple[Any, ...]:
    """What the kind's function takes besides the case."""
    return () if kind.also is None else (kind.also(golden, path, prompts),)


def _read_cases(path: Path) -> list[tuple[str, dict | str]]:
    """Every case with its name: its `id`, or its line. In place of a line that is no JSON object, what is wrong."""
    cases: list[tuple[str, dict | str]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        label = f"line {number}"
        try:
            case = json.loads(line)
        except (ValueError, RecursionError) as error:
            cases.append((label, f"not valid JSON ({error})"))
            continue
        if not isinstance(case, dict):
            cases.append((label, f"expected a JSON object, found {type(case).__name__}"))
            continue
        cases.append((str(case["id"]) if isinstance(case.get("id"), str | int) else label, case))
    return cases


def _check(check: Callable[..., list[str]], case: dict | str, extra: tuple[Any, ...]) -> list[str]:
    if isinstance(case, str):
        return [case]
    try:
        return check(case, *extra)
    except PromptEchoError as error:
        return [str(error)]
    except Exception as error:  # whatever a wrong case makes of the rules; the other cases still count
        return [f"malformed, or the check is at fault: {type(error).__name__}: {error}"]
