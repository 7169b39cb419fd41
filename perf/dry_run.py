"""The workflow's own cost: a dry run of an experiment of many jobs, beside a bare Snakemake workflow of the same jobs.

    python perf/dry_run.py --jobs 5000 --rounds 3 --out dry_run.json
    python perf/dry_run.py --jobs 5000 30000 --rounds 1
    python perf/dry_run.py --jobs 1000 --profile dry_run.prof     # then: python -m pstats dry_run.prof

Half of the jobs caption a shard, half generate one. The bare workflow has rules of the same names, files and wildcards,
and nothing else: no parameters, resources or checks. `--before` measures an earlier checkout, too. Every run is a
process of its own, in a folder without results; ratios compare runs of one round, whose order alternates.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from promptecho.bench.report import significant

ROOT = Path(__file__).resolve().parent.parent
BARE = """
H, G = {captions}, {images}
SETS = [("base", 0), ("r", 2), ("r", 4)]
wildcard_constraints: shard="[0-9]{{5}}", R="[a-z0-9][a-z0-9._-]*", N="0|[1-9][0-9]*", K="0|[1-9][0-9]*"
rule training_images:
    output: directory("results/many/captions/images")
    shell: "true"
rule caption_shard:
    input: "results/many/captions/images"
    output: "results/many/captions/shards/{{shard}}.h5"
    log: "results/many/logs/caption_shard/{{shard}}.log"
    shell: "true"
rule captions:
    input: [f"results/many/captions/shards/{{k:05d}}.h5" for k in range(H)]
    output: "results/many/captions/captions.h5", "results/many/captions/heldout.jsonl"
    shell: "true"
rule train:
    input: lambda w: "results/many/captions/captions.h5" if w.N == "2" else "results/many/runs/r/2/adapter"
    output: directory("results/many/runs/{{R}}/{{N}}/adapter")
    shell: "true"
rule benchmark_prompts:
    output: "results/many/prompts/geneval/metadata.jsonl"
    shell: "true"
rule generate_shard:
    input:
        lambda w: [] if w.R == "base" else f"results/many/runs/{{w.R}}/{{w.N}}/adapter",
        "results/many/prompts/geneval/metadata.jsonl",
    output: "results/many/images/{{R}}/{{N}}/geneval/shards/{{K}}.jsonl"
    log: "results/many/logs/generate_shard/{{R}}.{{N}}.{{K}}.log"
    shell: "true"
rule score:
    input: [f"results/many/images/{{{{R}}}}/{{{{N}}}}/geneval/shards/{{k}}.jsonl" for k in range(G)]
    output: "results/many/scores/geneval/{{R}}/{{N}}.json"
    shell: "true"
rule table:
    input: [f"results/many/scores/geneval/{{R}}/{{N}}.json" for R, N in SETS]
    output: "results/many/tables/geneval.md"
    shell: "true"
"""
TARGET = "results/many/tables/geneval.md"


def experiment(captions: int, images: int) -> dict[str, Any]:
    """The embedded experiment with so many shards of captions, and of images of each of three checkpoints."""
    found = yaml.safe_load((ROOT / "config/experiments/shapes.yaml").read_text())
    found["captions"]["num_shards"] = captions
    found["training"] |= {"iterations": 4, "checkpoints": [2, 4]}
    found["runs"] = {"r": {"seed": 1}}
    geneval = found["image_sets"]["geneval"] | {"num_shards": images}
    geneval.pop("job")  # one process for many shards is a job more, and earlier checkouts do not know the key
    found["image_sets"] = {"geneval": geneval}
    found["benchmarks"] = {"geneval": found["benchmarks"]["geneval"]}
    found["evaluate"] = [{"benchmark": "geneval", "at": "all", "base": True}]
    return found | {"tables": ["geneval"]}


def prepare(folder: Path, jobs: int) -> int:
    """Both workflows in `folder`; how many jobs they have."""
    captions, images = jobs // 2, jobs // 6
    (folder / "config/experiments").mkdir(parents=True)
    (folder / "config/config.yaml").write_text("experiments: [many]\n")
    (folder / "config/experiments/many.yaml").write_text(yaml.safe_dump(experiment(captions, images)))
    (folder / "bare").mkdir()
    (folder / "bare/Snakefile").write_text(BARE.format(captions=captions, images=images))
    return captions + 3 * images + 1 + 1 + 2 + 1 + 3 + 1


def command(side: str, checkout: Path, profile: Path | None = None) -> list[str]:
    """A dry run that prints its counts alone."""
    snakefile = "bare/Snakefile" if side == "bare" else str(checkout / "workflow/Snakefile")
    with_profile = ["-m", "cProfile", "-o", str(profile)] if profile else []
    return [sys.executable, *with_profile, "-m", "snakemake", "-s", snakefile, "-n", "--quiet", "rules", "--", TARGET]


def run(side: str, checkout: Path, folder: Path, profile: Path | None = None) -> dict[str, Any]:
    path = os.pathsep.join([str(checkout), str(checkout / "plugins/snakemake-executor-plugin-submitit")])
    environ = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    words = command(side, checkout, profile)
    process = subprocess.Popen(
        words, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    totals = [int(line.split()[1]) for line in said.splitlines() if line.split()[:1] == ["total"]]
    if process.returncode or not totals:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}\n{said[-3000:]}")
    return {
        "side": side, "jobs": totals[0], "seconds": time.perf_counter() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1e3,
    }  # fmt: skip


def report(found: list[dict[str, Any]]) -> str:
    lines = []
    for jobs in dict.fromkeys(one["jobs"] for one in found):
        bare = [one for one in found if (one["jobs"], one["side"]) == (jobs, "bare")]
        for side in dict.fromkeys(one["side"] for one in found):
            mine = [one for one in found if (one["jobs"], one["side"]) == (jobs, side)]
            told = [f"{key} {significant([one[key] for one in mine])}" for key in ("seconds", "cpu_s", "peak_mb")]
            ratio = significant([one["cpu_s"] / plain["cpu_s"] for one, plain in zip(mine, bare, strict=True)])
            lines.append(f"{jobs} jobs, {side:6s} {'; '.join(told)}; CPU against bare {ratio}, n = {len(mine)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[5000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="an earlier checkout to measure, too")
    parser.add_argument("--profile", type=Path, help="write a cProfile of one dry run there, and measure nothing")
    parser.add_argument("--out", type=Path, help="JSON file of all measurements")
    given = parser.parse_args()
    sides = {"bare": ROOT, "now": ROOT} | ({"before": given.before.resolve()} if given.before else {})
    found = []
    for jobs in given.jobs:
        with tempfile.TemporaryDirectory() as name:
            total = prepare(Path(name), jobs)
            if given.profile:
                run("now", ROOT, Path(name), given.profile.resolve())
                continue
            for number in range(given.rounds):
                for side in list(sides)[:: 1 - 2 * (number % 2)]:
                    found.append(run(side, sides[side], Path(name)) | {"round": number})
                    assert found[-1]["jobs"] == total, f"{side}: {found[-1]['jobs']} jobs, not {total}"
    if found:
        print(report(found))
    if given.out:
        given.out.write_text(json.dumps({"measurements": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
