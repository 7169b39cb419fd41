"""Any endpoint that speaks OpenAI's chat completions: OpenAI, DashScope, vLLM, SGLang, `transformers serve`."""

from __future__ import annotations

import base64
from typing import Any

from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Payload, Reply
from promptecho.judges.endpoint import FILTERED, Endpoint, missing_package, retry_after
from promptecho.judges.errors import JudgeError
from promptecho.judges.prepare import normal_endpoint


class OpenAIJudge:
    """Asks through the openai package, whose own retries are off.

    Raises:
        JudgeError: the package is missing, or OpenAI's own endpoint has no key.
    """

    def __init__(self, settings: JudgeSection):
        try:
            import openai
        except ImportError:
            raise missing_package(settings, "openai") from None
        self.settings, self.endpoint = settings, Endpoint(settings)
        self.name = self.endpoint.name
        self._client = openai.OpenAI(
            api_key=self.endpoint.key or "none",
            base_url=self.endpoint.url,
            timeout=settings.timeout_s,
            max_retries=0,
        )
        self._headers = None if self.endpoint.key else {"Authorization": openai.Omit()}

    def ask(self, payload: Payload) -> Reply:
        """One call; see `Judge.ask`."""
        import openai

        # Errors are raised outside the handlers: the SDK's own hold the request with its headers.
        try:
            response = self._client.chat.completions.create(**self._request(payload), extra_headers=self._headers)
        except openai.APIStatusError as error:
            code = str(error.code or error.type or "")
            problem = self._refusal(error, code)
            if problem is None:
                body = error.body if isinstance(error.body, dict) else {}
                message = body.get("message") or body.get("detail")  # FastAPI's servers say detail
                wait = retry_after(error.response.headers)
                problem = self.endpoint.status_error(error.status_code, str(message or ""), code, wait)
        except openai.APITimeoutError as error:
            sent = type(error.__cause__).__name__ not in ("ConnectTimeout", "PoolTimeout")
            problem = self.endpoint.busy(f"time-out: no reply within {self.settings.timeout_s:g} s", maybe_billed=sent)
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            problem = self.endpoint.busy(f"connection lost: {cause}", maybe_billed=cause != "ConnectError")
        except ValueError:  # the SDK lets bodies through that are no JSON
            problem = self.endpoint.busy("garbage: the body is no JSON", maybe_billed=True)
        else:
            problem = self._reply(response)
        if isinstance(problem, Reply):
            return problem
        raise problem

    def _request(self, payload: Payload) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": f"data:{media};base64,{base64.b64encode(data).decode()}"}}
            for media, data in payload.images
        ]
        content.append({"type": "text", "text": payload.text})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if payload.system:
            messages.insert(0, {"role": "system", "content": payload.system})
        # OpenAI's newer models refuse max_tokens, and servers of others may not know its successor.
        limit = "max_completion_tokens" if normal_endpoint(self.settings) is None else "max_tokens"
        request = {
            "model": self.settings.model, "messages": messages, "temperature": payload.temperature,
            limit: self.settings.max_output_tokens,
        }  # fmt: skip
        if payload.schema is not None and self.settings.structured_output != "none":
            request["response_format"] = self._response_format(payload)
        return request

    def _response_format(self, payload: Payload) -> dict[str, Any]:
        if self.settings.structured_output == "json_object":
            return {"type": "json_object"}
        import openai

        # This is the SDK's public way to the strict form of a pydantic model's schema.
        schema = openai.pydantic_function_tool(payload.schema)["function"]["parameters"]
        return {"type": "json_schema",
                "json_schema": {"name": payload.schema.__name__, "schema": schema, "strict": True}}

    def _refusal(self, error: Any, code: str) -> Reply | None:
        """A request that the provider's filter refused, which is an answer to this question."""
        if error.status_code != 400 or code.lower() not in FILTERED:
            return None
        return Reply("", refusal=f"input filtered ({code})")

    def _reply(self, response: Any) -> Reply | JudgeError:
        choices = getattr(response, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if message is None:
            return self.endpoint.busy("garbage: the body is no chat completion", maybe_billed=True)
        usage = response.usage
        text = message.content if isinstance(message.content, str) else ""
        refusal = None
        if message.refusal:
            refusal = self.endpoint.scrub(" ".join(str(message.refusal).split()))[:300]
        elif choices[0].finish_reason == "content_filter":
            refusal = "content_filter"
        return Reply(
            text=self.endpoint.scrub(text),
            model_version=self.endpoint.scrub(str(response.model or "")),
            input_tokens=(usage and usage.prompt_tokens) or 0,
            output_tokens=(usage and usage.completion_tokens) or 0,
            refusal=refusal,
        )
