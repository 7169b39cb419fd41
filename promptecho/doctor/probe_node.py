"""What a node of the cluster sees: runs there, as `python -m promptecho.doctor.probe_node`, and writes it to a file.

Its report has its final name when it is complete. It imports torch only where GPUs were asked for.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from promptecho import __version__
from promptecho.cluster.slurm_env import FIRST_PORT, first_host
from promptecho.doctor.packages import compare
from promptecho.doctor.places import file_system
from promptecho.files import read_json, write_json

NONCE = "nonce.json"
ASKED = "asked.json"
EXCHANGE = "exchange.json"
EXCHANGE_S = 300


def report(folder: Path) -> dict[str, Any]:
    """The facts about this node; `folder` is that of the probe, which the host that submits has made."""
    asked = read_json(folder / ASKED)
    temporary = Path(os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir())
    facts: dict[str, Any] = {
        "host": socket.gethostname(), "python": sys.executable, "python_version": platform.python_version(),
        "promptecho": __version__, "nonce": read_json(folder / NONCE)["nonce"],
        "file_system": file_system(folder), "disk": str(temporary), "disk_kind": file_system(temporary),
        "disk_free": shutil.disk_usage(temporary).free, "gpus": [], "cuda": None, "exchange": None,
        "packages": {name: compare(Path(file)) for name, file in asked["environments"].items()},
    }  # fmt: skip
    if asked["gpus"]:
        facts |= _cuda()
        if facts["gpus"]:
            facts["exchange"] = exchange(folder, len(facts["gpus"]))
    return facts


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


def exchange(folder: Path, ranks: int, backend: str = "nccl") -> dict[str, Any]:
    """Let one process for each GPU of all the job's nodes add up a tensor, and measure how fast."""
    node, nodes = int(os.environ.get("SLURM_NODEID", 0)), int(os.environ.get("SLURM_NNODES", 1))
    host = first_host(os.environ["SLURM_STEP_NODELIST"]) if nodes > 1 else "127.0.0.1"
    port = FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % 1000
    out = folder / EXCHANGE
    command = [sys.executable, "-m", "promptecho.doctor.all_reduce", backend, str(out)]
    started = []
    for local in range(ranks):
        place = {"RANK": node * ranks + local, "WORLD_SIZE": nodes * ranks, "LOCAL_RANK": local, "MASTER_PORT": port}
        environment = os.environ | {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": host}
        started.append(subprocess.Popen(command, env=environment))
    end, codes = time.monotonic() + EXCHANGE_S, []
    try:
        codes = [process.wait(max(end - time.monotonic(), 0.1)) for process in started]
    except subprocess.TimeoutExpired:
        return {"error": f"the ranks did not end within {EXCHANGE_S} s"}
    finally:
        for process in started:
            process.kill()
    if any(codes):
        return {"error": f"ranks ended with exit codes {codes}; the log of the probe says why"}
    return read_json(out) if node == 0 else {"ranks": nodes * ranks}


def main() -> None:
    """`probe_node FOLDER`: write FOLDER/node-HOST.json."""
    folder = Path(sys.argv[1])
    facts = report(folder)
    write_json(folder / f"node-{facts['host']}.json", facts | {"time": time.time()})


if __name__ == "__main__":
    main()
