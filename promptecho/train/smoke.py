"""`promptecho train --smoke`: does training work on this machine's GPUs at all, before anybody pays for a run?

Two iterations of an experiment's models on a few made-up prompts, in a temporary folder: once by one process, once by
several. These meet what differs between machines: the VLM sharded over the ranks, ZeRO, a checkpoint that is saved and
resumed by other processes, and the VLM offloaded to host memory. Both must come to the same numbers.

Micro-batch, image size, dtype and LoRA are the experiment's, so memory is about what the run will take; prompts, steps
of the sampler and timesteps are as few as possible.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import runpy
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import promptecho
from promptecho import plugins
from promptecho.cluster.gpus import detect, visible
from promptecho.cluster.ranks import free_port
from promptecho.config import ExperimentConfig, load_experiment, needs_vlm, run_training
from promptecho.config.editing import refuse_editing
from promptecho.config.families import family_named
from promptecho.errors import ConfigError, PromptEchoError
from promptecho.files import read_json, read_jsonl, write_json
from promptecho.phases import MEASURED, Phase

RUN = "smoke"
PROGRAM = Path(promptecho.__file__).with_name("__main__.py")  # what `python -m promptecho` runs
SHAPES = {"t2i": {"path": "shapes", "dtype": "float32", "height": 64, "width": 64}, "vlm": {"path": "shapes"}}
PHASES = (Phase.LOAD_T2I, Phase.LOAD_VLM, *MEASURED)
# Several ranks add and batch in another order, which bfloat16 shows early: a gradient that is nearly zero may change
# its sign, and Adam makes a whole step of it. A wrong exchange is off by half or more.
TOLERANCES = {
    "float32": {"reward": 1e-3, "gradient norm": 0.02, "weights": 0.05},
    "bfloat16": {"reward": 0.05, "gradient norm": 0.2, "weights": 0.4},
}
EXCHANGE = (
    "if it hangs or NCCL fails, NCCL_DEBUG=INFO says more, and NCCL_P2P_DISABLE=1 avoids the direct way between GPUs"
)


@dataclass
class Trial:
    """One command of training: what it tried, and what came of it."""

    name: str
    ranks: int
    tries: str
    error: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        rows = self.rows
        seconds = {phase: sum(row.get(f"seconds_{phase}", 0.0) for row in rows) for phase in PHASES}
        memory = {phase: max((row.get(f"memory_gb_{phase}", 0.0) for row in rows), default=0.0) for phase in PHASES}
        return {
            "name": self.name, "processes": self.ranks, "tries": self.tries, "passed": not self.error,
            "error": self.error, "seconds": {key: round(value, 2) for key, value in seconds.items()},
            "memory_gb": {key: round(value, 2) for key, value in memory.items() if value},
        }  # fmt: skip


@dataclass
class Smoke:
    """The outcome: `differences` to one process by name, as (found, tolerated)."""

    trials: list[Trial]
    differences: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """Empty, or what went wrong and what to do."""
        for trial in self.trials:
            if trial.error:
                return f"{trial.name}: {trial.error}; {EXCHANGE}" if trial.ranks > 1 else f"{trial.name}: {trial.error}"
        if self.differences and any(row["grad_norm"] == 0 for trial in self.trials[:1] for row in trial.rows[:1]):
            return (
                "the two images of every prompt got the same reward, so there was no gradient to compare; try a run "
                "whose reward is echo (--run)"
            )
        far = [name for name, (found, tolerated) in self.differences.items() if not found <= tolerated]
        if far:
            return (
                f"several processes come to another {' and '.join(far)} than one: do not train on them; {EXCHANGE}; "
                "try training.reward_placement.mode: replicated to see whether the sharded VLM is at fault"
            )
        return ""

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        differences = {
            name: {"found": found, "tolerated": tolerated} for name, (found, tolerated) in self.differences.items()
        }
        trials = [trial.facts() for trial in self.trials]
        return {"passed": not self.problem, "problem": self.problem, "trials": trials, "differences": differences}


def smoke(config: Path | None, run: str | None, ranks: int | None, device: str) -> Smoke:
    """Try training with `ranks` processes on this machine; by default as many as it has GPUs, and at least two.

    Raises:
        ConfigError: fewer GPUs than ranks; no such run.
    """
    gpus = [] if device == "cpu" else visible(os.environ, detect())
    ranks = ranks or max(2, len(gpus))
    if ranks < 2:
        raise ConfigError(f"train --smoke: --ranks {ranks}: compares several processes with one; give 2 or more")
    if gpus and len(gpus) < ranks:
        raise ConfigError(
            f"train --smoke: {ranks} processes need a GPU each, and there are {len(gpus)}; give the job more, or try "
            "the exchange on CPUs with --device cpu"
        )
    with tempfile.TemporaryDirectory(prefix="promptecho-smoke-") as folder:
        return _smoke(Path(folder), config, run, ranks, "auto" if gpus else "cpu")


def _smoke(folder: Path, config: Path | None, run: str | None, ranks: int, device: str) -> Smoke:
    experiment = load_experiment(config) if config is not None else None
    if experiment is not None:
        refuse_editing(family_named(experiment.models.t2i.family), "train --smoke")
    raw = settings(experiment, run, ranks, folder, small=device == "cpu")
    write_prompts(folder, raw["training"]["prompts_per_iteration"])
    spread = {mode: _write(folder, raw, mode) for mode in ("replicated", "colocated")}
    offloads = needs_vlm(load_experiment(spread["colocated"]), RUN)  # else there is nothing to offload
    spread["offloaded"] = _write(folder, raw, "offloaded") if offloads else spread["colocated"]
    stage = f"ZeRO-{raw['training']['zero_stage']}"
    alone = spread["replicated" if device == "cpu" else "offloaded"]
    plan = [
        (Trial("one process", 1, "load, sample, reward, update, save"), alone, 2, None),
        (Trial("sharded", ranks, f"load, sample, sharded reward, {stage} step, save"), spread["colocated"], 1, None),
        (Trial("offloaded", ranks, f"resume, offloaded reward, {stage} step, save"), spread["offloaded"], 2, "sharded"),
    ]
    if device == "cpu":
        preload()
    outcome = Smoke([])
    for trial, path, to, before in plan:
        print(f"smoke: {trial.name}, {trial.ranks} process(es): {trial.tries}", file=sys.stderr, flush=True)
        outcome.trials.append(trial)
        _try(trial, folder, path, to, before, device)
        if trial.error:
            return outcome
    one, _, several = (folder / trial.name / str(to) for trial, _, to, _ in plan)
    rows = outcome.trials[0].rows, outcome.trials[1].rows + outcome.trials[2].rows
    outcome.differences = compare(one, several, *rows, raw["models"]["t2i"]["dtype"])
    return outcome


def settings(
    experiment: ExperimentConfig | None, run: str | None, ranks: int, folder: Path, *, small: bool
) -> dict[str, Any]:
    """The configuration that is tried: `run` of `experiment` with two short iterations, on prompts of `folder`.

    Raises:
        ConfigError: no such run.
    """
    if experiment is None:
        raw: dict[str, Any] = {"models": SHAPES, "training": {"lora": {"rank": 8, "alpha": 16}, "micro_batch_size": 2}}
        micro, steps, times = 2, 4, 2
    else:
        run = run or next(iter(experiment.runs), None)
        if run is None:
            raise ConfigError("train --smoke: the experiment has no run to try; add one to runs")
        training = run_training(experiment, run)
        whole = experiment.model_dump(mode="json")
        kept = ("models", "rewards", *(key for key in whole if key.startswith(("models_", "plugins"))))
        raw = {key: whole[key] for key in kept}
        raw["training"] = training.model_dump(mode="json") | {"size_by": "draw"}  # made-up prompts caption no image
        for rewards in (raw["rewards"], raw["training"]["rewards"] or []):
            for entry in rewards:
                entry["label"] = None  # labels belong to the experiment's own prompts
        micro = min(training.micro_batch_size, 2) if small else training.micro_batch_size
        steps, times = min(training.sampling.num_inference_steps, 8), min(training.timesteps.per_sample, 2)
    raw["experiment"] = RUN
    raw["captions"] = {"prompts": str(folder / "prompts.txt"), "heldout": 0}
    raw["runs"] = {RUN: {}}
    chosen = raw["training"]
    chosen |= {
        "iterations": 2, "checkpoints": [1, 2], "checkpoint_every": None, "prompts_per_iteration": ranks * micro,
        "images_per_prompt": 2, "update_images_per_prompt": None, "batch_size": ranks * micro,
        "micro_batch_size": micro, "passes": 1, "warmup_steps": 0,
        "lr_schedule": "constant", "lr_decay_iterations": None, "init_adapter": None,
        "heldout": {"prompts": 0}, "timeout_s": 900, "zero_stage": chosen.get("zero_stage", 1),
    }  # fmt: skip
    chosen["sampling"] = {**chosen.get("sampling", {}), "num_inference_steps": steps}
    # Of so few steps a part would be too few: the loss takes its timesteps from all of them.
    whole_grid = {"grid_first": 0, "grid_share": 1.0}
    chosen["timesteps"] = {**chosen.get("timesteps", {}), "per_sample": times, "shared_by": "none", **whole_grid}
    if "preset" in chosen:
        chosen["preset"] = None  # its keys are there already
    return raw


def write_prompts(folder: Path, count: int) -> None:
    """Training captions of `count` made-up prompts."""
    from promptecho.captions.merge import MergeSpec, import_prompts

    words = product(("one", "two", "three", "four"), ("red", "green", "blue", "yellow"), ("circle", "square", "ring"))
    texts = [f"A picture of {number} {colour} {shape}." for number, colour, shape in words]
    texts = [f"{texts[i % len(texts)]}{'' if i < len(texts) else f' Number {i}.'}" for i in range(count)]
    (folder / "prompts.txt").write_text("\n".join(texts), encoding="utf-8")
    import_prompts(folder / "prompts.txt", MergeSpec(folder / "captions.h5", folder / "heldout.jsonl", 0))


def _write(folder: Path, raw: dict[str, Any], mode: str) -> Path:
    path = folder / f"{mode}.yaml"
    training = {**raw["training"], "reward_placement": {"mode": mode}}
    write_json(path, {**raw, "training": training})  # JSON is YAML
    plugins.allow()  # the experiment itself was allowed to name them
    load_experiment(path)
    return path


def _try(trial: Trial, folder: Path, config: Path, to: int, before: str | None, device: str) -> None:
    """Run one command of training to its end, and note what came of it."""
    place = folder / trial.name
    arguments = [
        "train", "--config", str(config), "--run", RUN, "--to", str(to), "--captions", str(folder / "captions.h5"),
        "--out", str(place / str(to)), "--work", str(place / "work"), "--device", device, "--allow-plugins",
        *(["--resume", str(folder / before / str(to - 1))] if before else []),
    ]  # fmt: skip
    place.mkdir()
    threads = max(1, len(os.sched_getaffinity(0)) // trial.ranks) if device != "cpu" else 1
    arguments += ["--threads", str(threads)]
    log = place / "log.txt"
    with open(log, "w") as output:
        start = _start_forked if device == "cpu" else _start
        code = start(trial.ranks, threads, arguments, output)
    if code:
        trial.error = f"{_where(place / 'work' / 'ranks')}{_last_words(log, code)}"
    else:
        trial.rows = read_jsonl(place / str(to) / "metrics.jsonl")


def _start(ranks: int, threads: int, arguments: list[str], output: Any) -> int:
    command = [sys.executable, "-m", "promptecho", *arguments]
    if ranks > 1:
        command = [sys.executable, "-m", "promptecho.cluster.ranks", str(ranks), str(threads), *command]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT).returncode


def preload() -> None:
    """Import once what every forked process needs; nothing of it computes, as threads do not survive a fork."""
    import promptecho.train.loop
    import promptecho.vlm  # noqa: F401
    from promptecho.config.descriptors import available_rewards
    from promptecho.config.families import available_families
    from promptecho.train.engine import import_deepspeed

    heavy = [found.thing.build for found in available_rewards(ours_only=True)]
    for spec in heavy + [found.thing.model for found in available_families(ours_only=True)]:
        importlib.import_module(spec.partition(":")[0])
    import_deepspeed()


def _start_forked(ranks: int, threads: int, arguments: list[str], output: Any) -> int:
    """As `_start`, for CPUs, where importing would take longer than all else."""
    shared = {
        "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": str(threads),
    }  # fmt: skip
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                if ranks > 1:
                    os.environ.update(shared, RANK=str(rank), LOCAL_RANK=str(rank))
                code = _main(arguments)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return next((code for code in codes if code), 0)


def _main(arguments: list[str]) -> int:
    sys.argv = ["promptecho", *arguments]
    try:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _where(ranks: Path) -> str:
    """The phase in which the rank was that is furthest behind."""
    from promptecho.train.watchdog import Position

    found = []
    for path in sorted(ranks.glob("[0-9]*.json")) if ranks.is_dir() else []:
        try:
            found.append(Position(**read_json(path)))
        except (PromptEchoError, TypeError):
            continue
    return f"in phase {min(found, key=lambda position: position.order).phase}: " if found else ""


def _last_words(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    told = [line.removeprefix("promptecho: ") for line in lines if line.startswith("promptecho: ")]
    last = (told or lines[-1:] or ["no word"])[0]
    return f"{last} (exit code {code})"


def compare(
    one: Path, several: Path, alone: list[dict[str, Any]], shared: list[dict[str, Any]], dtype: str
) -> dict[str, tuple[float, float]]:
    """What several processes make of two iterations, against one: by name the difference, and what is tolerated.

    Rewards are those of the untrained model's images, gradient norms relative. Weights are those that began at 0 (LoRA
    B): the length of the difference, relative to the way from 0. Where the whole model is trained, they are all
    weights, relative to the length of one process's updates.
    """
    import torch
    from safetensors.torch import load_file

    tolerated = TOLERANCES["float32" if dtype == "float32" else "bfloat16"]
    a, b = (load_file(folder / "state" / "weights.safetensors") for folder in (one, several))
    moved = sorted(key for key in a if "lora_B" in key)
    ours, theirs = (torch.cat([w[key].flatten() for key in moved or sorted(a)]).double() for w in (a, b))
    way = float(ours.norm()) if moved else sum(row["update_norm"] for row in alone)
    norms = [rows[0]["grad_norm"] for rows in (alone, shared)]
    found = {
        "reward": abs(alone[0]["reward_mean"] - shared[0]["reward_mean"]),
        "gradient norm": _relative(abs(norms[1] - norms[0]), norms[0]),
        "weights": _relative(float((theirs - ours).norm()), way),
    }
    return {name: (value, tolerated[name]) for name, value in found.items()}


def _relative(difference: float, size: float) -> float:
    return difference / size if size else (math.inf if difference else 0.0)


def show(outcome: Smoke, as_json: bool) -> None:
    """Print to stdout: the facts as JSON, or a table and one line with PASS or FAIL."""
    if as_json:
        print(json.dumps(outcome.facts(), indent=2))
        return
    from rich.table import Table

    from promptecho.screen import screen

    console = screen()
    table = Table(title="seconds, and peak memory of rank 0 in GB", title_justify="left")
    for name in ("what", "processes", *PHASES, "outcome"):
        table.add_column(name, justify="left" if name in ("what", "outcome") else "right")
    for trial in outcome.trials:
        facts = trial.facts()
        memory = {phase: f" / {gb:.1f}" for phase, gb in facts["memory_gb"].items()}
        cells = [f"{facts['seconds'][phase]:.1f}{memory.get(phase, '')}" for phase in PHASES]
        table.add_row(trial.name, str(trial.ranks), *cells, "failed" if trial.error else "ok")
    console.print(table)
    for trial in outcome.trials:
        console.print(f"{trial.name}: {trial.tries}", markup=False, highlight=False)
    for name, (found, tolerated) in outcome.differences.items():
        line = f"difference to one process, {name}: {found:.2g} (tolerated: {tolerated:g})"
        console.print(line, markup=False, highlight=False)
    verdict = f"FAIL: {outcome.problem}" if outcome.problem else "PASS: training works on this machine's processes"
    print(verdict, flush=True)
