"""Google's Gemini API through the google-genai package."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from promptecho.config.judge_kinds import JudgeKind
from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Payload, Reply
from promptecho.judges.endpoint import NO_LIST, Endpoint, missing_package, retry_after
from promptecho.judges.errors import JudgeError
from promptecho.judges.keys import asked_beside, normal_endpoint

# Finish reasons with which the model declined; others (STOP, MAX_TOKENS, ...) leave a text to be parsed.
DECLINED = (
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
)


KIND = JudgeKind(
    name="gemini",
    summary="Google's API",
    build="promptecho.judges.gemini:GeminiJudge",
    provider="https://generativelanguage.googleapis.com",
    key_variable="GEMINI_API_KEY",
    own_parts=frozenset(
        {"system_instruction", "systemInstruction", "http_options", "httpOptions", "candidate_count",
         "candidateCount", "automatic_function_calling", "automaticFunctionCalling"}
    ),
    limit_keys=("max_output_tokens", "maxOutputTokens"),
    camel_case=True,
)  # fmt: skip


class GeminiJudge:
    """Asks through the google-genai package, whose own retries are off.

    Raises:
        JudgeError: the package is missing, or Google's own endpoint has no key.
    """

    def __init__(self, settings: JudgeSection):
        try:
            from google import genai
        except ImportError:
            raise missing_package(settings, "google-genai") from None
        self.settings, self.endpoint = settings, Endpoint(settings)
        self.name = self.endpoint.name
        try:
            genai.types.GenerateContentConfig.model_validate(asked_beside(settings))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            told = f"request.{where}: {problem['msg']}"
        else:
            told = ""
        if told:
            raise JudgeError(f"judge {self.name}: {told}; it takes the fields of google-genai's GenerateContentConfig")
        self._client = genai.Client(
            vertexai=False,
            api_key=self.endpoint.key or "none",
            http_options=genai.types.HttpOptions(
                base_url=self.endpoint.url,
                api_version="v1beta",  # where preview models are; otherwise a variable of the environment decides
                timeout=max(1, int(950 * settings.timeout_s)),  # before the whole call's: it knows what it waited for
                retry_options=genai.types.HttpRetryOptions(attempts=1),
                client_args={"follow_redirects": False},  # a key goes to no other host
            ),
        )

    def ask(self, payload: Payload) -> Reply:
        """One call; see `Judge.ask`."""
        return self.endpoint.bounded(self.settings.timeout_s, lambda: self._ask(payload))

    def lists_model(self, seconds: float) -> bool | None:
        """See `FreelyAsked`."""
        found = self.endpoint.bounded(seconds, lambda: self._known(seconds))
        return True if found else None

    def _known(self, seconds: float) -> bool | JudgeError:
        """Whether there is the model; False where an endpoint of one's own does not tell."""
        from google.genai import errors

        try:
            return bool(self._client.models.get(model=self.settings.model).name)
        except errors.APIError as error:
            if error.code in NO_LIST and normal_endpoint(self.settings) is not None:
                return False
            refused = self._status_error(error)
            return refused if isinstance(refused, JudgeError) else self.endpoint.busy(f"HTTP {error.code}")
        except (ValueError, AttributeError, TypeError):  # a body of another form
            return False
        except Exception as error:  # as in `_ask`
            problem = self.endpoint.transport_error(error, seconds)
            if problem is None:
                raise
            return problem

    def _ask(self, payload: Payload) -> Reply | JudgeError:
        from google.genai import errors

        # Errors are raised outside the handlers: the SDK's own hold the request with its headers.
        contents, config = self._contents(payload), self._config(payload)
        try:
            response = self._client.models.generate_content(model=self.settings.model, contents=contents, config=config)
        except errors.APIError as error:
            return self._status_error(error)
        except ValueError:  # no JSON, or JSON of another form (pydantic's errors are ValueErrors)
            return self.endpoint.busy("garbage: the body is no Gemini reply", maybe_billed=True)
        except Exception as error:
            # The HTTP library's errors; which library that is, is the SDK's own affair.
            problem = self.endpoint.transport_error(error, self.settings.timeout_s)
            if problem is None:
                raise
            return problem
        return self._reply(response)

    def _contents(self, payload: Payload) -> list[Any]:
        from google.genai import types

        parts = [
            types.Part.from_text(text=part)
            if isinstance(part, str)
            else types.Part.from_bytes(data=part[1], mime_type=part[0])
            for part in payload.parts()
        ]
        return [types.Content(role="user", parts=parts)]

    def _config(self, payload: Payload) -> Any:
        from google.genai import types

        schema = payload.schema if self.settings.structured_output != "none" else None
        whole = schema is not None and self.settings.structured_output == "json_schema"
        values: dict[str, Any] = {
            "system_instruction": payload.system or None,
            "temperature": payload.temperature,
            "max_output_tokens": self.settings.max_output_tokens,
            "response_mime_type": "application/json" if schema is not None else None,
            # Not response_schema: that one knows no additionalProperties.
            "response_json_schema": schema.model_json_schema() if schema is not None and whole else None,
            "automatic_function_calling": types.AutomaticFunctionCallingConfig(disable=True),
        }
        return types.GenerateContentConfig.model_validate(values | asked_beside(self.settings))

    def _status_error(self, error: Any) -> Reply | JudgeError:
        details = error.details if isinstance(error.details, dict) else {}
        body = details.get("error", details)
        entries = body.get("details") if isinstance(body, dict) else None
        entries = [entry for entry in entries or [] if isinstance(entry, dict)]
        wait = retry_after(getattr(error.response, "headers", None))
        for entry in entries:
            delay = str(entry.get("retryDelay", ""))
            if wait is None and delay.endswith("s") and delay[:-1].replace(".", "", 1).isdigit():
                wait = float(delay[:-1])
        status = error.code
        if any(entry.get("reason") == "API_KEY_INVALID" for entry in entries):
            status = 401
        message, code = str(error.message or ""), str(error.status or "")
        reasons = [str(entry["reason"]) for entry in entries if entry.get("reason")]
        return self.endpoint.filtered(status, message, [code, *reasons]) or self.endpoint.status_error(
            status, message, code, wait
        )

    def _reply(self, response: Any) -> Reply | JudgeError:
        usage, feedback = response.usage_metadata, response.prompt_feedback
        text, refusal, finish, empty = "", None, "", False
        if feedback is not None and feedback.block_reason:
            refusal = f"prompt blocked ({_name(feedback.block_reason)})"
        elif not response.candidates:
            empty = True
        else:
            candidate = response.candidates[0]
            parts = (candidate.content and candidate.content.parts) or []
            text = "".join(part.text for part in parts if part.text and not part.thought)
            finish = _name(candidate.finish_reason)
            if finish in DECLINED:
                refusal = finish
        if usage is None and empty:
            return self.endpoint.busy("garbage: the body is no Gemini reply", maybe_billed=True)
        thoughts = (usage and usage.thoughts_token_count) or 0
        return Reply(
            text=self.endpoint.scrub(text),
            model_version=self.endpoint.scrub(response.model_version or ""),
            input_tokens=(usage and usage.prompt_token_count) or 0,
            output_tokens=((usage and usage.candidates_token_count) or 0) + thoughts,
            refusal=refusal,
            finish=finish,
            cut=finish == "MAX_TOKENS",
            thinking_tokens=thoughts,
            empty=empty,
        )


def _name(value: Any) -> str:
    return str(getattr(value, "value", value) or "")
