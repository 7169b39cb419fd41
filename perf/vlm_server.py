"""A small OpenAI-compatible server around a real VLM, for machines without vLLM: requests that wait are one batch.

    python perf/vlm_server.py --model shapes --port 8000 --batch 16 --threads 1

It is not vLLM: it runs transformers' `generate` as `promptecho caption shard` does, a batch to its end before the next
begins. It shows what a request, its image and the journal cost, and that both ways give the same captions.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass
class Asked:
    image: Image.Image
    query: str
    max_tokens: int
    temperature: float
    seed: int
    answer: Future = field(default_factory=Future)

    @property
    def kind(self) -> tuple[str, int, float]:
        return self.query, self.max_tokens, self.temperature


class Batcher(threading.Thread):
    """Runs what waits, up to `most` at once and alike."""

    def __init__(self, model: str, most: int):
        from promptecho.vlm import load_vlm

        super().__init__(daemon=True)
        self.vlm, self.most, self.waiting = load_vlm(model), most, queue.Queue[Asked]()

    def run(self) -> None:
        from promptecho.vlm.generation import complete
        from promptecho.vlm.inputs import batch_inputs, render_prompt

        left: list[Asked] = []
        while True:
            left.append(left.pop(0) if left else self.waiting.get())
            while len(left) < self.most:
                try:
                    left.append(self.waiting.get(timeout=0.02))
                except queue.Empty:
                    break
            batch = [one for one in left if one.kind == left[0].kind][: self.most]
            left = [one for one in left if one not in batch]
            try:
                prompt = render_prompt(self.vlm, batch[0].query)
                images = [one.image for one in batch]
                inputs = batch_inputs(self.vlm, images, [prompt] * len(batch), padding_side="left")
                answers = complete(
                    self.vlm, inputs, ["a request"] * len(batch), [one.seed for one in batch],
                    max_new_tokens=batch[0].max_tokens, temperature=batch[0].temperature,
                )  # fmt: skip
                for one, answer in zip(batch, answers, strict=True):
                    one.answer.set_result((answer, int(inputs["input_ids"].shape[1])))
            except Exception as error:
                for one in batch:
                    one.answer.set_exception(error)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    batcher: Batcher
    model: str

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": self.model, "object": "model", "created": 0}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][-1]["content"]
        url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
        image = Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).convert("RGB")
        text = next(part["text"] for part in parts if part["type"] == "text")
        one = Asked(image, text, body.get("max_tokens", 512), body.get("temperature", 0.0), body.get("seed") or 0)
        self.batcher.waiting.put(one)
        try:
            answer, prompt_tokens = one.answer.result()
        except Exception as error:
            self._send(400, {"error": {"message": str(error), "type": "refused", "code": None}})
            return
        message = {"role": "assistant", "content": answer.text}
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": answer.n_tokens}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": self.model, "choices": [choice]}
        self._send(200, reply | {"usage": usage | {"total_tokens": sum(usage.values())}})

    def _send(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    Handler.batcher, Handler.model = Batcher(given.model, given.batch), given.model
    Handler.batcher.start()
    Server(("127.0.0.1", given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
