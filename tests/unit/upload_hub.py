"""A model hub on loopback that takes uploads, as far as huggingface_hub asks for it; safetensors and PNG go by LFS."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".png")


class UploadHub:
    """`repositories` {"owner/name": {name: content}}; `commits` counts them, `tokens` is what came as authorization.

    `refuse`: (part of a path, status, message) of requests that fail.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits = 0
        self.tokens: set[str] = set()
        self.private: dict[str, bool] = {}
        self.refuse: tuple[str, int, str] | None = None
        self._objects: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not path.startswith("/objects/"):  # where they are sent to is known to those who were told
                    hub.tokens.add(self.headers.get("Authorization", ""))
                status, answer = hub._answer(self.command, path, body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if status >= 400:
                    self.send_header("X-Error-Message", answer.get("error", ""))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_POST = do_PUT = do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> UploadHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict | list]:
        if self.refuse is not None and self.refuse[0] in path:
            return self.refuse[1], {"error": self.refuse[2]}
        if path.startswith("/objects/"):
            oid = path.removeprefix("/objects/")
            assert hashlib.sha256(body).hexdigest() == oid
            self._objects[oid] = body
            return 200, {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.repositories:
                return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
            self.repositories[name] = {".gitattributes": b"*.safetensors filter=lfs\n"}
            self.private[name] = asked.get("visibility") == "private"
            return 200, {"url": f"{self.url}/{name}", "id": name, "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.url}/objects/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        parts = path.removeprefix("/api/models/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        files = self.repositories[name]
        if rest[:1] == ["tree"]:
            return 200, [
                {"type": "file", "path": one, "size": len(text), "oid": "0" * 40} for one, text in files.items()
            ]
        if rest[:1] == ["preupload"]:
            return 200, {
                "files": [
                    {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                     "shouldIgnore": False}
                    for one in json.loads(body)["files"]
                ]
            }  # fmt: skip
        if rest[:1] == ["commit"]:
            self.commits += 1
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                elif row["key"] == "lfsFile":
                    files[row["value"]["path"]] = self._objects[row["value"]["oid"]]
            oid = hashlib.sha1(repr(sorted(files)).encode()).hexdigest()
            return 200, {
                "success": True,
                "commitOid": oid,
                "commitUrl": f"{self.url}/{name}/commit/{oid}",
                "hookOutput": "",
            }
        siblings = [{"rfilename": one} for one in files]
        return 200, {"id": name, "sha": "0" * 40, "private": self.private[name], "siblings": siblings}
