"""`promptecho train`: one segment of one run; `--watch` shows runs instead."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from promptecho.commands.options import DEVICE
from promptecho.errors import ConfigError, DataError

if TYPE_CHECKING:
    from promptecho.config import ExperimentConfig
    from promptecho.train.speed import Work


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    config: Path | None = typer.Option(
        None, "--config", help="Experiment file or resolved configuration. Needed, except with --watch."
    ),
    run: list[str] | None = typer.Option(
        None,
        "--run",
        help="Run to train: a key of `runs`. With --watch: which runs to show; repeat for several. Default: all runs.",
    ),
    to: int | None = typer.Option(
        None, "--to", min=1, help="Checkpoint to train to, in iterations. Needed, except with --watch."
    ),
    captions: Path | None = typer.Option(
        None, "--captions", help="Training captions, results/E/captions/captions.h5. Needed, except with --watch."
    ),
    out: Path | None = typer.Option(
        None,
        "--out",
        help="Checkpoint folder to write; in the workflow results/E/runs/R/N. Needed, except with --watch.",
    ),
    work: Path | None = typer.Option(
        None,
        "--work",
        help="Folder for unfinished work; the same command goes on from there after an interruption. "
        "Needed, except with --watch.",
    ),
    resume: Path | None = typer.Option(
        None, "--resume", help="Checkpoint folder to go on from. Default: none, for the first checkpoint of a run."
    ),
    init_adapter: Path | None = typer.Option(
        None,
        "--init-adapter",
        help="Adapter folder that training.init_adapter names, as the workflow has it: results/E/adapters/R or "
        "results/E/runs/R/N/adapter. Needed where that key is set. Default: none.",
    ),
    stop_file: Path | None = typer.Option(
        None,
        "--stop-file",
        help="As soon as this file exists, save after the step in progress and leave with exit code 75. Default: none.",
    ),
    heldout: Path | None = typer.Option(
        None,
        "--heldout",
        help="Held-out captions, results/E/captions/heldout.jsonl, for training.heldout. Default: none.",
    ),
    trackers: Path | None = typer.Option(
        None,
        "--trackers",
        help="Folder of the experiment's results, results/E, in which the trackers of the configuration keep their "
        "files. Default: no tracker gets anything.",
    ),
    tensorboard: Path | None = typer.Option(
        None,
        "--tensorboard",
        help="Folder to write TensorBoard's event files to, whatever trackers the configuration has. Default: none.",
    ),
    accept_captions: bool = typer.Option(
        False, "--accept-captions", help="Go on even if captions that the run has already used were changed since."
    ),
    replay: Path | None = typer.Option(
        None,
        "--replay",
        help="Train nothing; compute one batch again: the folder that a run left which met a number that "
        "is not finite. Default: none.",
    ),
    threads: int | None = typer.Option(
        None, "--threads", min=1, help="CPU threads of this process. Default: one for each core."
    ),
    device: str = DEVICE,
    as_json: bool = typer.Option(False, "--json", help="Print a summary as JSON."),
    watch: Path | None = typer.Option(
        None,
        "--watch",
        help="Train nothing; show the runs of an experiment, results/E, until all are finished. Default: none.",
    ),
    once: bool = typer.Option(False, "--once", help="With --watch: show the state of now, and end."),
    smoke: bool = typer.Option(
        False,
        "--smoke",
        help="Try first whether training works on this machine: two iterations on a few made-up prompts, once by one "
        "process and once by several, which must come to the same numbers. Takes --config (default: the small models "
        "that come along), --run, --ranks, --device and --json.",
    ),
    ranks: int | None = typer.Option(
        None, "--ranks", min=2, help="With --smoke: processes, each with a GPU. Default: one for each GPU, at least 2."
    ),
) -> None:
    """Train a run to a checkpoint, or show what runs do (--watch).

    If training is interrupted, the same command goes on where it was, to the same bits.
    """
    if smoke:
        _smoke(config, run or [], ranks, device, as_json)
        return
    if ranks is not None:
        raise ConfigError("train: --ranks is for --smoke alone; to train with several processes see docs/training.md")
    if watch is not None:
        _watch(watch, run or [], once, as_json)
        return
    if replay is not None:
        if config is None:
            raise ConfigError("train: --replay needs the --config of the run that left the dump")
        print(json.dumps(_replay(config, replay, threads, device), indent=2))
        return
    needed = {"--config": config, "--run": run, "--to": to, "--captions": captions, "--out": out, "--work": work}
    missing = [option for option, value in needed.items() if not value]
    if missing or once:
        wrong = f"missing {', '.join(missing)}" if missing else "--once is for --watch alone"
        raise ConfigError(f"train: {wrong}; to look at runs instead: promptecho train --watch results/EXPERIMENT")
    assert config and run, "none is missing"
    if len(run) > 1:
        raise ConfigError(f"train: --run {' --run '.join(run)}: one run is trained at a time; give one")
    (name,) = run
    from promptecho.train.stop import EXIT_CODE, leave_while_importing

    def tell(finished: bool) -> None:
        if as_json and os.environ.get("RANK", "0") == "0":
            print(json.dumps({"run": name, "to": to, "finished": finished, "out": str(out)}), file=stdout, flush=True)

    stdout = sys.stdout
    leave_while_importing(lambda: tell(False))
    with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed logs to stdout, which belongs to --json
        finished = _train(
            threads,
            config=config,
            run=name,
            to=to,
            captions=captions,
            out=out,
            work=work,
            resume=resume,
            init_adapter=init_adapter,
            stop_file=stop_file,
            device=device,
            heldout=heldout,
            trackers=trackers,
            tensorboard=tensorboard,
            accept_captions=accept_captions,
            on_leave=lambda: tell(False),
        )
    tell(finished)
    if not finished:
        _leave(EXIT_CODE)
    elif _trackers_hang():
        _leave(0)


def _smoke(config: Path | None, runs: list[str], ranks: int | None, device: str, as_json: bool) -> None:
    from promptecho.train import smoke

    if len(runs) > 1:
        raise ConfigError(f"train --smoke: --run {' --run '.join(runs)}: one run is tried at a time; give one")
    outcome = smoke.smoke(config, runs[0] if runs else None, ranks, device)
    smoke.show(outcome, as_json)
    if outcome.problem:
        sys.exit(1)


def _leave(code: int) -> None:
    """End this process; at once with others beside it, or where a tracker's library would wait for its network.

    `srun --kill-on-bad-exit` sends SIGTERM to all ranks when the first has left: until here training's own handler
    takes it, but on Python's way out it would end a rank as terminated, and srun with another exit code.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1" and not _trackers_hang():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _trackers_hang() -> bool:
    from promptecho.trackers.feed import abandoned

    return bool(abandoned)


