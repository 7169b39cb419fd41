"""What a stage's Python has on a node: runs there, as `python -m promptecho.doctor.probe_look ASKED OUT`, and writes it
to OUT.

It imports torch only where GPUs were asked for, and else nothing that a stage's own environment may lack.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

from promptecho.envs.installed import compare
from promptecho.files import write_json


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """The facts about this Python; `asked` has the `environments` whose packages it is to have, by the names of what
    needs them, and `on_gpus`: whether jobs that it runs use some."""
    facts: dict[str, Any] = {
        "python_version": platform.python_version(), "gpus": [], "cuda": None,
        "packages": {name: compare(Path(file)) for name, file in asked["environments"].items()},
    }  # fmt: skip
    return facts | (_cuda() if asked["on_gpus"] else {})


def _cuda() -> dict[str, Any]:
    """The GPUs as torch sees them, bytes free and in all; `cuda` says why there are none."""
    try:
        import torch
    except ImportError as error:
        return {"cuda": f"torch cannot be imported ({error})"}
    if not torch.cuda.is_available():
        built = torch.version.cuda
        build = f"built for CUDA {built}" if built else "a CPU build"
        return {"cuda": f"torch {torch.__version__} sees no GPU ({build})"}
    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append({"name": torch.cuda.get_device_name(index), "free": free, "total": total})
    return {"cuda": f"CUDA {torch.version.cuda}", "gpus": gpus}


def main() -> None:
    write_json(Path(sys.argv[2]), look(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
