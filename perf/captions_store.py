"""Captions in our HDF5 file beside a Parquet file (pyarrow): write, read all, read some random rows; time and memory.

    python perf/captions_store.py --captions 1000000 --rounds 3 --parquet DIR --out captions.json

`--parquet`: a folder into which pyarrow was installed (`pip install --target DIR pyarrow`), "" where it is installed
anyway; without it only ours is measured. Every measurement is a process of its own; both sides end with the file synced
to the disk. Ratios compare processes of one round, whose order alternates.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from promptecho.bench.report import spread

WORDS = "a the red blue wooden table stands beside large window with soft light falling across floor while cat sleeps"
SOURCE = ("Qwen/Qwen3-VL-32B-Instruct", "files-0", "Describe this image in detail.", {"seed": 0})
RANDOM = 100  # rows


def rows(count: int) -> list[tuple[str, str, int, str, str]]:
    """Captions of 90 to 200 words with the other columns of a shard."""
    rng, words = random.Random(0), WORDS.split()
    texts = [" ".join(rng.choice(words) for _ in range(rng.randint(90, 200))) for _ in range(2000)]
    return [
        (f"{k // 1000:05d}/{k:09d}.jpg", f"{texts[k % 2000]} {k}", 230, "stop", hashlib.sha256(b"%d" % k).hexdigest())
        for k in range(count)
    ]


def peak() -> float:
    """Largest resident memory of this process so far, in GB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e6


def wanted(count: int) -> list[int]:
    return random.Random(1).sample(range(count), min(RANDOM, count))


class Ours:
    """Our file. `read` is what every rank of a training does: all captions checked, none kept."""

    suffix = "h5"

    def write(self, path: Path, made: Sequence[tuple[str, str, int, str, str]]) -> None:
        from promptecho.captions.store import CaptionRow, CaptionSource, write_captions

        write_captions(path, CaptionSource(*SOURCE), [CaptionRow(*row) for row in made], merge={})

    def read(self, path: Path) -> int:
        from promptecho.captions.store import load_training_captions

        return len(load_training_captions(path))

    def texts(self, path: Path) -> int:
        from promptecho.captions.store import load_training_captions

        return sum(map(len, (caption.text for caption in load_training_captions(path, check=False))))

    def random(self, path: Path, indices: list[int]) -> int:
        from promptecho.captions.store import load_training_captions

        captions = load_training_captions(path, check=False)
        return sum(len(captions[index].text) for index in indices)


class Parquet:
    suffix = "parquet"
    names = ("image_id", "caption", "n_tokens", "finish_reason", "image_sha256")

    def write(self, path: Path, made: Sequence[tuple[str, str, int, str, str]]) -> None:
        import pyarrow
        import pyarrow.parquet

        columns = dict(zip(self.names, map(list, zip(*made, strict=True)), strict=True))
        pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd", row_group_size=10_000)
        with open(path, "rb") as file:
            os.fsync(file.fileno())

    def read(self, path: Path) -> int:
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).num_rows

    def texts(self, path: Path) -> int:
        import pyarrow.parquet

        return sum(map(len, pyarrow.parquet.read_table(path, columns=["caption"]).column(0).to_pylist()))

    def random(self, path: Path, indices: list[int]) -> int:
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(path)
        found = 0
        for index in indices:
            group = file.read_row_group(index // 10_000, columns=["caption"])
            found += len(group.column(0)[index % 10_000].as_py())
        return found


SIDES: dict[str, Ours | Parquet] = {"ours": Ours(), "parquet": Parquet()}
TASKS = ("write", "read", "texts", "random")


def measure(side: str, task: str, count: int, folder: Path) -> dict[str, Any]:
    """One measurement, in this process: seconds, CPU seconds, memory beyond what there was before, in GB."""
    chosen = SIDES[side]
    path = folder / f"captions.{chosen.suffix}"
    tasks: dict[str, Callable[[], Any]] = {
        "read": lambda: chosen.read(path),
        "texts": lambda: chosen.texts(path),
        "random": lambda: chosen.random(path, wanted(count)),
    }
    if task == "write":
        made = rows(count)
        tasks["write"] = lambda: chosen.write(path, made)
    __import__("h5py" if side == "ours" else "pyarrow.parquet")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, started, cpu = peak(), time.perf_counter(), time.process_time()
    result = tasks[task]()
    return {
        "side": side, "task": task, "seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu,
        "peak_gb": peak() - before, "result": result, "mb": path.stat().st_size / 1e6,
    }  # fmt: skip


def report(found: list[dict[str, Any]], sides: list[str]) -> str:
    lines = []
    for task in TASKS:
        for side in sides:
            mine = [one for one in found if (one["task"], one["side"]) == (task, side)]
            parts = [f"{key} {spread([one[key] for one in mine])}" for key in ("seconds", "cpu_s", "peak_gb")]
            if side != "ours":
                ours = [one for one in found if (one["task"], one["side"]) == (task, "ours")]
                ratios = [one["seconds"] / own["seconds"] for one, own in zip(mine, ours, strict=True)]
                parts.append(f"{side} / ours {spread(ratios)}, n = {len(ratios)}")
            lines.append(f"{task:7s} {side:8s} {'; '.join(parts)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parquet", help='folder with pyarrow, or ""; without it only ours is measured')
    parser.add_argument("--folder", type=Path, help="where the files are written; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON file of all measurements")
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "TASK"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one, given.captions, given.folder)))
        return
    sides = ["ours"] if given.parquet is None else ["ours", "parquet"]
    found = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for number in range(given.rounds):
            for task in TASKS:
                for side in sides[:: 1 - 2 * (number % 2)]:
                    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), given.parquet]))
                    command = [sys.executable, __file__, "--captions", str(given.captions), "--folder", folder]
                    done = subprocess.run(
                        [*command, "--one", side, task], capture_output=True, text=True, check=True,
                        env=os.environ | {"PYTHONPATH": path},
                    )  # fmt: skip
                    found.append(json.loads(done.stdout) | {"round": number})
    print(report(found, sides))
    if given.out:
        given.out.write_text(json.dumps({"captions": given.captions, "measurements": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
