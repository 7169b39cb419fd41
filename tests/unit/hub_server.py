"""A model hub on loopback that speaks the real one's API as far as huggingface_hub asks for it; and its misfortunes."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")  # kept as LFS, so described by SHA-256


class Hub:
    """Serves `repositories` {"owner/name": {name: content}}, each with one commit, also called `main`.

    `asked` lists (method, path) of every request but those for `/`, which `probed` counts; `tokens` what came as
    authorization. `cut` {name: bytes} ends the connection once after so many bytes; `stall` {name: bytes} sends so many
    and then nothing until `close`; `served` {name: content} replaces what is sent, not what is described; `gated` names
    refuse everybody.
    """

    def __init__(self, repositories: dict[str, dict[str, bytes]]):
        self.repositories = repositories
        self.asked: list[tuple[str, str]] = []
        self.probed = 0
        self.tokens: set[str] = set()
        self.cut: dict[str, int] = {}
        self.stall: dict[str, int] = {}
        self.served: dict[str, bytes] = {}
        self.gated: set[str] = set()
        self.stalled, self._closing = threading.Event(), threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = unquote(urlsplit(self.path).path)
                if path == "/":  # whether anybody is here
                    hub.probed += 1
                    self.send_error(404)
                    return
                hub.asked.append((self.command, path))
                hub.tokens.add(self.headers.get("Authorization", ""))
                try:
                    hub._answer(self, path)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def commit(self, name: str) -> str:
        files = self.repositories[name]
        return hashlib.sha1(repr([name, sorted(files.items())]).encode()).hexdigest()

    def downloads(self) -> list[str]:
        """Names of the files that were sent, or begun."""
        return [path.split("/resolve/")[1].split("/", 1)[1] for how, path in self.asked
                if how == "GET" and "/resolve/" in path]  # fmt: skip

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self.http.shutdown()
        self.http.server_close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _answer(self, request: BaseHTTPRequestHandler, path: str) -> None:
        parts = path.strip("/").removeprefix("api/models/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if name not in self.repositories:
            return self._refuse(request, 404, "RepoNotFound")
        if name in self.gated:
            return self._refuse(request, 403, "GatedRepo")
        commit, files = self.commit(name), self.repositories[name]
        if len(rest) > 1 and rest[1] not in ("main", commit):
            return self._refuse(request, 404, "RevisionNotFound")
        if path.startswith("/api/"):
            tree = rest[:1] == ["tree"]
            body = [_entry(*item) for item in files.items()] if tree else {"id": name, "sha": commit, "siblings": []}
            return self._send(request, json.dumps(body).encode(), {"Content-Type": "application/json"})
        file = "/".join(rest[2:])
        if rest[:1] != ["resolve"] or file not in files:
            return self._refuse(request, 404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        headers["ETag"] = f'"{_etag(file, files[file])}"'
        return self._send(request, self.served.get(file, files[file]), headers, file)

    def _refuse(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        request.send_response(status)
        request.send_header("X-Error-Code", code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _send(self, request: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str], file: str = "") -> None:
        start = 0
        if (wanted := request.headers.get("Range")) and request.command == "GET":
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        request.send_response(206 if start else 200)
        for key, value in {**headers, "Content-Length": str(len(body) - start)}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        limit = self.cut.pop(file, self.stall.get(file))
        request.wfile.write(body[start:] if limit is None else body[start:limit])
        if limit is not None:
            request.wfile.flush()
            if file in self.stall:
                self.stalled.set()
                self._closing.wait()
            request.close_connection = True


def folder_files(folder: Path) -> dict[str, bytes]:
    """A folder's files by name, as a repository has them."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _etag(name: str, content: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict:
    entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": _etag(name, content), "size": len(content), "pointerSize": 130}
    else:
        entry["oid"] = _etag(name, content)
    return entry
