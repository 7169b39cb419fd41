"""A real HTTP server on loopback that speaks Gemini's generateContent and OpenAI's chat completions, with faults.

`plan(text, nth)` names the fault of the nth request (from 0) for a question, or None for a good reply; `FAULTS` lists
them. `log` has one entry per request, `billed` one per reply that a provider would charge.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-secret-0123456789-do-not-show"
TOKENS = (700, 20)  # of a reply: input, output
STATUS_FAULTS = {"429": 429, "500": 500, "503": 503}
BODY_FAULTS = ("drop", "garbage", "truncated", "time-out")  # charged, but no reply arrives
TEXT_FAULTS = ("bad text",)  # charged, and no answer
FINAL_FAULTS = ("refusal", "safety", "cut text", "thinking")  # charged, and the last word
FAULTS = (*STATUS_FAULTS, *BODY_FAULTS, *TEXT_FAULTS, *FINAL_FAULTS)


@dataclass
class JudgeServer:
    plan: Callable[[str, int], str | None] = lambda text, nth: None
    answer: Callable[[str], str] = lambda text: json.dumps({"answer": f"re {text}"})
    delay: float = 0.0
    hang: float = 1.0
    retry_after: str | None = "0.01"
    errors: dict[int, dict] = field(default_factory=dict)  # bodies of error statuses that faults name by number
    echo: str = ""  # put into every error body, as a careless server would
    log: list[dict] = field(default_factory=list)
    billed: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""
    version: str = "judge-1.5-001"
    models: list[str] | None = None  # those of the list that costs nothing; None: there is no such list
    key: str = ""  # the only one that the list takes; "": any
    listed: list[str] = field(default_factory=list)  # paths of requests for the list
    list_body: tuple[int, str] | None = None  # status and body of every answer to a request for the list
    elsewhere: str = ""  # another server's URL, to which every request is sent on

    def __post_init__(self):
        self.lock = threading.Lock()
        self.counts: Counter = Counter()

    def endpoint(self, kind: str) -> str:
        return self.url if kind == "gemini" else f"{self.url}/v1"

    def texts(self) -> list[str]:
        return [entry["text"] for entry in self.log]


@contextmanager
def serving(**options):
    """A running server; yields its `JudgeServer`."""
    state = JudgeServer(**options)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: JudgeServer

    def log_message(self, *_):
        pass

    def do_GET(self):
        """The list of models (OpenAI), or one of them (Gemini)."""
        state, path = self.state, self.path.partition("?")[0]
        with state.lock:
            state.listed.append(path)
        if state.elsewhere:
            return self._send(307, b"")
        gemini = "/v1beta/models/" in path
        key = self.headers.get("x-goog-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")
        if state.list_body is not None:
            return self._send(state.list_body[0], state.list_body[1].encode())
        if state.models is None:
            return self._send(404, b'{"detail": "Not Found"}')
        if state.key and key != state.key:
            reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
            told = {"code": 400, "message": f"API key not valid: {key}", "details": [reason]}
            error = told if gemini else {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}
            return self._send(400 if gemini else 401, json.dumps({"error": error}).encode())
        if gemini:
            name = path.rpartition("/")[2]
            if name not in state.models:
                error = {"code": 404, "message": f"{name} is not found", "status": "NOT_FOUND"}
                return self._send(404, json.dumps({"error": error}).encode())
            return self._send(200, json.dumps({"name": f"models/{name}"}).encode())
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in state.models]
        return self._send(200, json.dumps({"object": "list", "data": data}).encode())

    def do_POST(self):
        state = self.state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        gemini = self.path.endswith(":generateContent")
        entry = (_read_gemini if gemini else _read_openai)(body)
        entry |= {"path": self.path, "body": body, "headers": {key.lower(): v for key, v in self.headers.items()}}
        with state.lock:
            nth = state.counts[entry["text"]]
            state.counts[entry["text"]] += 1
            state.at_once += 1
            state.most_at_once = max(state.most_at_once, state.at_once)
        try:
            with state.lock:
                state.log.append(entry)
            time.sleep(state.delay)
            if state.elsewhere:
                return self._send(307, b"")
            self._respond(entry["text"], state.plan(entry["text"], nth), gemini)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with state.lock:
                state.at_once -= 1

    def _respond(self, text: str, fault: str | None, gemini: bool):
        state = self.state
        if fault is not None and fault.isdigit():
            return self._send(int(fault), json.dumps(self._error(int(fault), gemini)).encode())
        with state.lock:
            state.billed.append(text)
        if fault == "time-out":
            time.sleep(state.hang)
        answer = state.answer(text)
        reply = {"bad text": "so it seems to me", "cut text": answer[: len(answer) // 2]}.get(fault, answer)
        data = json.dumps((_gemini if gemini else _openai)(reply, fault, state.version)).encode()
        if fault == "garbage":
            data = b"<html>not what you wanted</html>"
        if fault == "truncated":
            data = data[: len(data) // 2]
        return self._send(200, data, cut=fault == "drop")

    def _error(self, status: int, gemini: bool) -> dict:
        if status in self.state.errors:
            return self.state.errors[status]
        message = f"trouble {self.state.echo}"
        if gemini:
            return {"error": {"code": status, "message": message, "status": "TROUBLE", "details": []}}
        return {"error": {"message": message, "type": "trouble", "param": None, "code": None}}

    def _send(self, status: int, data: bytes, cut: bool = False):
        self.send_response(status)
        if self.state.elsewhere:
            self.send_header("Location", self.state.elsewhere + self.path)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429 and self.state.retry_after is not None:
            self.send_header("Retry-After", self.state.retry_after)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.wfile.flush()
        if cut:
            self.close_connection = True


def _read_gemini(body: dict) -> dict:
    parts = body["contents"][0]["parts"]
    blobs = [part["inlineData"] for part in parts if "inlineData" in part]
    # As protobuf's JSON, the API takes both spellings.
    images = [(blob.get("mimeType") or blob["mime_type"], _decode(blob["data"])) for blob in blobs]
    config = body.get("generationConfig", {})
    system = "".join(part["text"] for part in body.get("systemInstruction", {}).get("parts", []))
    return {
        "text": next(part["text"] for part in parts if "text" in part),
        "images": images,
        "system": system,
        "temperature": config.get("temperature"),
        "limit": config.get("maxOutputTokens"),
        "format": config.get("responseMimeType"),
        "schema": config.get("responseJsonSchema"),
    }


def _read_openai(body: dict) -> dict:
    user = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in user if part["type"] == "image_url"]
    images = [(url[5:].split(";")[0], base64.b64decode(url.split(",", 1)[1])) for url in urls]
    system = body["messages"][0]["content"] if body["messages"][0]["role"] == "system" else ""
    format_ = body.get("response_format", {})
    return {
        "text": next(part["text"] for part in user if part["type"] == "text"),
        "images": images,
        "system": system,
        "temperature": body.get("temperature"),
        "limit": body.get("max_tokens") or body.get("max_completion_tokens"),
        "format": format_.get("type"),
        "schema": format_.get("json_schema", {}).get("schema"),
    }


def _decode(data: str) -> bytes:
    return base64.b64decode(data.replace("-", "+").replace("_", "/"))


def _gemini(text: str, fault: str | None, version: str) -> dict:
    usage = {"promptTokenCount": TOKENS[0], "candidatesTokenCount": TOKENS[1], "totalTokenCount": sum(TOKENS)}
    reply = {"usageMetadata": usage, "modelVersion": version}
    if fault == "safety":
        return reply | {"promptFeedback": {"blockReason": "SAFETY"}}
    if fault == "refusal":
        return reply | {"candidates": [{"finishReason": "PROHIBITED_CONTENT", "index": 0}]}
    if fault == "no candidate":
        return reply | {"candidates": []}
    if fault == "thinking":
        usage |= {"candidatesTokenCount": 0, "thoughtsTokenCount": 61}
        return reply | {"candidates": [{"index": 0, "finishReason": "MAX_TOKENS", "content": {"role": "model"}}]}
    finish = "MAX_TOKENS" if fault == "cut text" else "STOP"
    content = {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": text}]}
    return reply | {"candidates": [{"content": content, "finishReason": finish, "index": 0}]}


def _openai(text: str, fault: str | None, version: str) -> dict:
    message = {"role": "assistant", "content": text}
    finish = "length" if fault == "cut text" else "stop"
    if fault == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "I will not look at this."}
    if fault == "safety":
        message, finish = {"role": "assistant", "content": ""}, "content_filter"
    usage = {"prompt_tokens": TOKENS[0], "completion_tokens": TOKENS[1], "total_tokens": sum(TOKENS)}
    if fault == "thinking":
        message, finish = {"role": "assistant", "content": None, "refusal": None}, "length"
        usage |= {"completion_tokens": 61, "completion_tokens_details": {"reasoning_tokens": 61}}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": version,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": usage,
    }  # fmt: skip
