"""An OpenAI-compatible server that computes with a real small VLM and knows vLLM's `prompt_logprobs`.

It shares nothing with the project's way to a label's tokens: the conversation is rendered by the library's own
`continue_final_message`, tokenized and expanded by the processor, and passed through the model one request at a time.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from PIL import Image


class LogprobServer:
    """State of a server: `name` of its model, `requests` so far, `change` of an answer before it is sent."""

    def __init__(self, vlm: Any, name: str):
        self.vlm, self.name = vlm, name
        self.requests: list[dict] = []
        self.change = lambda answer: answer
        self.template: str | None = None  # another one than the model's own
        self.lock = threading.Lock()
        self.url = ""

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """What vLLM answers to a chat completion with `prompt_logprobs`: of every token of the prompt, by its id."""
        messages, images = [], []
        for message in body["messages"]:
            parts = message["content"]
            parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
            content = []
            for part in parts:
                if part["type"] == "image_url":
                    data = part["image_url"]["url"].split(",", 1)[1]
                    images.append(Image.open(io.BytesIO(base64.b64decode(data))))
                    content.append({"type": "image"})
                else:
                    content.append(part)
            messages.append({"role": message["role"], "content": content})
        processor, more = self.vlm.processor, {} if self.template is None else {"chat_template": self.template}
        text = processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=body["add_generation_prompt"],
            continue_final_message=body["continue_final_message"], **more,
        )  # fmt: skip
        inputs = processor(images=[images], text=[text], return_tensors="pt")
        with torch.no_grad():
            logits = self.vlm.model(**inputs).logits[0].float().log_softmax(-1)
        ids = inputs["input_ids"][0].tolist()
        rows: list[dict | None] = [None]
        for place, token in enumerate(ids[1:]):
            rank = int((logits[place] > logits[place, token]).sum()) + 1
            told = {"logprob": float(logits[place, token]), "rank": rank, "decoded_token": processor.decode([token])}
            rows.append({str(token): told})
        wanted = body.get("prompt_logprobs")
        message = {"role": "assistant", "content": processor.decode([int(logits[-1].argmax())])}
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "length", "logprobs": None}],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": 1, "total_tokens": len(ids) + 1},
            **({} if wanted is None else {"prompt_logprobs": rows}),
        }  # fmt: skip


@contextmanager
def serving_log_probs(vlm: Any, name: str) -> Iterator[LogprobServer]:
    """A running server; `url` is its base URL."""
    state = LogprobServer(vlm, name)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(200, {"object": "list", "data": [{"id": state.name, "object": "model"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.requests.append(body)
                if body["model"] != state.name:
                    told = {"message": f"The model `{body['model']}` does not exist.", "code": 404}
                    return self._send(404, {"error": told})
                self._send(200, state.change(state.complete(body)))

        def _send(self, status, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
