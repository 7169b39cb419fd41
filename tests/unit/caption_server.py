"""A stand-in for vLLM as a process of its own: an OpenAI-compatible server that describes an image by its hash.

    python caption_server.py --port 8000 --log asked.jsonl [--faults FILE]

`--log` gets a line for each request when it comes. `--faults` is a JSON file of {SHA-256 of a sent image: fault}: an
HTTP status, or `empty`, `refused`, `long` (cut at the limit), `nul`, or `die` (the server ends itself).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def caption_of(data: bytes) -> str:
    return f"A picture that begins with {hashlib.sha256(data).hexdigest()[:12]}."


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    given: argparse.Namespace
    faults: dict[str, str]
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.given.no_list:
            self._send(500, {"error": {"message": "no list", "type": "trouble", "code": None}})
            return
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in self.given.models]
        self._send(200, {"object": "list", "data": data})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][-1]["content"]
        url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
        data = base64.b64decode(url.split(",", 1)[1])
        sha256 = hashlib.sha256(data).hexdigest()
        if self.given.log:
            told = {"image": sha256, "media": url[5:].split(";")[0], "text": parts[-1]["text"]}
            told |= {key: body.get(key) for key in ("model", "temperature", "max_tokens", "seed", "top_k")}
            told |= {"key": self.headers.get("Authorization")}
            with self.lock, open(self.given.log, "a") as file:
                file.write(json.dumps(told) + "\n")
        time.sleep(self.given.delay)
        fault = self.faults.get(sha256, "")
        if fault.isdigit():
            self._send(int(fault), {"error": {"message": "trouble", "type": "trouble", "code": None}})
            return
        if fault == "die":
            os._exit(3)
        message = {"role": "assistant", "content": caption_of(data)}
        message |= {"empty": {"content": " \n"}, "nul": {"content": "a\0b "}}.get(fault, {})
        message |= {"content": None, "refusal": "I will not look."} if fault == "refused" else {}
        choice = {"index": 0, "message": message, "finish_reason": "length" if fault == "long" else "stop"}
        usage = {"prompt_tokens": 70, "completion_tokens": 9, "total_tokens": 79}
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": self.given.models[0]}
        self._send(200, reply | {"choices": [choice], "usage": usage})

    def _send(self, status: int, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--models", nargs="+", default=["stand-in"])
    parser.add_argument("--log")
    parser.add_argument("--no-list", action="store_true", help="of models, as with one whose list is broken")
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--slow-start", type=float, default=0.0)
    given = parser.parse_args()
    print(f"loading {given.models[0]}", flush=True)
    time.sleep(given.slow_start)
    Handler.given = given
    Handler.faults = json.loads(given.faults.read_text()) if given.faults else {}
    Server(("127.0.0.1", given.port), Handler).serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
