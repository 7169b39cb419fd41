"""Judges in the experiment file: which model answers, where, how often, and what it may cost."""

from __future__ import annotations

import copy
import json
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator
from pydantic.fields import FieldInfo

from promptecho.config.choices import OpenSection, name_of
from promptecho.config.fields import NAME_PATTERN, Count, Flag, NonNegative, Positive, Section, Share, Text
from promptecho.config.judge_kinds import JUDGE_KINDS, JudgeKind, available_judge_kinds, judge_kind
from promptecho.shipped import CLIPS, VLMS, WORLDS


class JudgeSection(OpenSection):
    """A model that answers questions about images. Its key comes from the environment, never from a file."""

    kind: Annotated[Text, AfterValidator(name_of(JUDGE_KINDS))] = Field(description="How the model is asked")
    model: Text = Field(
        description="Model name at the endpoint; for local a folder or hub id, or `shapes` or `gallery`."
    )
    endpoint: Text | None = Field(
        None, description="Base URL; null: the provider's own. It may move "
        "to another address without a question asked again. Azure's may end in ?api-version=DATE. Not for local."
    )  # fmt: skip
    api_key_env: Text | None = Field(
        None,
        description="Name of the environment variable that holds the key; null: the kind's own. An endpoint of your "
        "own needs none: leave the variable unset.",
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
        "answered, until it counts as failed. An endpoint that answers no request is waited for (`judges.outage_s`)."
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
        kind = judge_kind(self.kind)
        if kind.in_process and (self.endpoint or self.api_key_env or self.request):
            raise ValueError(f"a {kind.name} judge has neither endpoint nor api_key_env nor request")
        if kind.in_process and self.model in CLIPS:
            raise ValueError(f"model: {self.model} is a CLIP, no VLM; VLMs ship as {', '.join((*WORLDS, *VLMS))}")
        if not kind.in_process and not kind.provider and not self.endpoint:
            raise ValueError(f"kind {kind.name} has no address of its own; give endpoint")
        self._check_request(kind)
        prices = (self.usd_per_million_input_tokens, self.usd_per_million_output_tokens)
        if self.budget_usd is not None and None in prices:
            raise ValueError("budget_usd needs usd_per_million_input_tokens and usd_per_million_output_tokens")
        return self

    def _check_request(self, kind: JudgeKind) -> None:
        given = set(self.request)
        for name in kind.unpacked:
            inner = self.request.get(name)
            if inner is not None and not isinstance(inner, dict):
                raise ValueError(f"request.{name}: expected a mapping")
            given |= set(inner or {})
        if kind.request is not None:
            try:
                kind.request.model_validate(self.request)
            except ValidationError as error:
                problem = error.errors(include_url=False)[0]
                raise ValueError(f"request.{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
        if ours := sorted(given & kind.own_parts):
            raise ValueError(f"request.{ours[0]}: not to be set here; it is the suite's own part of a call")
        try:
            json.dumps(self.request, allow_nan=False)
        except ValueError:
            raise ValueError("request: infinity and not-a-number are no JSON") from None

    @classmethod
    def written_fields(cls, ours_only: bool = False) -> dict[str, FieldInfo]:
        kinds = [found.thing for found in available_judge_kinds(ours_only)]
        fields = {key: copy.copy(field) for key, field in cls.model_fields.items()}
        told = "; ".join(f"{one.name}: {one.summary}" for one in kinds)
        fields["kind"].description = f"{fields['kind'].description}. {told}; or one from outside (docs/extending.md)."
        fields["kind"].annotation = Literal[tuple(one.name for one in kinds)]  # type: ignore[assignment]
        keys = ", ".join(f"{one.name}: {one.key_variable}" for one in kinds if one.key_variable)
        keys += "".join(f", {one.azure_key_variable} for Azure" for one in kinds if one.azure_key_variable)
        before = str(fields["api_key_env"].description)
        fields["api_key_env"].description = before.replace("the kind's own", f"the kind's own ({keys})")
        return fields

    @classmethod
    def open_choices(cls) -> tuple[str, ...]:
        return ("kind",)


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
        900.0, description="How many seconds an endpoint that answers no request is waited for (503, 429, connection "
        "refused, ...)."
    )  # fmt: skip
    models: dict[Annotated[str, Field(strict=True, pattern=NAME_PATTERN)], JudgeSection] = Field(
        default_factory=dict, description="Judges by name."
    )
