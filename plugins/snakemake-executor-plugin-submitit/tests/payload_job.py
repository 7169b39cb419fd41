"""A payload in a process of its own, as the batch script starts it; Slurm's commands are scripts in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RUN = """
import pickle, signal, sys
payload = pickle.load(open(sys.argv[1], "rb"))
signal.signal(signal.SIGUSR2, lambda *_: payload.checkpoint())
payload()
"""


class Job:
    """`squeue` and `scontrol` are shell scripts that answer for Slurm; without them its commands are missing."""

    def __init__(
        self, folder: Path, command: str, outputs: list[str] = (), *, squeue: str = "", scontrol: str = "", **options
    ):
        import cloudpickle

        import snakemake_executor_plugin_submitit.submission  # noqa: F401  pickles the payload by value
        from snakemake_executor_plugin_submitit.payload import JobPayload

        self.folder = folder
        options = {"signal_delay_s": 22, "requeue_limit": 1, "workdir": str(folder), **options}
        payload = JobPayload(command, "smk.test", list(outputs), folder=str(folder), **options)
        (folder / "payload.pkl").write_bytes(cloudpickle.dumps(payload))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        for name, script in {"squeue": squeue, "scontrol": scontrol}.items():
            if script:
                (folder / "bin").mkdir(exist_ok=True)
                (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
                (folder / "bin" / name).chmod(0o755)
        environment["PATH"] = f"{folder / 'bin'}:/usr/bin:/bin" if squeue or scontrol else environment["PATH"]
        # No checkout on the path: the pickle stands for itself.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", RUN, str(folder / "payload.pkl")],
            cwd="/", env={**environment, "SLURM_JOB_ID": "12", "SLURMD_NODENAME": "n7"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def ask_to_leave(self) -> None:
        """Once the command has made the file `ready`."""
        while not (self.folder / "ready").exists():
            assert self.process.poll() is None, self.end()
            time.sleep(0.05)
        os.kill(self.process.pid, signal.SIGUSR2)

    def end(self) -> tuple[int, str]:
        text, _ = self.process.communicate(timeout=300)
        return self.process.returncode, text

    @property
    def outcome(self) -> dict | None:
        path = self.folder / "12.outcome.json"
        return json.loads(path.read_text()) if path.exists() else None

    @property
    def requeues(self) -> list[dict]:
        path = self.folder / "12.requeues"
        return json.loads(path.read_text()) if path.exists() else []
