"""Google's Gemini API through the google-genai package."""

from __future__ import annotations

from typing import Any

from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Payload, Reply
from promptecho.judges.endpoint import Endpoint, missing_package, retry_after
from promptecho.judges.errors import JudgeError

# Finish reasons with which the model declined; others (STOP, MAX_TOKENS, ...) leave a text to be parsed.
DECLINED = (
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
)


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
        self._client = genai.Client(
            vertexai=False,
            api_key=self.endpoint.key or "none",
            http_options=genai.types.HttpOptions(
                base_url=self.endpoint.url,
                api_version="v1beta",  # where preview models are; otherwise a variable of the environment decides
                timeout=int(settings.timeout_s * 1000),
                retry_options=genai.types.HttpRetryOptions(attempts=1),
            ),
        )

    def ask(self, payload: Payload) -> Reply:
        """One call; see `Judge.ask`."""
        from google.genai import errors

        # Errors are raised outside the handlers: the SDK's own hold the request with its headers.
        try:
            response = self._client.models.generate_content(
                model=self.settings.model, contents=self._contents(payload), config=self._config(payload)
            )
        except errors.APIError as error:
            problem = self._status_error(error)
        except ValueError:  # no JSON, or JSON of another form (pydantic's errors are ValueErrors)
            problem = self.endpoint.busy("garbage: the body is no Gemini reply", maybe_billed=True)
        except Exception as error:
            # The HTTP library's errors; which library that is, is the SDK's own affair.
            problem = self._transport_error(error)
            if problem is None:
                raise
        else:
            problem = self._reply(response)
        if isinstance(problem, Reply):
            return problem
        raise problem

    def _contents(self, payload: Payload) -> list[Any]:
        from google.genai import types

        parts = [types.Part.from_bytes(data=data, mime_type=media) for media, data in payload.images]
        return [types.Content(role="user", parts=[*parts, types.Part.from_text(text=payload.text)])]

    def _config(self, payload: Payload) -> Any:
        from google.genai import types

        structured = payload.schema is not None and self.settings.structured_output != "none"
        whole = structured and self.settings.structured_output == "json_schema"
        return types.GenerateContentConfig(
            system_instruction=payload.system or None,
            temperature=payload.temperature,
            max_output_tokens=self.settings.max_output_tokens,
            response_mime_type="application/json" if structured else None,
            # Not response_schema: that one knows no additionalProperties.
            response_json_schema=payload.schema.model_json_schema() if whole else None,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )

    def _status_error(self, error: Any) -> JudgeError:
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
        return self.endpoint.status_error(status, str(error.message or ""), str(error.status or ""), wait)

    def _transport_error(self, error: Exception) -> JudgeError | None:
        names = [cls.__name__ for cls in type(error).__mro__]
        if "TimeoutException" in names:
            sent = not {"ConnectTimeout", "PoolTimeout"} & set(names)
            return self.endpoint.busy(f"time-out: no reply within {self.settings.timeout_s:g} s", maybe_billed=sent)
        if "TransportError" in names:
            return self.endpoint.busy(f"connection lost: {names[0]}", maybe_billed="ConnectError" not in names)
        return None

    def _reply(self, response: Any) -> Reply | JudgeError:
        usage, feedback = response.usage_metadata, response.prompt_feedback
        text, refusal = "", None
        if feedback is not None and feedback.block_reason:
            refusal = f"prompt blocked ({_name(feedback.block_reason)})"
        elif not response.candidates:
            refusal = "no candidate"
        else:
            candidate = response.candidates[0]
            parts = (candidate.content and candidate.content.parts) or []
            text = "".join(part.text for part in parts if part.text and not part.thought)
            if _name(candidate.finish_reason) in DECLINED:
                refusal = _name(candidate.finish_reason)
        if usage is None and refusal == "no candidate":
            return self.endpoint.busy("garbage: the body is no Gemini reply", maybe_billed=True)
        return Reply(
            text=self.endpoint.scrub(text),
            model_version=self.endpoint.scrub(response.model_version or ""),
            input_tokens=(usage and usage.prompt_token_count) or 0,
            output_tokens=(usage and (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)) or 0,
            refusal=refusal,
        )


def _name(value: Any) -> str:
    return str(getattr(value, "value", value) or "")
