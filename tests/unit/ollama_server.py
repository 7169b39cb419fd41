"""A server on loopback that speaks Ollama's API, for the examples of judges."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def ollama(says: Callable[[str], str], fault: dict[str, int] | None = None) -> Iterator[tuple[str, list[dict]]]:
    """A server that speaks Ollama's /api/chat; yields its address and what it was asked. `says`: question -> reply;
    `fault`: word in a question -> HTTP status that it gets, once."""
    fault = fault or {}
    asked: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
            text = body["messages"][-1]["content"]
            status = next((fault.pop(word) for word in list(fault) if f'"{word}"' in text), 200)
            told = {"model": "made-up:7b-q4", "message": {"role": "assistant", "content": says(text)},
                    "done_reason": "stop", "prompt_eval_count": 700, "eval_count": 20}  # fmt: skip
            content = json.dumps(told if status == 200 else {"error": "busy"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status != 200:
                self.send_header("Retry-After", "0.01")
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
