"""`promptecho plan`: memory and time of an experiment on given GPUs, without a GPU and without a model's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from promptecho.errors import ConfigError
from promptecho.plan import RESERVE_GB
from promptecho.suggest import maybe


def register(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    config: Annotated[Path, typer.Option(help="Experiment file or resolved configuration.")],
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes that train. Default: 1; without --gpus-per-node: by `resources`.")
    ] = None,
    gpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="GPUs of each node, a process each. Default: by `resources`.")
    ] = None,
    gpu: Annotated[
        str, typer.Option(help="Kind of GPU: h100, h200, h20, a100-80, a100-40, l40s, b200, or another.")
    ] = "h100",
    run: Annotated[
        list[str] | None, typer.Option(help="Plan this run only; repeat the option for several. Default: all runs.")
    ] = None,
    gpu_memory_gb: Annotated[
        float | None, typer.Option(min=0, help="Memory of a GPU in GB. Default: that of the kind of GPU.")
    ] = None,
    gpu_tflops: Annotated[
        float | None, typer.Option(min=0, help="Dense bfloat16 TFLOP/s of a GPU. Default: those of the kind of GPU.")
    ] = None,
    mfu: Annotated[
        str,
        typer.Option(
            metavar="SHARE|FILE",
            help="Assumed: share of the datasheet's FLOP/s that is reached in practice. Or the file of `promptecho "
            "bench`, with the share of each phase as it was measured.",
        ),
    ] = "0.3",
    transfer: Annotated[
        float, typer.Option(min=0.01, max=1, help="Assumed: share of the datasheet's bandwidths that is reached.")
    ] = 0.7,
    network_gb_s: Annotated[float, typer.Option(min=0.01, help="Assumed: GB/s between nodes, for each GPU.")] = 50.0,
    reserve_gb: Annotated[
        float, typer.Option(min=0, help="Assumed: GB of each GPU that CUDA, NCCL, workspaces and fragmentation take.")
    ] = RESERVE_GB,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Assumed: tokens of a prompt. Default: estimated from the limits in `captions`."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images to caption. Default: those of `captions` that are here.")
    ] = None,
    reply_tokens: Annotated[
        int, typer.Option(min=1, help="Assumed: tokens of a reply that a reward lets the VLM write.")
    ] = 100,
    root: Annotated[
        Path | None, typer.Option(help="Folder of fetched models. Default: models_root in config/config.yaml.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Estimate what an experiment costs on given GPUs: memory by part, seconds by phase, GPU-hours by stage.

    Needs no GPU and no weights. Exit code 1 if something does not fit; the message then says what to change.
    """
    from promptecho.config import load_experiment
    from promptecho.config.job_sizes import cluster_resources
    from promptecho.config.resources import TrainResources
    from promptecho.plan.gpus import find_gpu
    from promptecho.plan.settings import Settings, caches_prompts, read_mfu, usual_prompt_tokens

    loaded = load_experiment(config)
    device = find_gpu(gpu, gpu_memory_gb, gpu_tflops)
    names = run or list(loaded.runs)
    for name in names:
        if name not in loaded.runs:
            known = f"(known: {', '.join(loaded.runs) or 'none'}){maybe(name, loaded.runs)}"
            raise ConfigError(f"--run {name}: no such run in {config} {known}")
    if not names and not loaded.image_sets:
        raise ConfigError(f"{config}: has no run and no image set to plan; add one to runs or image_sets")
    share, measured = read_mfu(mfu, gpu)
    settings = Settings(
        share, transfer, network_gb_s, reserve_gb, prompt_tokens or usual_prompt_tokens(loaded), reply_tokens,
        loaded.captions.query, caches_prompts(config), measured,
    )  # fmt: skip
    from promptecho.plan.plan import Planner
    from promptecho.plan.result import Cluster
    from promptecho.plan.show import show

    asked = cluster_resources(loaded, "train", on_gpu=True)
    assert isinstance(asked, TrainResources), "of training"
    assert asked.nodes is not None and asked.tasks_per_node is not None, "no key of it is null"
    cluster = Cluster(device, nodes or (1 if gpus_per_node else asked.nodes), gpus_per_node or asked.tasks_per_node)
    made = Planner(settings, root).plan(loaded, cluster, names, images)
    if as_json:
        typer.echo(json.dumps(made.facts(), indent=2))
    else:
        show(made)
    if made.problems:
        raise ConfigError("\n".join(made.problems))
