"""Steps about the text-to-image model: a pass and its kernels, the sampler against the pipeline, the gradient."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch

from promptecho.bench.context import Bench
from promptecho.bench.measuring import free, median_of, ratios, taken
from promptecho.config import run_training
from promptecho.t2i.base import T2iModel
from promptecho.t2i.checkpointing import use_checkpointing
from promptecho.t2i.lora import merged, trained_parameters
from promptecho.t2i.trained import make_trainable

KERNELS = 15  # of the table
TIME = 0.6  # of the flow, where one pass is looked at
STD = 1e-3  # of an adapter's random weights
# Families whose pipelines take latents as rows of patches, and what they call the guidance of the configuration.
PACKED = {"qwenimage": "true_cfg_scale", "flux": "guidance_scale"}
NO_NEGATIVE_TEXT = "flux2"  # whose pipeline takes latents as patches' channels, and the negative prompt's embedding


def policy(bench: Bench) -> T2iModel:
    """The model as training has it, with an adapter of random weights."""
    from promptecho.plan.job import with_checkpointing
    from promptecho.train.setup import load_policy

    training = bench.training
    family = load_policy(bench.config, training, bench.device)
    chosen, told = with_checkpointing(bench.config, bench.run, str(bench.device), 1, 1)
    mode = run_training(chosen, bench.run).activation_checkpointing
    assert mode != "auto", "one is chosen"
    if told is not None:
        print(f"activation checkpointing {told}", file=sys.stderr, flush=True)
    use_checkpointing(family, mode)
    family.transformer = make_trainable(family.transformer, training, family.lora_targets)
    if training.finetuning == "lora":  # else it has the model's own weights
        with torch.no_grad():
            for parameter in trained_parameters(family.transformer).values():
                parameter.normal_(0, STD)
    return family


def folded(bench: Bench, family: T2iModel) -> AbstractContextManager[None]:
    """Passes without gradient as training has them (`compute.fold_adapter`)."""
    return merged(family.transformer, half=bench.config.compute.fold_adapter)


@torch.no_grad()
def encoded(bench: Bench, family: T2iModel, *lists: list[int]) -> list[list[torch.Tensor]]:
    """Conditionings of prompts of these lengths, and the negative one; then the text encoder leaves the device."""
    family.move_text_encoder(bench.device)
    found = [family.encode_prompts(bench.texts(lengths)) for lengths in lists]
    family.set_negative(family.encode_prompts([family.negative_prompt])[0])
    family.move_text_encoder("cpu")
    return found


def forward(bench: Bench) -> None:
    """One guided pass without gradient, with prompts of equal and of different lengths; its kernels."""
    family, n, scale = policy(bench), bench.images, bench.training.sampling.guidance_scale
    equal, mixed = encoded(bench, family, bench.equal(n), bench.mixed(n))
    x, t = bench.noise(family, n), torch.full((n,), TIME, device=bench.device)
    cost = bench.planner.t2i(bench.config, bench.training).sample_step(n, scale)

    def code(cond: list[torch.Tensor]) -> Any:
        with torch.no_grad():
            return family.guided_velocity(x, t, cond, scale)

    with folded(bench, family):
        first, runs = taken(lambda: code(equal), bench.device, bench.rounds)
        told = f"first call {first.seconds:.1f} s"
        bench.row(f"guided pass, {n} images", **bench.timed(runs, cost), remarks=told)
        first, others = taken(lambda: code(mixed), bench.device, bench.rounds)
        slower = median_of(others, bench.device) / median_of(runs, bench.device) - 1
        told = f"{slower:+.1%} of time against equal lengths of the same mean; first call {first.seconds:.1f} s"
        bench.row("the same, prompts of different lengths", **bench.timed(others), remarks=told)
        kernels, whole = by_kernel(lambda: code(equal), bench.device)
    bench.row("its kernels", kernels=kernels, remarks=f"{whole:.1f} ms, with the profiler beside; table below")


def by_kernel(code: Any, device: torch.device) -> tuple[list[dict[str, Any]], float]:
    """The kernels of one call that take longest, and the milliseconds of all; on a CPU, operators."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        code()
        if on_gpu:
            torch.cuda.synchronize(device)
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    whole = sum(getattr(event, key) for event in events) or 1
    kernels = [
        {"name": event.key[:110], "ms": getattr(event, key) / 1e3, "share": getattr(event, key) / whole,
         "calls": event.count}
        for event in events[:KERNELS] if getattr(event, key)
    ]  # fmt: skip
    return kernels, whole / 1e3


