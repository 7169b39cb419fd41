"""The judge that settings name."""

from __future__ import annotations

from promptecho.config.judge_kinds import JUDGE_KINDS
from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Judge
from promptecho.judges.errors import JudgeError
from promptecho.judges.names import judge_name
from promptecho.plugins import MISTAKES, import_object


def load_judge(settings: JudgeSection) -> Judge:
    """The judge itself: reads its key from the environment, or loads the model.

    Raises:
        JudgeError: the key or the kind's package is missing, or code from outside fails.
        ConfigError: the endpoint is no plain http(s) URL, or the kind cannot be imported.
        ModelError: the local model can't be loaded.
    """
    judge_name(settings)  # checks the endpoint
    found = JUDGE_KINDS.find(settings.kind)
    who = f"judge kind {settings.kind} ({found})"
    build = import_object(found.thing.build, who)
    try:
        return build(settings)
    except MISTAKES as error:
        if found.is_ours:
            raise
        told = f"{type(error).__name__}: {error}; --debug shows where"
        raise JudgeError(f"{who}: {found.thing.build} cannot be built: {told}") from error
