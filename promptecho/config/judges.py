"""Judges in the experiment file: which model answers, where, how often, and what it may cost."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from promptecho.config.fields import NAME_PATTERN, Count, Flag, NonNegative, Positive, Section, Share, Text

# What `request` may not hold: the question's own part of a call, and what would hold keys or change what comes back.
_OURS = {
    "openai": {"model", "messages", "stream", "n", "extra_headers", "extra_query", "timeout"},
    "gemini": {"system_instruction", "systemInstruction", "http_options", "httpOptions", "candidate_count",
               "candidateCount", "automatic_function_calling", "automaticFunctionCalling"},
}  # fmt: skip


class JudgeSection(Section):
    """A model that answers questions about images. Its key comes from the environment, never from a file."""

    kind: Literal["gemini", "openai", "local"] = Field(
        description="gemini: Google's API; openai: any OpenAI-compatible endpoint (OpenAI, DashScope, vLLM, SGLang, "
        "`transformers serve`); local: a vision-language model in this process."
    )
    model: Text = Field(description="Model name at the endpoint; for local a folder or hub id, or `shapes`.")
    endpoint: Text | None = Field(
        None, description="Base URL; null: the provider's own. It may move "
        "to another address without a question asked again. Azure's may end in ?api-version=DATE. Not for local."
    )  # fmt: skip
    api_key_env: Text | None = Field(
        None,
        description="Name of the environment variable that holds the key; null: GEMINI_API_KEY, OPENAI_API_KEY, or for "
        "Azure AZURE_OPENAI_API_KEY. An endpoint of your own needs none: leave the variable unset.",
    )
    temperature: NonNegative | None = Field(None, description="Sampling temperature; null: the benchmark's own.")
    max_output_tokens: Count = Field(
        2048, description="Longest reply in tokens, with what a model thinks. Raising it asks the cut replies again "
        "and no others."
    )  # fmt: skip
    request: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Further parts of each call, as they are sent: for openai keys of a chat completion "
        "(reasoning_effort, max_completion_tokens, extra_body: {enable_thinking: false}, ...), for gemini fields of "
        "GenerateContentConfig (thinking_config, safety_settings, ...). null leaves a part out, such as temperature. "
        "A change asks all questions again, except of a limit of tokens (docs/judges.md).",
    )
    image_format: Literal["official", "png", "jpeg"] = Field(
        "official", description="How images are sent. official: as the benchmark's authors do where its `order` is "
        "official and that is known, otherwise png. Answers about png that earlier versions got count."
    )  # fmt: skip
    jpeg_quality: Count = Field(95, description="Quality of images sent where image_format is jpeg.", le=100)
    structured_output: Literal["json_schema", "json_object", "none"] = Field(
        "json_schema", description="How an endpoint is made to answer in JSON; replies are checked in any case."
    )
    concurrency: Count = Field(8, description="Calls at the same time.")
    requests_per_minute: Positive | None = Field(None, description="Most calls to begin in a minute; null: no limit.")
    timeout_s: Positive = Field(120.0, description="Seconds that one call may take, from its start to its last byte.")
    max_attempts: Count = Field(
        6, description="Replies to one question that can't be used, or calls that fail on it while others are "
        "answered, until it counts as failed. An endpoint that answers nobody is waited for (`judges.outage_s`)."
    )  # fmt: skip
    max_failed_share: Share = Field(
        0.01, description="Largest share of failed items of its benchmarks that give no `max_failed_share` themselves."
    )
    usd_per_million_input_tokens: NonNegative | None = Field(None, description="Price, for estimates and the budget.")
    usd_per_million_output_tokens: NonNegative | None = Field(None, description="Price, for estimates and the budget.")
    budget_usd: Positive | None = Field(
        None, description="Most dollars that this judge's answers may cost in one experiment: no call is begun that "
        "could exceed it. Needs both prices."
    )  # fmt: skip
    max_calls: Count | None = Field(None, description="Most calls in one experiment; recorded answers count.")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Type of a local model's weights.")
    trust_remote_code: Flag = Field(False, description="Run Python code that comes with a local model.")

    @model_validator(mode="after")
    def _fits(self) -> JudgeSection:
        if self.kind == "local" and (self.endpoint or self.api_key_env or self.request):
            raise ValueError("a local judge has neither endpoint nor api_key_env nor request")
        self._check_request()
        prices = (self.usd_per_million_input_tokens, self.usd_per_million_output_tokens)
        if self.budget_usd is not None and None in prices:
            raise ValueError("budget_usd needs usd_per_million_input_tokens and usd_per_million_output_tokens")
        return self


    def _check_request(self) -> None:
        extra = self.request.get("extra_body") if self.kind == "openai" else None
        if extra is not None and not isinstance(extra, dict):
            raise ValueError("request.extra_body: expected a mapping")
        ours = sorted({*self.request, *(extra or {})} & _OURS.get(self.kind, set()))
        if ours:
            raise ValueError(f"request.{ours[0]}: not to be set here; it is the suite's own part of a call")
        try:
            json.dumps(self.request, allow_nan=False)
        except ValueError:
            raise ValueError("request: infinity and not-a-number are no JSON") from None


class JudgesSection(Section):
    """Who judges images, and with what words."""

    templates: Text | None = Field(
        None,
        description="Folder whose BENCH/NAME.txt replace the project's own texts, for those who want the wording of "
        "the benchmarks' authors (docs/judges.md says where it is published); relative to where you start.",
    )
    mixed_versions: Literal["warn", "refuse"] = Field(
        "warn", description="What a table does whose scores were given by different versions of one judge."
    )
    outage_s: NonNegative = Field(
        900.0, description="How many seconds an endpoint is waited for that answers nobody (503, 429, connection "
        "refused, ...)."
    )  # fmt: skip
    models: dict[Annotated[str, Field(strict=True, pattern=NAME_PATTERN)], JudgeSection] = Field(
        default_factory=dict, description="Judges by name."
    )