def sampler(bench: Bench, steps: int) -> None:
    """Prompts to images: the shipped pipeline, as diffusers loads it and without an adapter; then training's sampler
    with an adapter, from the same noise. The images are compared once the adapter's weights are zeros."""
    device, n, scale = bench.device, bench.images, bench.training.sampling.guidance_scale
    texts = {"equal": bench.texts(bench.equal(n)), "different": bench.texts(bench.mixed(n))}
    told = f"{n} images, {steps} steps, prompts of {{}} lengths"
    noise = bench.noise(bench.planner.t2i(bench.config, bench.training).family, n)
    theirs = {}
    pipeline = shipped(bench)
    for kind, prompts in texts.items():
        _, theirs[kind] = taken(partial(piped, bench, pipeline, prompts, noise, steps), device, bench.rounds)
        bench.row(f"diffusers' pipeline: {told.format(kind)}", **bench.timed(theirs[kind]))
    del pipeline  # the two are never there together
    free(device)
    family, costs = policy(bench), bench.planner.t2i(bench.config, bench.training)
    family.move_text_encoder(device)

    def ours(prompts: list[str]) -> Any:
        cond = family.encode_prompts(prompts)
        with folded(bench, family):
            latents = family.sample(noise.clone(), cond, num_inference_steps=steps, guidance_scale=scale)
        return family.decode(latents)

    work = costs.sample_step(n, scale).times(steps) + costs.decode(n)
    for kind, prompts in texts.items():
        first, runs = taken(partial(ours, prompts), device, bench.rounds)
        bench.row(
            f"ours with an adapter: {told.format(kind)}", **bench.timed(runs, work if kind == "equal" else None),
            ratio=ratios(theirs[kind], runs, device), remarks=f"against the pipeline; first call {first.seconds:.1f} s",
        )  # fmt: skip
    if bench.training.finetuning == "lora":
        with torch.no_grad():
            for parameter in trained_parameters(family.transformer).values():
                parameter.zero_()
    gaps = [differences(theirs[kind][0].value, ours(prompts)) for kind, prompts in texts.items()]
    most, mean = max(gap for gap, _ in gaps), max(mean for _, mean in gaps)
    told = f"differ by {most} of 255 at most, by {mean:.2g} on average"
    bench.row("images of both, the adapter's weights being 0", remarks=told)


def shipped(bench: Bench) -> Any:
    """diffusers' own pipeline on the device, with its VAE in float32 as ours has it."""
    from promptecho.config.families import FAMILIES
    from promptecho.models.locate import stage_model
    from promptecho.shipped import model_path
    from promptecho.t2i.diffusers_model import pipeline_class
    from promptecho.vlm.model import DTYPES

    t2i = bench.config.models.t2i
    path = stage_model(model_path(t2i.path, "t2i"), t2i.revision)
    whole = pipeline_class(FAMILIES.find(t2i.family).thing)
    pipeline = whole.from_pretrained(path, revision=t2i.revision, dtype=DTYPES[t2i.dtype])
    pipeline.vae.to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(bench.device)


def piped(bench: Bench, pipeline: Any, prompts: list[str], noise: torch.Tensor, steps: int) -> Any:
    """Images of the pipeline from `noise`, with the guidance of the configuration."""
    from promptecho.t2i.patches import pack, patch_channels

    t2i, scale = bench.config.models.t2i, bench.training.sampling.guidance_scale
    negative = [t2i.negative_prompt] * len(prompts)
    options: dict[str, Any] = {"guidance_scale": scale, "latents": noise.clone(), "negative_prompt": negative}
    if t2i.family in PACKED:
        options = {PACKED[t2i.family]: scale, "latents": pack(noise), "negative_prompt": negative}
    elif t2i.family == NO_NEGATIVE_TEXT:
        embedding = pipeline.encode_prompt(negative)[0]
        options = {"guidance_scale": scale, "latents": patch_channels(noise), "negative_prompt_embeds": embedding}
    return pipeline(
        prompt=list(prompts), height=t2i.height, width=t2i.width, num_inference_steps=steps, **options
    ).images


def differences(theirs: list[Any], ours: list[Any]) -> tuple[int, float]:
    """Largest and mean difference of a pixel's value."""
    gaps = [np.abs(np.asarray(a).astype(int) - np.asarray(b)) for a, b in zip(theirs, ours, strict=True)]
    return max(int(gap.max()) for gap in gaps), float(np.mean([gap.mean() for gap in gaps]))


def update(bench: Bench) -> None:
    """Loss and gradient of one micro-batch at one timestep, as the update has it; whether two have the same bits."""
    from promptecho.train.losses import loss_of

    family, training = policy(bench), bench.training
    parameters = list(trained_parameters(family.transformer).values())
    counts = sorted({1, min(training.micro_batch_size, bench.images), bench.images}, reverse=True)
    (cond,) = encoded(bench, family, bench.equal(max(counts)))
    for n in counts:
        batch = batch_of(bench, family, cond[:n])

        def gradient(batch: Any = batch) -> list[torch.Tensor | None]:
            for parameter in parameters:
                parameter.grad = None
            loss_of(family, batch, training)[0].backward()
            return [parameter.grad for parameter in parameters]

        first, runs = taken(gradient, bench.device, bench.rounds)
        pairs = list(zip(runs[0].value, runs[-1].value, strict=True))
        differ = sum(a is not None and b is not None and not torch.equal(a, b) for a, b in pairs)
        same = (
            "two gradients have the same bits"
            if not differ
            else f"{differ} of {len(pairs)} tensors of two gradients differ"
        )
        cost = _useful(bench).loss(n, training)
        remarks = f"{same}; first call {first.seconds:.1f} s"
        bench.row(f"loss and gradient, {n} image{'s'[: n > 1]}", **bench.timed(runs, cost), remarks=remarks)


def _useful(bench: Bench) -> Any:
    from promptecho.plan.useful import without_checkpointing

    return bench.planner.t2i(bench.config, without_checkpointing(bench.training))


def batch_of(bench: Bench, family: T2iModel, cond: list[torch.Tensor]) -> Any:
    """What the update takes of so many images at one timestep."""
    from promptecho.train.data import Batch

    n, device, training = len(cond), bench.device, bench.training
    x0 = bench.noise(family, n)
    noise = torch.randn(1, *x0.shape, generator=torch.Generator().manual_seed(1)).to(device)
    one = torch.ones(n, dtype=torch.float64, device=device)

    def reference(used: bool) -> torch.Tensor | None:
        return 0.9 * noise if used else None

    return Batch(
        [str(i) for i in range(n)], x0, cond, one, torch.full((1, n), TIME, device=device), noise, -one[None],
        reference(training.kl_base.weight > 0), reference(training.kl_ema.weight > 0),
    )  # fmt: skip
