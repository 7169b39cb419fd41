"""A stand-in for a server that captions, as fast as Python can answer: it looks at no image.

    python perf/caption_stand_in.py --port 8000

Its caption is made from the request's hash, about 120 words long. `GET /asked` tells how many captions it was asked for
and how many different requests these were.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json

WORDS = "a red wooden table stands beside the large window with soft light falling across a floor where one cat sleeps"
CAPTION = " ".join([WORDS] * 6)


class StandIn(asyncio.Protocol):
    """One connection: requests come one after another, each with its Content-Length."""

    asked = 0
    different: set[bytes] = set()

    def __init__(self) -> None:
        self.data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (head := self.data.find(b"\r\n\r\n")) >= 0:
            lines = bytes(self.data[:head]).lower().split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
            if len(self.data) < head + 4 + length:
                return
            body = bytes(self.data[head + 4 : head + 4 + length])
            del self.data[: head + 4 + length]
            self.answer(lines[0], body)

    def answer(self, request: bytes, body: bytes) -> None:
        kind = type(self)
        if request.startswith(b"post"):
            found = hashlib.sha256(body).digest()
            kind.asked += 1
            kind.different.add(found[:16])
            message = {"role": "assistant", "content": f"{CAPTION} {found.hex()[:12]}"}
            reply = {
                "id": "1", "object": "chat.completion", "created": 1, "model": "stand-in",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 300, "completion_tokens": 150, "total_tokens": 450},
            }  # fmt: skip
        elif request.startswith(b"get /asked"):
            reply = {"asked": kind.asked, "different": len(kind.different)}
        else:
            reply = {"object": "list", "data": [{"id": "stand-in", "object": "model", "created": 0, "owned_by": ""}]}
        data = json.dumps(reply).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.transport.write(head.encode() + data)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(StandIn, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))
