"""What the journals of a judge come to, without reading the answers: for a screen that is looked at while judges are
asked. Journals are those of judges/record.py; here they are neither checked nor locked, and a last line that is being
written is left for the next look. Here and not with the judges, whose package loads all configuration."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# A quote inside of an answer is escaped, so these are fields of the row.
_STATUS = re.compile(rb'"status":"(\w+)"')
_TOKENS = re.compile(rb'"input_tokens":(\d+)(?:,"output_tokens":(\d+))?|"output_tokens":(\d+)')


@dataclass(frozen=True)
class JudgeTotals:
    """Calls ever begun, how many ended in which status (Status in judges/record.py), and the tokens charged to those
    that ended.

    Calls that are on their way, or were cut off, are `begun` less all that ended.
    """

    begun: int
    ended: dict[str, int]
    input_tokens: int
    output_tokens: int


def read_totals(folder: Path) -> JudgeTotals:
    """Of all journals in a judge's folder (results/E/judges/J)."""
    statuses: Counter[str] = Counter()
    sent = received = 0
    for path in sorted(folder.glob("[!.]*.jsonl")):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            status = _STATUS.search(line)
            if status is None:
                continue
            word = status[1].decode()
            statuses[word] += 1
            if word != "begun" and (tokens := _TOKENS.search(line)):
                sent += int(tokens[1] or 0)
                received += int(tokens[2] or tokens[3] or 0)
    begun = statuses.pop("begun", 0)
    return JudgeTotals(begun, dict(statuses), sent, received)
