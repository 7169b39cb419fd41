"""The scaling model of `perf/scaling.py` beside real training in 1, 2 and 4 processes on this machine's processors.

    python perf/processes.py --config config/experiments/shapes.yaml --run promptecho-s1 --processes 1 2 4 \
        --captions results/shapes/captions/captions.h5

Real iterations of `promptecho train` with gloo. Of each phase it reports the CPU seconds of the process that has most
of them, beside what the model makes of the single process's: its seconds times the share of images, or of units of an
optimizer step, that the busiest process has. Of the exchange it reports the bytes that a process hands to the system,
beside those of the model. CPU seconds do not depend on how many processors are free, but say nothing of waiting. The
VLM is whole in each process, threads are one for each, and the first iteration warms up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from promptecho.bench.report import spread
from promptecho.config import ExperimentConfig, load_experiment, run_training
from promptecho.config.training import TrainingConfig
from promptecho.phases import Phase
from promptecho.plan.phases import exchanged_bytes
from promptecho.train import loop
from promptecho.train.deal import largest_share
from promptecho.train.meter import Meter
from promptecho.train.trainer import Segment, Trainer

ADAPTER = "adapter/adapter_model.safetensors"


def adapted(config: ExperimentConfig, run: str, arguments: argparse.Namespace) -> ExperimentConfig:
    """The run with the sizes that were asked for, in one segment without states and held-out captions."""
    training = run_training(config, run)
    images = arguments.prompts * arguments.images_per_prompt
    update = {
        "prompts_per_iteration": arguments.prompts, "images_per_prompt": arguments.images_per_prompt,
        "update_images_per_prompt": None, "batch_size": images,
        "micro_batch_size": min(training.micro_batch_size, images),
        "iterations": arguments.iterations, "checkpoints": [arguments.iterations], "save_every_s": 1e9,
        "heldout": training.heldout.model_copy(update={"prompts": 0}), "activation_checkpointing": "off",
        "reward_placement": training.reward_placement.model_copy(update={"mode": "replicated"}),
    }  # fmt: skip
    changed = training.model_copy(update=update)
    return config.model_copy(update={"runs": {**config.runs, run: changed}})


def measure(rows: list[dict[str, Any]]) -> None:
    """Have every iteration append its CPU seconds by phase, and the bytes that it wrote, to `rows`."""
    metered, iterate = Meter.__call__, loop.iterate

    @contextlib.contextmanager
    def counted(meter: Meter, phase: str) -> Iterator[None]:
        begun = time.process_time()
        with metered(meter, phase):
            yield
        current[phase] = current.get(phase, 0.0) + time.process_time() - begun

    def iteration(trainer: Trainer, state: Any) -> Any:
        current.clear()
        before, written = time.process_time(), written_bytes()
        found = iterate(trainer, state)
        whole = {"whole": time.process_time() - before, "bytes": float(written_bytes() - written)}
        size = trainer.segment.config.models.t2i
        whole["latent"] = 4.0 * torch.Size(trainer.family.latent_shape(size.height, size.width)).numel()
        rows.append({str(key): value for key, value in current.items()} | whole)
        return found

    current: dict[str, float] = {}
    Meter.__call__ = counted
    loop.iterate = iteration


def written_bytes() -> int:
    """What this process has handed to the system, to sockets and files (Linux)."""
    return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])


def train(config: ExperimentConfig, run: str, captions: Path, n: int, folder: Path) -> list[list[dict[str, Any]]]:
    """Train in `n` processes, forked from this one, and return the rows of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    to = run_training(config, run).iterations
    children = [_forked(lambda rank=rank: _rank(config, run, captions, n, rank, port, folder, to)) for rank in range(n)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise SystemExit(f"training in {n} process(es) failed; see above")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(n)]


def _forked(work: Callable[[], None]) -> int:
    if child := os.fork():
        return child
    try:
        work()
        sys.stderr.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _rank(
    config: ExperimentConfig, run: str, captions: Path, n: int, rank: int, port: int, folder: Path, to: int
) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    measure(rows)
    with contextlib.redirect_stdout(sys.stderr):
        loop.train_segment(Segment(config, run, to, captions, folder / "out", folder / "work"))
    (folder / f"{rank}.json").write_text(json.dumps(rows))


def shares(training: TrainingConfig, n: int) -> dict[str, float]:
    """What part of a single process's work the busiest of `n` has, by phase, as `promptecho plan` deals it."""
    images = training.sampled_images
    of_images, units = -(-images // n) / images, largest_share(training, n) / largest_share(training, 1)
    return {Phase.SAMPLE: of_images, Phase.REWARD: of_images, Phase.PRECOMPUTE: of_images, Phase.UPDATE: units}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2, 4], help="the first is what others are held to"
    )
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--images-per-prompt", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=2, help="of a run; the first warms up")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    config = adapted(load_experiment(arguments.config), arguments.run, arguments)
    training = run_training(config, arguments.run)
    taken: dict[int, list[dict[str, float]]] = {n: [] for n in arguments.processes}
    weights: dict[int, dict[str, torch.Tensor]] = {}
    for number in range(arguments.rounds):
        for n in arguments.processes if number % 2 == 0 else arguments.processes[::-1]:
            with tempfile.TemporaryDirectory() as folder:
                ranks = train(config, arguments.run, arguments.captions, n, Path(folder))
                weights[n] = load_file(Path(folder) / "out" / ADAPTER)
            rows = [[rank[i] for rank in ranks] for i in range(1, arguments.iterations)]
            taken[n] += [{key: max(rank[key] for rank in row) for key in row[0]} for row in rows]
    report(training, taken, weights)


def report(training: TrainingConfig, taken: dict[int, list[dict[str, float]]], weights: dict[int, Any]) -> None:
    first, *_ = taken
    adapter = sum(tensor.numel() for tensor in weights[first].values())
    print("| Processes | Phase | Share of the work | CPU s of the busiest | Model, CPU s | Measured / model |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for n, rows in taken.items():
        for phase, share in shares(training, n).items():
            own = [row[phase] for row in rows]
            model = [share * row[phase] / shares(training, first)[phase] for row in taken[first]]
            ratio = [x / y for x, y in zip(own, model, strict=True)]
            print(f"| {n} | {phase} | {share:.3f} | {spread(own)} | {spread(model)} | {spread(ratio)} |")
        print(f"| {n} | whole | | {spread([row['whole'] for row in rows])} | | |")
    print("\n| Processes | MB that a process sends in an iteration | Model, MB | Largest difference of a weight |")
    print("| ---: | ---: | ---: | ---: |")
    alone = [row["bytes"] for row in taken[first]]  # what is written besides: metrics, messages, the watchdog's files
    for n, rows in taken.items():
        sent = [(row["bytes"] - other) / 1e6 for row, other in zip(rows, alone, strict=True)]
        gap = max(float((weights[n][key] - weights[first][key]).abs().max()) for key in weights[first])
        model = exchanged_bytes(training, n, adapter, round(rows[0]["latent"])) / 1e6
        print(f"| {n} | {spread(sent)} | {model:.2f} | {gap:.1e} |")
    print(f"\n{len(taken[first])} iterations of each; the adapter has {adapter:,} weights.")


if __name__ == "__main__":
    main()
