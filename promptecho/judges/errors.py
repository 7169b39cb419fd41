"""What goes wrong with judges. Messages never hold a key."""

from __future__ import annotations

from promptecho.errors import PromptEchoError


class JudgeError(PromptEchoError):
    """The judge does not answer and asking again would not help, or too many questions stayed unanswered."""


class JudgeForbiddenError(JudgeError):
    """The key may not do what was asked of the endpoint."""


class JudgePackageError(JudgeError):
    """The package that asks this kind of judge is not installed."""


class JudgeBudgetError(JudgeError):
    """No further call fits the budget. What was answered is recorded."""


class JudgeBusyError(JudgeError):
    """This call failed and the next may not: 429, 5xx, time-out, connection lost, a body that is no reply.

    `retry_after` is the pause in seconds that the endpoint asks for. `maybe_billed`: the endpoint may have answered
    and charged, only the reply did not arrive. `throttled`: it answers nobody now, which is not this question's fault.
    `unknown_host`: its name has no address; waiting helps only where it had one before. `by_status`: it answered with
    an HTTP status, so that the failure may be this question's own.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, maybe_billed: bool = False, throttled: bool = False,
        unknown_host: bool = False, by_status: bool = False,
    ):  # fmt: skip
        super().__init__(message)
        self.retry_after = retry_after
        self.maybe_billed = maybe_billed
        self.throttled = throttled
        self.unknown_host = unknown_host
        self.by_status = by_status


class JudgeRejectedError(JudgeError):
    """The endpoint refuses this one request (HTTP 400 and similar): the question fails, others may be answered."""


class UnaskableError(PromptEchoError):
    """A question that cannot be sent, for an image of its own; raised where it is made ready. Others can be."""


class RefusedError(ValueError):
    """A reply in which the model declines in words. Raised by a question's `parse`; it is final, as other refusals."""
