"""Errors that a user sees as one line; everything else is a bug and shows a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class PromptEchoError(Exception):
    """Base of all errors that are reported as one line.

    The message names the culprit (file, key, prompt id, job) and the fix.
    """

    exit_code = 1


class Interrupted(PromptEchoError):
    """Ctrl-C ended a command that does not go on where it was."""

    exit_code = 130


class ConfigError(PromptEchoError):
    """The configuration is invalid; one line per problem, each with its dotted path."""


class DataError(PromptEchoError):
    """An input or an artifact is missing, damaged or does not fit."""


class ModelError(PromptEchoError):
    """A model folder is missing, incomplete or of an unknown family."""


class OutOfMemoryError(PromptEchoError):
    """Memory ran out; names phase, device, how much was wanted, and the keys that lower it."""


class BenchmarkError(PromptEchoError):
    """The code of a benchmark from outside fails; names the benchmark and what its code was doing."""


class RewardError(PromptEchoError):
    """A reward could not be computed or is not finite; names prompt and image.

    `index` is the image's place in the call, where one image is at fault.
    """

    def __init__(self, message: str, index: int | None = None):
        super().__init__(message)
        self.index = index


class StateError(PromptEchoError):
    """A training state is damaged, foreign or does not fit the run."""


def bug_line(error: BaseException) -> str:
    """The kind of an unexpected error and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}{f': {said[0]}' if said else ''}"


SHOWN = 20  # problems of one kind that an error lists before a count


def counted(count: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`; `many` where an s at the end does not make it."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def listed(problems: Sequence[str], what: str = "problems") -> str:
    """All problems at once: a line each, the first `SHOWN` of them and how many more there are."""
    more = [f"... and {len(problems) - SHOWN} more ({len(problems)} {what} in all)"] if len(problems) > SHOWN else []
    return "\n".join([*problems[:SHOWN], *more])


def unreadable(path: str | Path, error: OSError) -> DataError:
    """A file that exists and cannot be read now, which says nothing about its content."""
    return DataError(f"{path}: cannot read ({error.strerror or error}); see to its permissions, or to the disk")
