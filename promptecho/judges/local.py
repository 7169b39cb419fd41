"""A vision-language model in this process."""

from __future__ import annotations

import io
import threading

from promptecho.config.judge_kinds import JudgeKind
from promptecho.config.judges import JudgeSection
from promptecho.errors import DataError
from promptecho.images import load_image
from promptecho.judges.base import Payload, Reply
from promptecho.judges.errors import JudgeRejectedError
from promptecho.judges.names import judge_name, model_identity

KIND = JudgeKind(
    name="local",
    summary="a vision-language model in this process",
    build="promptecho.judges.local:LocalJudge",
    in_process=True,
    images_first=True,
    environment="detect",
)


class LocalJudge:
    """Answers with any Hugging Face image-text-to-text model; one question at a time, whatever the concurrency.

    A reply is a function of the question: greedy at temperature 0, otherwise sampled with the payload's seed.

    Raises:
        ModelError: the model can't be loaded.
    """

    def __init__(self, settings: JudgeSection, device: str = "auto"):
        from promptecho.vlm import load_vlm

        self.settings, self.name = settings, judge_name(settings)
        self._vlm = load_vlm(
            settings.model, dtype=settings.dtype, device=device, trust_remote_code=settings.trust_remote_code
        )
        self._version = model_identity(settings)
        self._lock = threading.Lock()

    def ask(self, payload: Payload) -> Reply:
        """One answer.

        Raises:
            JudgeRejectedError: question and answer exceed the model's context.
            ModelError: the chat template takes no such question.
        """
        from promptecho.vlm.generation import complete
        from promptecho.vlm.inputs import batch_inputs, render_prompt

        images = [load_image(io.BytesIO(data)) for _, data in payload.images]
        with self._lock:
            prompt = render_prompt(self._vlm, payload.text, n_images=len(images), system=payload.system)
            inputs = batch_inputs(self._vlm, [images], [prompt], padding_side="left")
            try:
                [answer] = complete(
                    self._vlm, inputs, ["the question"], [payload.seed],
                    max_new_tokens=self.settings.max_output_tokens, temperature=payload.temperature,
                )  # fmt: skip
            except DataError as error:
                raise JudgeRejectedError(f"{error}; the judge's key is max_output_tokens") from None
        return Reply(
            answer.text, self._version, int(inputs["input_ids"].shape[1]), answer.n_tokens,
            finish=answer.finish_reason, cut=answer.finish_reason == "length",
        )  # fmt: skip
