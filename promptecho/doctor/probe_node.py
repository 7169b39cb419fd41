"""What a node of the cluster sees: runs there, as `python -m promptecho.doctor.probe_node`, and writes it to a file.

Its report has its final name when it is complete. What the Pythons of the stages have, these say (`probe_look.py`).
"""

from __future__ import annotations

import json
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
from promptecho.doctor.places import file_system
from promptecho.errors import DataError
from promptecho.files import read_json, write_json

NONCE = "nonce.json"
ASKED = "asked.json"
EXCHANGE = "exchange.json"
EXCHANGE_S = 300
LOOK_S = 120  # that one Python has
LOOKS_S = 240  # that all have: with the exchange, less than the ten minutes of the job, so that something is told
NO_TIME = "no time left"


def report(folder: Path) -> dict[str, Any]:
    """The facts about this node; `folder` is that of the probe, which the host that submits has made."""
    asked = read_json(folder / ASKED)
    temporary = Path(os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir())
    facts: dict[str, Any] = {
        "host": socket.gethostname(), "python": sys.executable, "python_version": platform.python_version(),
        "promptecho": __version__, "nonce": read_json(folder / NONCE)["nonce"],
        "file_system": file_system(folder), "disk": str(temporary), "disk_kind": file_system(temporary),
        "disk_free": shutil.disk_usage(temporary).free, "exchange": None,
    }  # fmt: skip
    looks, end = [], time.monotonic() + LOOKS_S
    for number, one in enumerate(asked["pythons"]):
        out = folder / f"look-{facts['host']}-{number}.json"
        looks.append(one | _seen_by(one["python"], one, out, min(LOOK_S, end - time.monotonic())))
    # One on GPUs is enough; the first has the largest jobs.
    if (first := next((look for look in looks if look["gpus"]), None)) is not None:
        facts["exchange"] = exchange(folder, len(first["gpus"]), python=first["python"])
    return facts | {"looks": looks}


def _seen_by(python: str, asked: dict[str, Any], out: Path, seconds: float) -> dict[str, Any]:
    """What a Python finds (`probe_look`) in so many seconds, started as a job of its stage; `error` says why it does
    not, NO_TIME where it did not have LOOK_S."""
    programs = os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", "")])
    command = [python, "-m", "promptecho.doctor.probe_look", json.dumps(asked), str(out)]
    try:
        done = subprocess.run(
            command, env=os.environ | {"PATH": programs}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=max(seconds, 0.0),
        )  # fmt: skip
        if not done.returncode:
            return read_json(out)
        error = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        error = f"no answer within {LOOK_S} s" if seconds >= LOOK_S else NO_TIME
    except (OSError, DataError) as trouble:
        error = str(trouble)
    return {"error": error, "packages": {}, "gpus": [], "cuda": None}


def exchange(folder: Path, ranks: int, backend: str = "nccl", python: str = sys.executable) -> dict[str, Any]:
    """Let one process for each GPU of all the job's nodes add up a tensor, and measure how fast."""
    node, nodes = int(os.environ.get("SLURM_NODEID", 0)), int(os.environ.get("SLURM_NNODES", 1))
    host = first_host(os.environ["SLURM_STEP_NODELIST"]) if nodes > 1 else "127.0.0.1"
    port = FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % 1000
    out = folder / EXCHANGE
    command = [python, "-m", "promptecho.doctor.all_reduce", backend, str(out)]
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
