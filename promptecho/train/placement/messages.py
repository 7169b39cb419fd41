"""What trainers and reward servers send each other: JSON and raw pixels, nothing that runs code when it is read."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

from PIL import Image

from promptecho.train.data import TrainingPrompt
from promptecho.video import Video, frames_of


def send_json(connection: Connection, value: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(value).encode())


def receive_json(connection: Connection) -> dict[str, Any]:
    return json.loads(connection.recv_bytes())


def send_images(
    connection: Connection, images: list[Image.Image], prompts: list[TrainingPrompt], names: list[str]
) -> None:
    """One request: a header, then each image's pixels, or those of a video's frames."""
    rows = [
        {
            "size": image.size,
            "mode": image.mode,
            "frames": len(frames_of(image)),
            "prompt_id": prompt.prompt_id,
            "prompt": prompt.text,
            "name": name,
        }  # fmt: skip
        for image, prompt, name in zip(images, prompts, names, strict=True)
    ]
    send_json(connection, {"images": rows})
    for image in images:
        connection.send_bytes(b"".join(frame.tobytes() for frame in frames_of(image)))


def receive_images(
    connection: Connection, rows: list[dict[str, Any]]
) -> tuple[list[Image.Image], list[TrainingPrompt], list[str]]:
    """The rest of a request whose header held `rows`."""
    images = [_received(row, connection.recv_bytes()) for row in rows]
    return images, [TrainingPrompt(row["prompt_id"], row["prompt"]) for row in rows], [row["name"] for row in rows]


def _received(row: dict[str, Any], content: bytes) -> Image.Image:
    count = row["frames"]
    step = len(content) // count
    parts = [content[k * step : (k + 1) * step] for k in range(count)]
    frames = [Image.frombytes(row["mode"], tuple(row["size"]), part) for part in parts]
    return frames[0] if count == 1 else Video(frames)
