"""The section `captions.server`: a server that writes the captions in place of transformers in the job."""

from __future__ import annotations

from pydantic import Field, JsonValue, model_validator

from promptecho.config.fields import Count, NonNegative, Positive, Section, Text
from promptecho.config.judges import JudgeSection


class CaptionServerSection(Section):
    """An OpenAI-compatible server that captions: one of `endpoint` and `command` (docs/captioning.md). Its key comes
    from the environment, never from a file."""

    endpoint: Text | None = Field(
        None, description="Base URL of a server that runs, as http://node7:8000/v1. The jobs take no GPU then."
    )
    command: Text | None = Field(
        None,
        description="Command for bash that starts a server in each job, on this node, and stays with it: `{port}` is a "
        "free port, `{model}` the folder (or hub id) of `models.vlm`; as `/opt/vllm/bin/vllm serve {model} --host "
        "127.0.0.1 --port {port}`. Ended with the job.",
    )
    model: Text | None = Field(
        None,
        description="What the server calls the model; null: `models.vlm` where it lists that, else the only one that "
        "it lists.",
    )
    api_key_env: Text | None = Field(
        None,
        description="Name of the environment variable that holds the key; null: OPENAI_API_KEY. Leave it unset where "
        "the server takes no key.",
    )
    request: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Further keys of each call, as they are sent (`chat_template_kwargs: {enable_thinking: false}`, "
        "...). Part of what decides a caption.",
    )
    concurrency: Count = Field(32, description="Images that a job has captioned at the same time.")
    timeout_s: Positive = Field(600.0, description="Seconds that one caption may take, waiting in the server included.")
    max_attempts: Count = Field(
        4, description="Calls that fail on one image while others are answered, until it is left out as rejected."
    )
    outage_s: NonNegative = Field(900.0, description="How many seconds a server that answers nobody is waited for.")
    start_s: Positive = Field(1800.0, description="How many seconds a `command` may take until it answers.")

    @model_validator(mode="after")
    def _fits(self) -> CaptionServerSection:
        if (self.endpoint is None) == (self.command is None):
            raise ValueError("give one of endpoint and command")
        if self.command is not None and "{port}" not in self.command:
            raise ValueError("command has no {port}: a job's server must listen where no other job's does")
        self.asked_as("model", "http://127.0.0.1")
        return self

    def asked_as(
        self, model: str, url: str, *, max_output_tokens: int = 512, temperature: float = 0.0
    ) -> JudgeSection:  # fmt: skip
        """The settings with which the judges' client asks it.

        Args:
            model: what it calls the model.
            url: where it answers.
        """
        return JudgeSection(
            kind="openai", model=model, endpoint=url, api_key_env=self.api_key_env, temperature=temperature,
            max_output_tokens=max_output_tokens, request=self.request, concurrency=self.concurrency,
            timeout_s=self.timeout_s, max_attempts=self.max_attempts, structured_output="none",
        )  # fmt: skip
