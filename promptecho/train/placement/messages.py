"""What trainers and reward servers send each other: JSON and raw pixels, nothing that runs code when it is read."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

from PIL import Image

from promptecho.train.data import TrainingPrompt


def send_json(connection: Connection, value: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(value).encode())


def receive_json(connection: Connection) -> dict[str, Any]:
    return json.loads(connection.recv_bytes())


def send_images(
    connection: Connection, images: list[Image.Image], prompts: list[TrainingPrompt], names: list[str]
) -> None:
    """One request: a header, then each image's pixels."""
    rows = [
        {"size": image.size, "mode": image.mode, "prompt_id": prompt.prompt_id, "prompt": prompt.text, "name": name}
        for image, prompt, name in zip(images, prompts, names, strict=True)
    ]
    send_json(connection, {"images": rows})
    for image in images:
        connection.send_bytes(image.tobytes())


def receive_images(
    connection: Connection, rows: list[dict[str, Any]]
) -> tuple[list[Image.Image], list[TrainingPrompt], list[str]]:
    """The rest of a request whose header held `rows`."""
    images = [Image.frombytes(row["mode"], tuple(row["size"]), connection.recv_bytes()) for row in rows]
    return images, [TrainingPrompt(row["prompt_id"], row["prompt"]) for row in rows], [row["name"] for row in rows]
