"""Random models of real size and a configuration of the shipped Z-Image experiment with them, for `all.py`.

    python perf/gpu/prepare.py --folder /scratch/random-models            # 39 GB of disk
    python perf/gpu/prepare.py --tiny --folder /tmp/random-models

Models and sizes are those of `train_zimage.py`. What is in the folder already stays, and its row says so.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import models
import torch
from train_zimage import write_config

from promptecho.bench.peak import machine
from promptecho.cluster.device import choose_device

CONFIG = "measured.yaml"
MODELS = {"zimage": models.zimage, "qwen3vl-8b": models.qwen3vl}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=Path, help="JSON Lines file for how long it took.")
    arguments = parser.parse_args()
    device = torch.device(choose_device(arguments.device))
    dtype = "bfloat16" if device.type == "cuda" else "float32"
    prefix, folder = "tiny-" if arguments.tiny else "", arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tell(arguments.rows, {"facts": machine(device)})
    paths = []
    for name, make in MODELS.items():
        begun, path = time.perf_counter(), folder / f"{prefix}{name}"
        was_there = path.is_dir()
        paths.append(make(path, device, getattr(torch, dtype), tiny=arguments.tiny))
        gb = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e9
        if was_there:
            tell(arguments.rows, {"what": f"random {name} was there already, {gb:.3g} GB"})
        else:
            taken = time.perf_counter() - begun
            tell(arguments.rows, {"what": f"random {name} written, {gb:.3g} GB", "seconds": [taken]})
    asked = argparse.Namespace(
        tiny=arguments.tiny, iterations=2, prompts=2, images_per_prompt=2, batch_size=4, changes=[]
    )
    write_config(asked, folder, *paths, dtype)


def tell(rows: Path | None, row: dict[str, Any]) -> None:
    """Write a row at once, where they are asked for."""
    if rows is not None:
        with rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
