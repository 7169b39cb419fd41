"""The NVIDIA GPUs of this machine, without torch: which there are, and which this process may use."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from promptecho.errors import ConfigError, ModelError

VISIBLE = "CUDA_VISIBLE_DEVICES"
PROC = Path("/proc/driver/nvidia/gpus")
ASK_S = 120.0


@dataclass(frozen=True)
class CudaDevice:
    """What CUDA can be given alone: a GPU, or one of the MIG devices that a GPU is cut into.

    `index` is the GPU's place in `nvidia-smi -L`, which its MIG devices share.
    """

    index: int
    uuid: str
    name: str = ""


def detect(proc: Path = PROC) -> list[CudaDevice]:
    """All GPUs of this machine, by `nvidia-smi -L`, else by the driver's folder; empty without GPU or driver.

    Raises:
        ModelError: nvidia-smi does not answer.
    """
    command = shutil.which("nvidia-smi")
    if command is not None:
        try:
            done = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=ASK_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"{command} -L: no answer within {ASK_S:.0f} s; the driver hangs: reboot?") from error
        # It ends with an error where it is installed without a driver.
        return parse_list(done.stdout) if done.returncode == 0 else []
    found = []
    for index, file in enumerate(sorted(proc.glob("*/information"))):
        facts = dict(re.findall(r"^([^:\n]+):[ \t]*(.*?)[ \t]*$", file.read_text(), re.MULTILINE))
        if facts.get("GPU UUID"):
            found.append(CudaDevice(index, facts["GPU UUID"], facts.get("Model", "")))
    return found


def parse_list(text: str) -> list[CudaDevice]:
    """The output of `nvidia-smi -L`. Of a GPU that is cut into MIG devices, these count, not the GPU."""
    found: list[CudaDevice] = []
    cut: set[int] = set()
    index = -1
    for line in text.splitlines():
        if whole := re.fullmatch(r"GPU (\d+): (.*) \(UUID: (GPU-[\w-]+)\)", line.strip()):
            index = int(whole[1])
            found.append(CudaDevice(index, whole[3], whole[2]))
        elif part := re.fullmatch(r"(MIG .*?) +Device +\d+: \(UUID: (MIG-[\w/-]+)\)", line.strip()):
            cut.add(index)
            found.append(CudaDevice(index, part[2], part[1]))
    return [gpu for gpu in found if gpu.index not in cut or gpu.uuid.startswith("MIG-")]


def visible(environ: Mapping[str, str], gpus: list[CudaDevice]) -> list[CudaDevice]:
    """Those of `gpus` that CUDA_VISIBLE_DEVICES leaves: numbers of `nvidia-smi -L`, UUIDs, or beginnings of UUIDs.

    Raises:
        ConfigError: an entry names no GPU, or more than one.
    """
    given = environ.get(VISIBLE)
    if given is None or not gpus:
        return gpus
    chosen: list[CudaDevice] = []
    for word in filter(None, (part.strip() for part in given.split(","))):
        if word == "-1":  # what hides all that follows
            break
        found = [gpu for gpu in gpus if (gpu.index == int(word) if word.isdecimal() else gpu.uuid.startswith(word))]
        if len(found) != 1:
            there = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in gpus)
            problem = "names no GPU" if not found else "names more than one GPU"
            raise ConfigError(f"{VISIBLE}={given}: {word} {problem}; there are: {there}")
        chosen += [gpu for gpu in found if gpu not in chosen]
    return chosen
