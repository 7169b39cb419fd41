"""The judge kind `ollama`: a vision-language model behind Ollama's own API (https://ollama.com).

Copy this folder and change it; docs/extending.md explains every part.
"""

import base64
import json
import urllib.error
import urllib.request

from promptecho import judges as pe


class OllamaJudge:
    """Asks POST /api/chat, without streaming."""

    def __init__(self, settings):
        self.settings, self.endpoint = settings, pe.Endpoint(settings)
        self.name = self.endpoint.name

    def ask(self, payload):
        # All told, one call takes no longer than `timeout_s`; what went wrong is raised there.
        return self.endpoint.bounded(self.settings.timeout_s, lambda: self.call(payload))

    def call(self, payload):
        message = {
            "role": "user",
            "content": "\n".join(part for part in payload.parts() if isinstance(part, str)),
            "images": [base64.b64encode(data).decode() for _, data in payload.images],
        }
        system = [{"role": "system", "content": payload.system}] if payload.system else []
        options = {"temperature": payload.temperature, "num_predict": self.settings.max_output_tokens}
        body = {"model": self.settings.model, "messages": [*system, message], "stream": False, "options": options}
        if payload.schema is not None and self.settings.structured_output == "json_schema":
            body["format"] = payload.schema.model_json_schema()
        headers = {"Content-Type": "application/json"}
        if self.endpoint.key:
            headers["Authorization"] = f"Bearer {self.endpoint.key}"
        content = json.dumps(body | self.settings.request).encode()
        request = urllib.request.Request(f"{self.endpoint.url}/api/chat", content, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.settings.timeout_s) as answer:
                return self.reply(json.load(answer))
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")
            return self.endpoint.status_error(error.code, told, retry_after=pe.retry_after(error.headers))
        except (OSError, ValueError, LookupError) as error:  # no connection, or a body that is no reply: asked again
            return self.endpoint.busy(f"no reply: {type(error).__name__}: {error}")

    def reply(self, body):
        why = body.get("done_reason", "")
        return pe.Reply(
            text=self.endpoint.scrub(body["message"]["content"]), model_version=body.get("model", ""), finish=why,
            input_tokens=body.get("prompt_eval_count", 0), output_tokens=body.get("eval_count", 0), cut=why == "length",
        )  # fmt: skip


class OllamaRequest(pe.Section):
    """What `request` may hold."""

    think: bool | None = None
    keep_alive: str | int | None = None


KIND = pe.JudgeKind(
    name="ollama", summary="a model behind Ollama's own API", build="ollama_judge:OllamaJudge",
    provider="http://localhost:11434", request=OllamaRequest, images_first=True,
)  # fmt: skip
