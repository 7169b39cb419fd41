"""A judge's reply: `<analysis>` with a list of texts and `<score>` with a list of 0 and 1, one for each test point."""

from __future__ import annotations

import ast
import json
import re

from promptecho.benchmarks.replies import declines, spoken
from promptecho.judges.errors import RefusedError

_ANALYSIS, _SCORE = (re.compile(rf"<{tag}>(.*?)</{tag}>", re.DOTALL) for tag in ("analysis", "score"))
_ANY_SCORE = re.compile(r"<score>(.*?)</score>", re.DOTALL | re.IGNORECASE)
_LIST = re.compile(r"\s*(?:```\w*)?\s*\[(?P<inside>[^\[\]]*)\]\s*(?:```)?\s*")
_BINARY = re.compile(r"[\"']?([01])(?:\.0)?[\"']?")


def parse(text: str, points: int) -> list[int]:
    """Read a reply with `parser: official`, as the published code does: both tags, each a list as Python writes it,
    both as long as there are test points; of the scores, what equals 1 is right and everything else wrong.

    What its sum leaves out afterwards (scores that are no list, or that JSON cannot carry over, such as True) is no
    answer either.

    Raises:
        ValueError: any other reply.
    """
    lists = []
    for tag, pattern in (("analysis", _ANALYSIS), ("score", _SCORE)):
        match = pattern.search(text)
        if match is None:
            raise ValueError(f"the reply: no <{tag}>...</{tag}> in it")
        try:
            value = ast.literal_eval(match[1].strip())
            kept = ast.literal_eval(json.dumps(value, ensure_ascii=False))
            length = len(value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise ValueError(f"<{tag}>: no list as Python writes it") from None
        if length != points:
            raise ValueError(f"<{tag}>: {length} entries, {points} test points were asked about")
        lists.append(kept)
    scores = lists[1]
    if not isinstance(scores, list):
        raise ValueError("<score>: no list")
    return [int(score == 1) for score in scores]


def read(text: str, points: int) -> list[int]:
    """Read a reply tolerantly: one list of scores, whatever stands around it and in the analysis.

    Raises:
        RefusedError: there is none, and the reply refuses.
        ValueError: there is none, there are two that differ, or it is not as many 0 and 1 as there are test points.
    """
    said = spoken(text)
    found = {tuple(_scores(match[1], points)) for match in _ANY_SCORE.finditer(said)}
    if not found and declines(said):
        raise RefusedError(" ".join(said.split())[:200])
    if len(found) != 1:
        raise ValueError(f"the reply: {'different' if found else 'no'} <score>...</score> in it, expected one")
    return list(found.pop())


def _scores(text: str, points: int) -> list[int]:
    match = _LIST.fullmatch(text)
    if match is None:
        raise ValueError(f"<score>: {text.strip()[:80]!r} is no list")
    entries = [entry.strip() for entry in match["inside"].split(",")]
    if not all(map(_BINARY.fullmatch, entries)):
        entries = _as_python(match["inside"]) or entries
    scores = [_BINARY.fullmatch(entry) for entry in entries]
    for entry, score in zip(entries, scores, strict=True):
        if score is None:
            raise ValueError(f"<score>: {entry[:40]!r} is neither 0 nor 1")
    if len(scores) != points:
        raise ValueError(f"<score>: {len(scores)} entries, {points} test points were asked about")
    return [int(score[1]) for score in scores if score]


def _as_python(inside: str) -> list[str]:
    """The entries of a list as Python reads it, such as one with a comma after the last; none where it cannot."""
    try:
        return [repr(entry) for entry in ast.literal_eval(f"[{inside}\n]")]
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return []
