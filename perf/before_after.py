"""Commands of this checkout beside those of an earlier one, in pairs: seconds, CPU seconds, largest memory.

    git worktree add /tmp/before v0.1.0
    python perf/before_after.py merge --before /tmp/before --shards 1000 --items 1000 --rounds 2
    python perf/before_after.py tables --before /tmp/before --shards 200 --items 2212 --rounds 3
    python perf/before_after.py start --before /tmp/before --rounds 10

`merge` merges `--shards` caption shards of `--items` captions, each side its own shards; `tables` makes tables from
`--shards` score files of `--items` items (`--example`: a finished score file), and compares what comes out, byte
for byte; `start` stops commands where their work begins, on a copy of the finished demo (`--demo`), and starts
Snakemake as a Slurm job does, without the command in it: `inside a job`, and for one bare rule. `--cases` picks some.
Every run is a process of its own; the order alternates.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptecho.bench.report import significant

ROOT = Path(__file__).resolve().parent.parent
SHARDS = """
import hashlib, sys
from promptecho.captions.store import CaptionRow, CaptionSource, write_captions
folder, shards, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
text = " ".join(["word"] * 170)
for s in range(shards):
    names = range(s, shards * each, shards)
    rows = [CaptionRow(f"{i:09d}", f"{text} {i}", 230, "stop", hashlib.sha256(b"%d" % i).hexdigest()) for i in names]
    source = CaptionSource("v", "files-0", "q", {"seed": 0})
    write_captions(f"{folder}/{s:05d}.h5", source, rows, shard=(s, shards))
"""
MERGE = """
import glob, sys
from pathlib import Path
from promptecho.captions.merge import MergeSpec, merge_shards
shards = sorted(glob.glob(sys.argv[1] + "/*.h5"))
merge_shards(shards, MergeSpec(out=Path(sys.argv[2], "c.h5"), heldout_out=Path(sys.argv[2], "h.jsonl"), heldout=2000))
"""
COMMIT = b'"git_commit"'
DEMO = "results/shapes"
CAPTIONS = f"--captions {DEMO}/captions/captions.h5 --heldout {DEMO}/captions/heldout.jsonl"
PROMPTS = f"--prompts {DEMO}/prompts/dpg/metadata.jsonl"
# Where the work of a command begins, and the command, whose words hold no spaces.
STARTS = {
    "version": ("", "--version"),
    "tables": (
        "promptecho.tables.collect:read_score_files",
        f"tables --table dpg --benchmark dpg --scores {DEMO}/scores/dpg/base/0.json --out o",
    ),
    "score": (
        "promptecho.benchmarks.packing:unpacked",
        f"score --config config.yaml --benchmark dpg --images {DEMO}/images/base/0/dpg {PROMPTS} --experiment e"
        " --run base --step 0 --out 0.json",
    ),
    "caption merge": (
        "promptecho.captions.merge:merge_shards",
        f"caption merge {DEMO}/captions/shards/00000.h5 --config config.yaml --out c.h5 --heldout-out h.jsonl",
    ),
    "caption shard": (
        "promptecho.captions.shard:_caption_batch",
        f"caption shard --config config.yaml --images {DEMO}/captions/images --out s.h5 --work ws",
    ),
    "generate": (
        "promptecho.image_maker:_sample_batch",
        f"generate --config config.yaml --run base --step 0 --image-set dpg --out g --work wg {PROMPTS}",
    ),
    "train": (
        "promptecho.train.loop:_run",
        f"train --config config.yaml {CAPTIONS} --run promptecho-s1 --to 15 --out t --work wt",
    ),
}
STOPPED = """
import importlib.machinery, os, runpy, sys
module, _, function = sys.argv.pop(1).partition(":")
EARLIER = {"promptecho.image_maker": "promptecho.generate"}  # where it was in earlier versions
class Finder:
    def find_spec(name, path=None, target=None):
        if name in (module, EARLIER.get(module)):
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            run = spec.loader.exec_module
            def exec_module(loaded):
                run(loaded)
                if hasattr(loaded, function):
                    setattr(loaded, function, lambda *_, **__: os._exit(0))
            spec.loader.exec_module = exec_module
            return spec
sys.meta_path.insert(0, Finder)
runpy.run_module("promptecho", run_name="__main__", alter_sys=True)
sys.exit("it came to its end, and never to where its work begins" if module else 0)
"""
# Beside the workflow's own Python modules: a command of the package writes its output and ends at once.
AT_ONCE = """
import os, sys
if "promptecho" in sys.orig_argv:
    open(sys.orig_argv[sys.orig_argv.index("--out") + 1], "a").close()
    os._exit(0)
"""
BARE = """
rule score:
    output: "{E}.txt"
    shell: "touch {output}"
