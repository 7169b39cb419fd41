"""Any endpoint that speaks OpenAI's chat completions: OpenAI, Azure, DashScope, vLLM, SGLang, `transformers serve`."""

from __future__ import annotations

import base64
from typing import Any

from pydantic import BaseModel

from promptecho.config.judge_kinds import JudgeKind
from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Payload, Reply
from promptecho.judges.endpoint import NO_LIST, Endpoint, missing_package, retry_after
from promptecho.judges.errors import JudgeError
from promptecho.judges.keys import asked_beside, normal_endpoint
from promptecho.judges.names import MessageNames

KIND = JudgeKind(
    name="openai",
    summary="any OpenAI-compatible endpoint (OpenAI, Azure, DashScope, vLLM, SGLang, `transformers serve`)",
    build="promptecho.judges.openai_compatible:OpenAIJudge",
    provider="https://api.openai.com/v1",
    key_variable="OPENAI_API_KEY",
    azure_key_variable="AZURE_OPENAI_API_KEY",
    own_parts=frozenset({"model", "messages", "stream", "n", "extra_headers", "extra_query", "timeout"}),
    limit_keys=("max_completion_tokens", "max_tokens"),
    unpacked=("extra_body",),
)


class OpenAIJudge:
    """Asks through the openai package, whose own retries are off. `seeded`: it sends the payload's seed, too.

    Raises:
        JudgeError: the package is missing, or OpenAI's own endpoint has no key.
    """

    def __init__(self, settings: JudgeSection, wording: MessageNames | None = None, *, seeded: bool = False):
        try:
            import openai
        except ImportError:
            raise missing_package(settings, "openai") from None
        self.settings, self.endpoint, self.seeded = settings, Endpoint(settings, wording), seeded
        self.name = self.endpoint.name
        key = self.endpoint.key
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=self.endpoint.url,
            default_query=self.endpoint.query or None,
            timeout=0.95 * settings.timeout_s,  # before the whole call's, since it can tell what was waited for
            max_retries=0,
            # A key goes to no other host; and a proxy of the environment does not lead to this machine's own servers.
            http_client=openai.DefaultHttpxClient(follow_redirects=False, trust_env=not self.endpoint.is_here),
        )
        self._headers: dict[str, Any] = {} if key and not self.endpoint.azure else {"Authorization": openai.Omit()}
        if key and self.endpoint.azure:
            self._headers["api-key"] = key

    def ask(self, payload: Payload) -> Reply:
        """One call; see `Judge.ask`."""
        return self.endpoint.bounded(self.settings.timeout_s, lambda: self._ask(payload))

    def lists_model(self, seconds: float) -> bool | None:
        """See `FreelyAsked`."""
        names = self.names(seconds)
        return self.settings.model in names if names else None

    def names(self, seconds: float) -> list[str]:
        """The models that the endpoint lists; none where it has no list. Raises as `lists_model`."""
        return self.endpoint.bounded(seconds, lambda: self._names(seconds))

    def _names(self, seconds: float) -> list[str] | JudgeError:
        import openai

        try:
            listed = self._client.models.list(extra_headers=self._headers, timeout=0.95 * seconds)
            return [str(one.id) for one in listed.data or []]
        except openai.APIStatusError as error:
            if error.status_code in NO_LIST:
                return []
            problem = self._status_error(error)
            return problem if isinstance(problem, JudgeError) else self.endpoint.busy(f"HTTP {error.status_code}")
        except openai.APIConnectionError as error:
            return self.endpoint.transport_error(error, seconds) or self.endpoint.busy("connection lost")
        except (ValueError, AttributeError, TypeError):  # a body of another form
            return []

    def _ask(self, payload: Payload) -> Reply | JudgeError:
        import openai

        # Errors are raised outside the handlers: the SDK's own hold the request with its headers.
        body = self._request(payload)
        model, messages = body.pop("model"), body.pop("messages")
        try:
            response = self._client.chat.completions.create(
                model=model, messages=messages, extra_body=body, extra_headers=self._headers
            )
        except openai.APIStatusError as error:
            return self._status_error(error)
        except openai.APIConnectionError as error:
            return self.endpoint.transport_error(error, self.settings.timeout_s) or self.endpoint.busy(
                "connection lost", maybe_billed=True
            )
        except ValueError:  # the SDK lets bodies through that are no JSON
            return self.endpoint.busy("garbage: the body is no JSON", maybe_billed=True)
        return self._reply(response)

    def _status_error(self, error: Any) -> Reply | JudgeError:
        body = error.body if isinstance(error.body, dict) else {}
        inner = body.get("innererror") or body.get("inner_error")
        codes = [error.code, error.type, body.get("code"), inner.get("code") if isinstance(inner, dict) else None]
        codes = [str(code) for code in codes if code]
        message = str(body.get("message") or body.get("detail") or "")  # FastAPI's servers say detail
        return self.endpoint.filtered(error.status_code, message, codes) or self.endpoint.status_error(
            error.status_code, message, codes[0] if codes else "", retry_after(error.response.headers)
        )

    def _error_within(self, response: Any) -> Reply | JudgeError | None:
        """What routers send as a success, though it holds an error in place of a reply."""
        error = getattr(response, "error", None)
        if getattr(response, "choices", None) or not isinstance(error, dict):
            return None
        code, message = error.get("code"), str(error.get("message") or "")
        told = str(error.get("type") or "") if isinstance(code, int) else str(code or "")
        number = int(str(code)) if str(code).isdecimal() else 0
        status = number if 400 <= number < 600 else 502
        return self.endpoint.filtered(status, message, [told]) or self.endpoint.status_error(status, message, told)

    def _request(self, payload: Payload) -> dict[str, Any]:
        """The body of a call: what the question needs, and the user's `request` over it."""
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": _data_url(*part)}}
            for part in payload.parts()
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if payload.system:
            messages.insert(0, {"role": "system", "content": payload.system})
        request = {"model": self.settings.model, "messages": messages, "temperature": payload.temperature}
        if self.seeded:
            request["seed"] = payload.seed
        more = asked_beside(self.settings)
        if not any(more.get(name) is not None for name in KIND.limit_keys):
            # OpenAI's newer models refuse max_tokens, and servers of others may not know its successor.
            own = normal_endpoint(self.settings) is None or self.endpoint.azure
            request["max_completion_tokens" if own else "max_tokens"] = self.settings.max_output_tokens
        if payload.schema is not None and self.settings.structured_output != "none":
            request["response_format"] = self._response_format(payload.schema)
        return {name: value for name, value in {**request, **more}.items() if value is not None}

    def _response_format(self, schema: type[BaseModel]) -> dict[str, Any]:
        if self.settings.structured_output == "json_object":
            return {"type": "json_object"}
        import openai

        # This is the SDK's public way to the strict form of a pydantic model's schema.
        strict = openai.pydantic_function_tool(schema)["function"]["parameters"]
        return {"type": "json_schema", "json_schema": {"name": schema.__name__, "schema": strict, "strict": True}}

    def _reply(self, response: Any) -> Reply | JudgeError:
        if problem := self._error_within(response):
            return problem
        choices, usage = getattr(response, "choices", None), getattr(response, "usage", None)
        empty = choices == [] and usage is not None
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if message is None and not empty:
            return self.endpoint.busy("garbage: the body is no chat completion", maybe_billed=True)
        text, refusal, finish = "", None, ""
        if message is not None and choices:
            text, finish = _text(message.content), str(choices[0].finish_reason or "")
            if message.refusal:
                refusal = self.endpoint.scrub(" ".join(str(message.refusal).split()))[:300]
            elif finish == "content_filter":
                refusal = "content_filter"
        details = getattr(usage, "completion_tokens_details", None)
        return Reply(
            text=self.endpoint.scrub(text),
            model_version=self.endpoint.scrub(str(response.model or "")),
            input_tokens=(usage and usage.prompt_tokens) or 0,
            output_tokens=(usage and usage.completion_tokens) or 0,
            refusal=refusal,
            finish=self.endpoint.scrub(finish)[:80],
            cut=finish == "length",
            thinking_tokens=getattr(details, "reasoning_tokens", None) or 0,
            empty=empty,
        )


def _data_url(media: str, data: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def _text(content: Any) -> str:
    """The text of a message; some servers send a list of parts, thoughts apart."""
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else vars(part) for part in content if not isinstance(part, str)]
        return "".join(str(part.get("text") or "") for part in parts if part.get("type") in (None, "text"))
    return content if isinstance(content, str) else ""
