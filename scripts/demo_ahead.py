"""What `make demo` does next, and until about when: `python scripts/demo_ahead.py results/shapes`.

Seconds are estimated from the base model's images, which are made on the same machine just before: what one image costs
in one pass through the network, times the passes that training and the remaining images take.
"""

from __future__ import annotations

import csv
import os
import sys
import time
from pathlib import Path

from promptecho.config import load_experiment, run_training

START_S = 6.0  # of a job, before its first pass
GRADIENT = 3  # passes that one with its gradient costs
THREADS = 1.7  # what the two threads of training gain over one


def seconds_of_jobs(results: Path) -> list[float]:
    """Seconds of each job that made images of the base model, on one core; not those that only listed them."""
    found = [
        float(row["s"])
        for rule in ("generate_together", "generate_shard")
        for path in sorted((results / "timings" / rule).glob("base.0.*.tsv"))
        for row in csv.DictReader(path.open(), delimiter="\t")
    ]
    return [seconds for seconds in found if seconds > START_S]


def main(results: Path) -> None:
    """Print what is ahead; nothing where it is done."""
    config = load_experiment(Path("config/experiments") / f"{results.name}.yaml")
    ahead = [
        (run, run_training(config, run).checkpoint_steps)
        for run in config.runs
        if not (results / f"runs/{run}/{run_training(config, run).iterations}/adapter").exists()
    ]
    jobs = seconds_of_jobs(results)
    spent = sum(jobs)
    if not ahead or not jobs:
        return
    passes = 0
    for name, entry in config.image_sets.items():
        for path in (results / f"images/base/0/{name}/shards").glob("*.jsonl"):
            passes += len(path.read_text().splitlines()) * entry.num_inference_steps * (1 + (entry.guidance_scale > 0))
    of_pass = max(spent - START_S * len(jobs), 0.1 * spent) / passes
    there = len(os.sched_getaffinity(0))
    cores, faster = min(there, len(jobs)), THREADS if there > 1 else 1.0
    now = time.time()
    for run, steps in ahead:
        training = run_training(config, run)
        images, updated = training.sampled_images, training.update_images
        references = 1 + (training.kl_base.weight > 0)
        of_sample = training.sampling.num_inference_steps * (1 + (training.sampling.guidance_scale > 0))
        of_update = training.timesteps.per_sample * (references + GRADIENT * training.passes)
        of_iteration = (images * of_sample + updated * of_update) * of_pass
        train = len(steps) * START_S + training.iterations * of_iteration / faster
        whole = train + spent / cores
        print(
            f"demo: now {run} is trained, {training.iterations} iterations of {images} images: "
            f"{_minutes(train)}, until about {_clock(now + train)}"
        )
        print(f"demo: then its images, scores, tables and figures: until about {_clock(now + whole)}", flush=True)
        now += whole


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _clock(moment: float) -> str:
    return time.strftime("%H:%M", time.localtime(moment))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
