"""The demo's results as an earlier version left them, as a small archive: what a newer one must not make again.

    python tests/workflow/finished_demo.py CHECKOUT   # after `make demo` there: writes finished_demo.tar.xz beside this

Kept are the declared outputs with their times of change, as stand-ins of one byte where their content does not matter,
what Snakemake recorded of them, the experiment's file as it was, and the resolved configuration. Images and tensors are
not.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).with_name("finished_demo.tar.xz")
EXPERIMENT = "config/experiments/shapes.yaml"
# Read by the workflow before it plans: what states are bound to.
WHOLE = ("config/*.yaml", "captions/captions.h5", "captions/heldout.jsonl", "runs/*/*/state/state.json")
LEFT_OUT = ("work", "logs", "timings", "tensorboard")
SUFFIXES = (".json", ".jsonl", ".h5", ".yaml", ".md", ".csv", ".tex", ".safetensors", ".pdf")


def pack(checkout: Path, archive: Path = ARCHIVE) -> None:
    """Write the archive of a checkout's finished demo."""
    results = checkout / "results/shapes"
    whole = {path for pattern in WHOLE for path in results.glob(pattern)}
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(checkout / EXPERIMENT, EXPERIMENT)
        for path in sorted([*results.rglob("*"), *(checkout / ".snakemake/metadata").rglob("*")]):
            inside = path.relative_to(results) if path.is_relative_to(results) else None
            parts = inside.parts if inside is not None else ("",)
            if parts[0] in LEFT_OUT or parts[0] == "images" and len(parts) > 4 and parts[4] != "shards":
                continue
            kept = path.is_dir() or inside is None or path.suffix in SUFFIXES or path.name == ".snakemake_timestamp"
            if not kept and path.parent.name != "figures":
                continue
            entry = tar.gettarinfo(path, str(path.relative_to(checkout)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            content = path.read_bytes() if path in whole or inside is None and path.is_file() else b"-"
            if inside is None:
                content = content.replace(str(checkout).encode(), b"/checkout")
            entry.size = 0 if path.is_dir() else len(content)
            tar.addfile(entry, None if path.is_dir() else io.BytesIO(content))


def unpack(root: Path) -> None:
    """Put the finished demo into a checkout."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(root, filter="fully_trusted")  # of this repository; other filters drop times of folders


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
