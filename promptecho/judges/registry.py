"""Which class answers for which kind of judge."""

from __future__ import annotations

from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Judge
from promptecho.judges.names import judge_name


def load_judge(settings: JudgeSection) -> Judge:
    """The judge itself: reads its key from the environment, or loads the model.

    Raises:
        JudgeError: the key or the kind's package is missing.
        ConfigError: the endpoint is no plain http(s) URL.
        ModelError: the local model can't be loaded.
    """
    judge_name(settings)  # checks the endpoint
    if settings.kind == "gemini":
        from promptecho.judges.gemini import GeminiJudge

        return GeminiJudge(settings)
    if settings.kind == "openai":
        from promptecho.judges.openai_compatible import OpenAIJudge

        return OpenAIJudge(settings)
    from promptecho.judges.local import LocalJudge

    return LocalJudge(settings)
