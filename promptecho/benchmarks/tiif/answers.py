"""A judge's reply to a list of yes/no questions, read as the official evaluator reads it."""

from __future__ import annotations

import re

_ANSWER = re.compile(r"(yes|no)\b", re.IGNORECASE)


class AnswerCountError(ValueError):
    """A reply with more or fewer answers than questions: it is not known which answer belongs to which question."""

    def __init__(self, found: int, questions: int):
        super().__init__(f"{found} lines begin with yes or no, {questions} questions were asked")
        self.found, self.questions = found, questions


def extract_yes_no(reply: str, questions: int) -> list[str]:
    """The answers, `yes` or `no`, of the lines that begin with one of these words; other lines don't count.

    "No one is there" is an answer and "1. yes" is none: both official.

    Raises:
        AnswerCountError: not as many answers as questions.
    """
    lines = (line.strip() for line in reply.split("\n"))  # not splitlines: "\r" alone ends no line officially
    answers = [match[1].lower() for line in lines if (match := _ANSWER.match(line))]
    if len(answers) != questions:
        raise AnswerCountError(len(answers), questions)
    return answers