def _watch(experiment: Path, runs: list[str], once: bool, as_json: bool) -> None:
    from promptecho.train.watch import watch

    watch(experiment, runs, once=once, as_json=as_json)


def _train(threads: int | None, *, config: Path, device: str, **paths) -> bool:
    _quiet_all_but_one()
    from promptecho.config import run_training
    from promptecho.models.locate import job_config

    experiment = job_config(config, with_trackers=True)
    steps = run_training(experiment, paths["run"]).checkpoint_steps  # an unknown run is said before torch is imported
    if paths["to"] not in steps:
        raise ConfigError(
            f"--to {paths['to']}: run {paths['run']} has no such checkpoint (it has {', '.join(map(str, steps))})"
        )
    _check_initial(experiment, paths["run"], paths["init_adapter"])
    _keep_finished(experiment, paths["run"], paths["out"])
    import torch

    from promptecho.cluster.device import choose_device
    from promptecho.train.loop import Segment, train_segment

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    experiment = _with_gathering(_with_checkpointing(experiment, paths["run"], chosen), paths["run"], chosen)
    work = _work_per_iteration(experiment, paths["run"], paths["captions"], chosen)
    return train_segment(Segment(config=experiment, device=chosen, work_per_iteration=work, **paths))


def _with_checkpointing(experiment: ExperimentConfig, run: str, device: str) -> ExperimentConfig:
    """With a mode in place of `activation_checkpointing: auto`."""
    from promptecho.plan.job import with_checkpointing

    experiment, told = with_checkpointing(experiment, run, device, *_processes())
    if told is not None and _leads():
        print(f"train {run}: activation checkpointing {told}", file=sys.stderr, flush=True)
    return experiment


