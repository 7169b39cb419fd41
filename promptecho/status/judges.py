"""What judges were asked, and what that costs."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from promptecho.config.resolved import resolved_files
from promptecho.errors import PromptEchoError
from promptecho.status.judge_totals import read_totals
from promptecho.status.kinds import JudgeStatus

_REUSED = re.compile(r"^judge (?P<name>.+): \d+ questions, (?P<done>\d+) already done", re.MULTILINE)


def judges_of(results: Path) -> list[JudgeStatus]:
    """All that were ever asked, by their own journals."""
    folders = sorted(path for path in results.glob("judges/*") if path.is_dir())
    if not folders:
        return []
    settings, reused = _judge_settings(results), _reused(results)
    found = []
    for folder in folders:
        totals, about = read_totals(folder), settings.get(folder.name, {})
        answered = totals.ended.get("ok", 0)
        ended = sum(number for status, number in totals.ended.items() if status != "given_up")
        sent, received = (about.get(f"usd_per_million_{kind}_tokens") for kind in ("input", "output"))
        usd = None
        if sent is not None and received is not None:
            usd = (totals.input_tokens * sent + totals.output_tokens * received) / 1e6
        found.append(
            JudgeStatus(
                judge=folder.name,
                calls=totals.begun,
                answered=answered,
                failed=ended - answered,
                reused=reused.get(str(about.get("model")), 0),
                under_way=totals.begun - ended,
                usd=usd,
            )
        )
    return found


def _judge_settings(results: Path) -> dict[str, dict[str, Any]]:
    """By name, as the newest resolved configuration has them; nothing of one that can't be read, of which runs tell."""
    from promptecho.config.yaml_files import read_yaml

    files = resolved_files(results)
    try:
        judges = read_yaml(files[-1]).get("judges") if files else None
    except PromptEchoError:
        return {}
    models = judges.get("models") if isinstance(judges, dict) else None
    return {name: about for name, about in (models or {}).items() if isinstance(about, dict)}


def _reused(results: Path) -> dict[str, int]:
    """Answers that the last start of each job has found in the record, by the judge's model."""
    found: dict[str, int] = defaultdict(int)
    for path in (results / "logs" / "judge").rglob("*.log"):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        for told in _REUSED.finditer(text):
            found[told["name"]] += int(told["done"])
    return found
