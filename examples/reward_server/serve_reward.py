"""A server that gives rewards by the protocol of docs/rewards.md, around any reward of the project.

    python examples/reward_server/serve_reward.py --reward echo --vlm shapes --port 8123

It is the reference of the protocol: standard library but for the reward itself. Requests are answered one after the
other, since they share the model.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import hmac
import io
import json
import math
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

PROTOCOL = 1
LARGEST = 256 * 2**20  # bytes of a request


class Refused(Exception):  # noqa: N818
    """A request that is at fault; `item` is the index of the image that is."""

    def __init__(self, message: str, item: int | None = None):
        super().__init__(message)
        self.item = item


def read_items(body: object) -> tuple[int, list[tuple[Image.Image, str, str]]]:
    """The seed of a request, and (image, prompt, prompt id) of each of its items."""
    if not isinstance(body, dict) or body.get("protocol") != PROTOCOL:
        found = body.get("protocol") if isinstance(body, dict) else None
        raise Refused(f"protocol {found!r}: this server speaks {PROTOCOL}")
    found = []
    for index, item in enumerate(body.get("items") or []):
        try:
            data = base64.b64decode(item["image"], validate=True)
            image = Image.open(io.BytesIO(data)).convert("RGB")
            image.info["path"] = str(item.get("name", index))
            found.append((image, str(item["prompt"]), str(item["prompt_id"])))
        except (KeyError, TypeError, OSError, binascii.Error) as error:
            raise Refused(f"item {index}: {type(error).__name__}: {error}", index) from None
    return int(body.get("seed", 0)), found


class Handler(BaseHTTPRequestHandler):
    """GET /rewards says who is here; POST /rewards gives rewards."""

    protocol_version = "HTTP/1.1"
    make = None  # seed -> function of (images, prompts, prompt ids) that gives numbers
    reward = ""
    key = ""
    lock = threading.Lock()

    def do_GET(self):
        if not self._allowed():
            return
        if self.path != "/rewards":
            return self._send(404, {"error": f"no {self.path} here; ask /rewards"})
        self._send(200, {"protocol": PROTOCOL, "reward": self.reward})

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length > LARGEST:
            self.close_connection = True
            return self._send(413, {"error": f"more than {LARGEST} bytes; lower batch_size"})
        raw = self.rfile.read(length)
        if not self._allowed():
            return
        if self.path != "/rewards":
            return self._send(404, {"error": f"no {self.path} here; post to /rewards"})
        try:
            seed, items = read_items(json.loads(raw))
            images, prompts, ids = ([item[column] for item in items] for column in range(3))
            with self.lock:
                values = [float(value) for value in type(self).make(seed)(images, prompts, ids)] if items else []
        except Refused as error:
            more = {} if error.item is None else {"item": error.item}
            return self._send(400, {"error": str(error), **more})
        except ValueError as error:
            return self._send(400, {"error": f"no JSON, or a text that the reward cannot take: {error}"})
        except Exception as error:  # whatever it is, the client must hear of it
            index = getattr(error, "index", None)
            status = 500 if isinstance(error, (MemoryError, RuntimeError)) else 400
            return self._send(status, {"error": f"{error}", **({} if index is None else {"item": index})})
        rewards = [value if math.isfinite(value) else None for value in values]
        self._send(200, {"protocol": PROTOCOL, "reward": self.reward, "rewards": rewards})

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if not self.key or hmac.compare_digest(given.encode(), f"Bearer {self.key}".encode()):
            return True
        self._send(401, {"error": "no key, or a wrong one"})
        return False

    def _send(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def make_server(make, reward: str, host: str, port: int, key: str = "") -> ThreadingHTTPServer:
    """A server that is not running yet.

    Args:
        make: called with a request's seed; returns a function of (images, prompts, prompt ids) that gives numbers.
        reward: what it calls itself.
        port: 0 takes a free one; `server.server_address` says which.
    """
    handler = type("RewardHandler", (Handler,), {"make": staticmethod(make), "reward": reward, "key": key})
    return ThreadingHTTPServer((host, port), handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reward", default="echo", help="a reward of the project, or of --config's plugins")
    parser.add_argument("--config", help="experiment file, whose first entry of that reward has the settings")
    parser.add_argument("--vlm", help="folder or hub id of its VLM, `shapes` or `gallery`; none for one without")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--query", help="what the VLM is asked")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: all that reach this machine may ask")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--key-env", help="environment variable with the key that requests must bring")
    given = parser.parse_args()

    import functools

    import torch

    from promptecho.cluster.device import choose_device
    from promptecho.config import load_experiment
    from promptecho.rewards import RewardContext, make_reward
    from promptecho.vlm import load_vlm

    entries = load_experiment(given.config).rewards if given.config else []
    options = next((entry.options for entry in entries if entry.name == given.reward), None)
    device = choose_device(given.device)
    vlm = load_vlm(given.vlm, dtype=given.dtype, device=device) if given.vlm else None
    query = {"query": given.query} if given.query else {}

    @functools.lru_cache(maxsize=4)
    def make(seed: int):
        return make_reward(given.reward, RewardContext(
            vlm=vlm, device=torch.device(device), options=options, batch_size=given.batch_size, seed=seed, **query
        ))  # fmt: skip

    make(0)  # what is wrong with it is said before anybody asks
    name = " by ".join(filter(None, (given.reward, given.vlm)))
    key = os.environ.get(given.key_env, "").strip() if given.key_env else ""
    if given.key_env and not key:
        sys.exit(f"--key-env {given.key_env}: the variable is not set")
    with make_server(make, name, given.host, given.port, key) as server:
        host, port = server.server_address[:2]
        print(f"{name}: http://{host}:{port}/rewards", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
