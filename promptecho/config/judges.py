"""Judges in the experiment file: which model answers, where, how often, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from promptecho.config.fields import NAME_PATTERN, Count, Flag, NonNegative, Positive, Section, Share, Text


class JudgeSection(Section):
    """A model that answers questions about images. Its key comes from the environment, never from a file."""

    kind: Literal["gemini", "openai", "local"] = Field(
        description="gemini: Google's API; openai: any OpenAI-compatible endpoint (OpenAI, DashScope, vLLM, SGLang, "
        "`transformers serve`); local: a vision-language model in this process."
    )
    model: Text = Field(description="Model name at the endpoint; for local a folder or hub id, or `shapes`.")
    endpoint: Text | None = Field(None, description="Base URL; null: the provider's own. Not for local.")
    api_key_env: Text | None = Field(
        None,
        description="Name of the environment variable that holds the key; null: GEMINI_API_KEY or OPENAI_API_KEY. An "
        "endpoint of your own needs none: leave the variable unset.",
    )
    temperature: NonNegative | None = Field(None, description="Sampling temperature; null: the benchmark's own.")
    max_output_tokens: Count = Field(2048, description="Longest reply in tokens.")
    image_format: Literal["png", "jpeg"] = Field("png", description="How images are sent.")
    jpeg_quality: Count = Field(95, description="Quality of images sent as jpeg.", le=100)
    structured_output: Literal["json_schema", "json_object", "none"] = Field(
        "json_schema", description="How an endpoint is made to answer in JSON; replies are checked in any case."
    )
    concurrency: Count = Field(8, description="Calls at the same time.")
    requests_per_minute: Positive | None = Field(None, description="Most calls to begin in a minute; null: no limit.")
    timeout_s: Positive = Field(120.0, description="Seconds that one call may take.")
    max_attempts: Count = Field(
        6, description="Attempts for each question, with growing pauses, while the endpoint is busy or replies "
        "can't be used; then the question counts as failed."
    )  # fmt: skip
    max_failed_share: Share = Field(
        0.01, description="Largest share of questions without an answer; above it the stage fails."
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
        if self.kind == "local" and (self.endpoint or self.api_key_env):
            raise ValueError("a local judge has neither endpoint nor api_key_env")
        prices = (self.usd_per_million_input_tokens, self.usd_per_million_output_tokens)
        if self.budget_usd is not None and None in prices:
            raise ValueError("budget_usd needs usd_per_million_input_tokens and usd_per_million_output_tokens")
        return self


class JudgesSection(Section):
    """Who judges images, and with what words."""

    templates: Text | None = Field(
        None,
        description="Folder whose BENCH/NAME.txt replace the project's own texts, for those who want the wording of "
        "the benchmarks' authors (docs/judges.md says where it is published); relative to where you start.",
    )
    models: dict[Annotated[str, Field(strict=True, pattern=NAME_PATTERN)], JudgeSection] = Field(
        default_factory=dict, description="Judges by name."
    )
