"""Judges: models that answer questions about images, over an API or in this process, with every answer recorded.

A kind of judge from outside imports what it needs from here; how to write one: docs/extending.md. Nothing here imports
torch.
"""

from promptecho.config.fields import Section
from promptecho.config.judge_kinds import JudgeKind
from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Judge, Payload, Reply
from promptecho.judges.endpoint import Endpoint, retry_after
from promptecho.judges.errors import JudgeBusyError, JudgeError, JudgeRejectedError

__all__ = [
    "Endpoint", "Judge", "JudgeBusyError", "JudgeError", "JudgeKind", "JudgeRejectedError", "JudgeSection", "Payload",
    "Reply", "Section", "retry_after",
]  # fmt: skip
