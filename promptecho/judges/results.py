"""What the recorded replies to a question come to: its answer, why there is none, or that it is to be asked."""

from __future__ import annotations

from dataclasses import dataclass

from promptecho.config.judge_kinds import judge_kind
from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Question
from promptecho.judges.errors import RefusedError
from promptecho.judges.keys import sampling_temperature, token_limit
from promptecho.judges.prepare import Prepared
from promptecho.judges.record import JournalRow, Record
from promptecho.judges.workers import cut_reason

MOST_EMPTY = 2  # replies without a candidate: the first may be a whim of the endpoint
CUT_SHARE = 0.98  # a reply of an earlier version that took so much of its limit was cut there


@dataclass(frozen=True)
class Failure:
    """Why a question has no answer; `kind` sorts such reasons."""

    kind: str
    text: str


Result = tuple[object, str] | Failure  # (value, text) of the reply that answers, or why none does


class ParsedReplies:
    """Reads each recorded reply once for each question.

    What the record calls ok is not trusted: replies are parsed again, so that a better parser needs no new call.
    """

    def __init__(self, settings: JudgeSection, record: Record):
        self._settings, self._record, self._limit = settings, record, token_limit(settings)
        # By identity, which holds: the record keeps its rows, and `ask_all` its questions.
        self._parsed: dict[tuple[int, int], object | ValueError] = {}

    def of(self, one: Prepared, given_up: str | None = None) -> Result | None:
        """(value, text) of the first reply that the question's `parse` takes, or why there is none; None: ask (again).

        `given_up`: why it was left without an answer.
        """
        reason = ""
        unusable: list[JournalRow] = []
        empty = 0
        cut: JournalRow | None = None
        for row in self._record.replies(one.key):
            if row.status == "refused":
                return Failure("refused", f"refused: {row.reason}")
            value = self._parse(one.question, row)
            if isinstance(value, RefusedError):
                return Failure("refused", f"refused: in words: {value}")
            if not isinstance(value, ValueError):
                return value, row.text
            if _was_cut(row):
                cut = row if row.limit >= self._limit else cut
            elif row.status == "empty":
                empty += 1
            else:
                unusable.append(row)
                reason = " ".join(str(value).split())[:300]
        if cut is not None:
            return Failure("cut", f"cut: {cut_reason(cut.limit, cut.finish, cut.thinking_tokens)}")
        if empty >= MOST_EMPTY:
            return Failure("refused", f"refused: no candidate, {empty} times")
        if len(unusable) >= self._most_replies(one.question):
            times = f"{len(unusable)} replies, the last: " if len(unusable) > 1 else ""
            return Failure("unparsable", f"unparsable: {times}{reason}")
        return Failure(given_up.split(":")[0], given_up) if given_up else None

    def _parse(self, question: Question, row: JournalRow) -> object | ValueError:
        place = (id(question), id(row))
        if place not in self._parsed:
            try:
                self._parsed[place] = question.parse(row.text)
            except ValueError as error:
                self._parsed[place] = error
        return self._parsed[place]

    def _most_replies(self, question: Question) -> int:
        """After how many unusable replies a question has failed: a local model at temperature 0 repeats itself."""
        local = judge_kind(self._settings.kind).in_process and not sampling_temperature(self._settings, question)
        return 1 if local else self._settings.max_attempts


def _was_cut(row: JournalRow) -> bool:
    """Whether a reply ended at its limit of tokens; earlier versions kept no finish reason, but counted tokens."""
    if row.status == "cut" or row.finish:
        return row.status == "cut"
    return bool(row.limit) and not row.estimated and row.output_tokens >= CUT_SHARE * row.limit