"""
# What the executor for Slurm gives a job, as far as it costs something.
IN_JOB = (
    "--cores 1 --attempt 1 --force-use-threads --force --target-files-omit-workdir-adjustment"
    " --max-inventory-time 0 --retries 0 --nocolor --no-hooks --nolock --ignore-incomplete --latency-wait 1"
    " --rerun-triggers params mtime input --scheduler greedy --quiet host --mode remote --allowed-rules score"
)


JOB_START = "plugins/snakemake-executor-plugin-submitit/snakemake_executor_plugin_submitit/job_start.py"


def run(checkout: Path, command: Sequence[str | Path], folder: Path) -> dict[str, float]:
    """A Python process that takes the package from `checkout`."""
    path = os.pathsep.join(
        map(str, [checkout, checkout / "plugins/snakemake-executor-plugin-submitit", folder / "site"])
    )
    environ = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}\n{said}")
    return {
        "seconds": time.perf_counter() - started, "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1e3,
    }  # fmt: skip


def score_files(folder: Path, example: Path, files: int, items: int) -> None:
    """`files` score files of `items` items each, of a base model and of checkpoints of one run."""
    rng, made = random.Random(0), json.loads(example.read_text())
    groups = sorted({item["group"] for item in made["items"]})
    made.pop("parts", None)
    for number in range(files):
        made["items"] = [
            {
                "prompt_id": str(i // 4), "image_index": i % 4, "group": groups[(i // 4) % len(groups)],
                "outcome": float(rng.random() < 0.6), "failed": False,
            }
            for i in range(items)
        ]  # fmt: skip
        told = made["provenance"]
        told["n"], told["failures"] = items, 0
        told["experiment"], told["run"], told["step"] = "e", "r" if number else "base", number
        path = folder / "scores" / told["benchmark"] / told["run"] / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made, indent=2) + "\n")


def cases(given: argparse.Namespace, folder: Path, sides: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """What is run: name -> side -> command; with what it needs prepared."""
    if given.what == "start":
        found = starts(given.demo.resolve(), folder, sides)
        return {name: found[name] for name in given.cases or found}
    if given.what == "tables":
        score_files(folder / "e", given.example.resolve(), given.shards, given.items)
        words = ["-m", "promptecho", "tables", "--scores", folder / "e", "--out"]
        return {"tables": {side: [*words, folder / f"tables-{side}"] for side in sides}}
    found = {}
    for side, checkout in sides.items():
        for name in (f"shards-{side}", f"merged-{side}"):
            (folder / name).mkdir()
        run(checkout, ["-c", SHARDS, folder / f"shards-{side}", str(given.shards), str(given.items)], folder)
        found[side] = ["-c", MERGE, folder / f"shards-{side}", folder / f"merged-{side}"]
    return {"merge": found}


def starts(demo: Path, folder: Path, sides: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Commands up to their work, and Snakemake inside a job, on a copy of the finished demo."""
    shutil.copytree(demo, folder / DEMO)
    resolved = max((folder / DEMO / "config").glob("*.yaml"), key=lambda path: path.stat().st_mtime)
    shutil.copy(resolved, folder / "config.yaml")
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(AT_ONCE)
    (folder / "config").symlink_to(ROOT / "config")  # the site's
    (folder / "Bare").write_text(BARE)
    commands: dict[str, dict[str, Any]] = {
        name: dict.fromkeys(sides, ["-c", STOPPED, where, *words.split()]) for name, (where, words) in STARTS.items()
    }
    start = {  # by this file, since there is one
        side: [path] if (path := checkout / JOB_START).exists() else ["-m", "snakemake"]
        for side, checkout in sides.items()
    }
    inside = [*IN_JOB.split(), "--target-jobs"]
    told = {"shapes": str(resolved.relative_to(folder))}
    job = [*inside, "score:E=shapes,B=dpg,R=base,N=0", "--config", f"resolved_configs={told!r}", "--snakefile"]
    commands["inside a job"] = {side: [*start[side], *job, checkout / "Snakefile"] for side, checkout in sides.items()}
    bare = [*inside, "score:E=a", "--snakefile", "Bare"]
    commands["inside a job, one bare rule"] = {side: [*start[side], *bare] for side in sides}
    return commands


def report(found: list[dict[str, Any]], sides: Sequence[str]) -> str:
    lines = []
    for name in dict.fromkeys(one["name"] for one in found):
        by = {side: [one for one in found if (one["name"], one["side"]) == (name, side)] for side in sides}
        for side in sides:
            told = [f"{key} {significant([one[key] for one in by[side]])}" for key in ("seconds", "cpu_s", "peak_mb")]
            lines.append(f"{name}: {side:6s} {'; '.join(told)}")
        if "before" in by:
            pairs = list(zip(by["before"], by["now"], strict=True))
            told = [
                f"{key} {significant([a[key] / b[key] for a, b in pairs])}" for key in ("seconds", "cpu_s", "peak_mb")
            ]
            lines.append(f"{name}: before / now {'; '.join(told)}, n = {len(pairs)}")
    return "\n".join(lines)


def same_files(one: Path, other: Path) -> str:
    """Whether two folders hold the same files, but for the commit that made them."""
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())

    def content(path: Path) -> list[bytes] | None:
        return [line for line in path.read_bytes().splitlines() if COMMIT not in line] if path.is_file() else None

    differing = [name for name in names if content(one / name) != content(other / name)]
    return f"{len(names)} files, of which differ (but for the commit): {', '.join(differing) or 'none'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("merge", "tables", "start"))
    parser.add_argument("--before", type=Path, help="an earlier checkout; without it only this one is measured")
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--example", type=Path, default=ROOT / "results/shapes/scores/geneval/base/0.json")
    parser.add_argument("--demo", type=Path, default=ROOT / DEMO, help="results of `make demo`, for start")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="of start: these alone")
    parser.add_argument("--folder", type=Path, help="where files are written; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON file of all measurements")
    given = parser.parse_args()
    sides = {"now": ROOT} | ({"before": given.before.resolve()} if given.before else {})
    found = []
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        commands = cases(given, folder, sides)
        for number in range(given.rounds):
            for case, by_side in commands.items():
                for side in list(sides)[:: 1 - 2 * (number % 2)]:
                    one = run(sides[side], by_side[side], folder)
                    found.append({"name": case, "side": side, "round": number, **one})
        print(report(found, list(sides)))
        if given.what == "tables" and given.before:
            print(same_files(folder / "tables-before", folder / "tables-now"))
    if given.out:
        given.out.write_text(json.dumps({"what": given.what, "measurements": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