def _with_gathering(experiment: ExperimentConfig, run: str, device: str) -> ExperimentConfig:
    """With a way in place of `reward_placement.gather: auto`: for rewards that a shared VLM writes whole by phases, on
    a GPU where the plan has room for it; else layer by layer.

    Raises:
        ConfigError: there is no room.
    """
    from promptecho.config import run_rewards, run_training
    from promptecho.config.rewards import writes_sharded
    from promptecho.plan.gathering import with_placement

    placement, (world_size, per_node) = run_training(experiment, run).reward_placement, _processes()
    if placement.gather != "auto":
        return experiment
    if not writes_sharded(run_rewards(experiment, run), placement, world_size):
        return with_placement(experiment, run, gather="layer")
    if not device.startswith("cuda"):
        return with_placement(experiment, run, gather="phase")
    import torch

    from promptecho.plan.job import choose_gathering

    memory = torch.cuda.get_device_properties(device).total_memory
    try:
        return choose_gathering(experiment, run, memory, world_size, per_node)
    except ConfigError:
        raise
    except Exception as error:  # what can't be planned, such as a family from outside, can be trained all the same
        reason = " ".join(str(error).split())[:200]
        if _leads():
            print(f"train {run}: gather layer, as the run cannot be planned ({reason})", file=sys.stderr, flush=True)
        return with_placement(experiment, run, gather="layer")


def _processes() -> tuple[int, int]:
    """(all processes of this training, those on each node), as the launcher says."""
    from promptecho.cluster.slurm_env import ranks_of_step

    known = {**os.environ, **ranks_of_step(os.environ)}
    world_size = int(known.get("WORLD_SIZE", 1))
    return world_size, int(known.get("LOCAL_WORLD_SIZE") or world_size)


def _work_per_iteration(experiment: ExperimentConfig, run: str, captions: Path, device: str) -> Work | None:
    """What metrics need for TFLOP/s and MFU, where `compute.mfu` asks for them; on rank 0, which writes metrics."""
    wanted = experiment.compute.mfu
    if wanted == "off" or (wanted == "auto" and not device.startswith("cuda")) or not _leads():
        return None
    import torch

    from promptecho.plan.gpus import known, of_device
    from promptecho.plan.useful import prompt_tokens, work_of

    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else "a CPU"
    listed = of_device(card)
    gpu = None if listed is None else known()[listed]
    told = f"MFU is by the datasheet of {gpu.name}" if gpu else f"no datasheet of {card} is known: TFLOP/s, no MFU"
    try:
        work = work_of(experiment, run, prompt_tokens(experiment, captions), gpu)
    except Exception as error:  # what can't be counted, such as a family from outside, can be trained all the same
        reason = " ".join(str(error).split())[:200]
        work, told = (
            None,
            f"no TFLOP/s and MFU, as the work cannot be counted ({reason}); compute.mfu: off asks for none",
        )
    print(f"train {run}: {told}", file=sys.stderr, flush=True)
    return work


def _check_initial(experiment: ExperimentConfig, run: str, folder: Path | None) -> None:
    """The configuration says whether there is an adapter to begin with, the workflow where it lies.

    Raises:
        ConfigError: one of the two alone.
        DataError: it is not there.
    """
    from promptecho.config.initial import initial_adapter

    initial = initial_adapter(experiment, run)
    if initial is None and folder is not None:
        raise ConfigError(
            f"train: --init-adapter {folder}: run {run} has no training.init_adapter; set it, or leave out"
        )
    if initial is not None and folder is None:
        where = f"results/{experiment.experiment}/{initial.folder}"
        raise ConfigError(f"train: run {run} has training.init_adapter, so it needs --init-adapter, such as {where}")
    if folder is not None and not (folder / "adapter_model.safetensors").is_file():
        raise DataError(
            f"{folder}: no adapter folder (adapter_model.safetensors is missing); promptecho adapter import"
        )


def _keep_finished(experiment: ExperimentConfig, run: str, out: Path) -> None:
    """A finished checkpoint is not overwritten because a key was edited."""
    from promptecho.config import slice_digest
    from promptecho.config.reruns import SLICE, state_digests

    made = state_digests(out).get(SLICE)
    if (out / "adapter").is_dir() and made not in (None, slice_digest(experiment, "train", run=run)):
        raise ConfigError(
            f"train: {out} is a finished checkpoint that was trained with other settings (digest {made}); name another "
            "folder with --out, or move this one away"
        )


def _quiet_all_but_one() -> None:
    """Warnings of libraries, already those of their import, are the same on every rank: rank 0 prints them."""
    if not _leads():
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")


def _leads() -> bool:
    """Whether this is rank 0, or alone."""
    from promptecho.cluster.slurm_env import ranks_of_step

    return not int({**os.environ, **ranks_of_step(os.environ)}.get("RANK", 0))


def _replay(config: Path, folder: Path, threads: int | None, device: str) -> dict:
    from promptecho.models.locate import job_config

    experiment = job_config(config)
    import torch

    from promptecho.cluster.device import choose_device
    from promptecho.train.replay import replay

    if threads is not None:
        torch.set_num_threads(threads)
    return replay(experiment, folder, torch.device(choose_device(device)))
