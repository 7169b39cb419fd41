"""The rewards of a run, against what one would write without them: `model(..., labels=...)`, an image at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from promptecho.bench.context import Bench
from promptecho.bench.measuring import Taken, free, ratios, taken
from promptecho.config import reward_vlm, run_rewards
from promptecho.rewards.echo.reward import DEFAULT_QUERY
from promptecho.vlm import Vlm, label_pass, load_vlm, log_probs
from promptecho.vlm.inputs import batch_inputs, label_text

BATCHES = 4  # images of the step, over those of a pass of the sampler


def plain(
    vlm: Vlm, images: list[Image.Image], labels: list[str], query: str = DEFAULT_QUERY,
    mark: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
) -> list[float]:  # fmt: skip
    """Rewards by the model's own loss: all but the label is masked with -100. `mark` is called with what was copied to
    the device."""
    rewards = []
    for image, label in zip(images, labels, strict=True):
        text = label_text(vlm, query, label, name="label")
        inputs = batch_inputs(vlm, [image], [text.text], padding_side="right")
        inputs = {key: mark(value) for key, value in inputs.items()}
        targets = torch.full_like(inputs["input_ids"], -100)
        n = len(text.label_ids)
        targets[:, -n:] = inputs["input_ids"][:, -n:]
        with torch.no_grad():
            rewards.append(-float(vlm.model(**inputs, labels=targets, use_cache=False).loss))
    return rewards


def pictures(n: int, width: int, height: int) -> list[Image.Image]:
    """Images of noise: what they show costs nothing."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (n, height, width, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(value.numpy()) for value in values]


@contextmanager
def librarys_pass(vlm: Vlm) -> Iterator[None]:
    """The library's own pass, attention and patches, where we have ours (label_pass.py, packed.py, patches.py)."""
    if not label_pass.can_stay_on_host(vlm.model):
        yield
        return
    vision, text = vlm.model.model.visual.config, vars(vlm.model.model.language_model)
    processor = vlm.processor.image_processor
    kept = vision._attn_implementation, type(processor), log_probs.can_stay_on_host
    added = text.pop("_deepstack_process", None)
    vision._attn_implementation, processor.__class__ = "sdpa", Qwen2VLImageProcessorPil
    log_probs.can_stay_on_host = lambda model: False
    try:
        yield
    finally:
        vision._attn_implementation, processor.__class__, log_probs.can_stay_on_host = kept
        if added is not None:
            text["_deepstack_process"] = added


def reward(bench: Bench) -> None:
    """Each reward that the VLM gives by its passes alone; the echo reward after the plain call."""
    from promptecho.rewards.base import RewardContext
    from promptecho.rewards.make import make_reward
    from promptecho.train.placement.layout import make_layout
    from promptecho.train.placement.local import load_reward_vlms

    n, t2i, device = BATCHES * bench.images, bench.config.models.t2i, bench.device
    images, labels, ids = pictures(n, t2i.width, t2i.height), bench.texts(bench.equal(n)), [str(i) for i in range(n)]
    entries = [entry for entry in run_rewards(bench.config, bench.run) if entry.reward.needs_vlm]
    if not entries:
        bench.row("no reward of this run needs a VLM")
        return
    before: list[Taken] = []
    query = bench.config.captions.query
    first_echo = next((entry for entry in entries if entry.name == "echo"), None)
    if first_echo is not None:
        section = reward_vlm(bench.config, first_echo, bench.run)
        assert section is not None, "echo needs one"
        vlm = load_vlm(
            section.path, dtype=section.dtype, device=device, revision=section.revision,
            trust_remote_code=section.trust_remote_code,
        )  # fmt: skip
        asked = first_echo.query or query
        with librarys_pass(vlm):
            _, before = taken(lambda: plain(vlm, images, labels, asked), device, bench.rounds)
        bench.row(f"model(..., labels=...), {n} images one by one", **bench.timed(before))
        del vlm
        free(device)
    vlms = load_reward_vlms(bench.config, bench.run, device, make_layout(bench.training, 0, 1, 1))
    given = zip(vlms, bench.planner.vlms(bench.config, bench.run), run_rewards(bench.config, bench.run), strict=True)
    for given_vlm, costs, entry in given:
        if costs is None:
            continue
        context = RewardContext(
            vlm=given_vlm, device=device, options=entry.options, query=entry.query or query,
            batch_size=entry.batch_size, seed=bench.training.seed,
        )  # fmt: skip
        built = make_reward(entry.name, context)
        first, runs = taken(partial(built, images, labels, ids), device, bench.rounds)
        values: dict[str, Any] = {"remarks": f"first call {first.seconds:.1f} s"}
        if entry is first_echo:
            gap = max(abs(a - b) for a, b in zip(before[0].value, runs[0].value, strict=True))
            values = {
                "ratio": ratios(before, runs, device),
                "remarks": f"against the plain call; rewards differ by {gap:.1g} at most; {values['remarks']}",
            }
        size = min(entry.batch_size, n)
        cost = None if entry.reward.writes else costs.reward(size, entry, query).times(n / size)
        bench.row(f"{entry.name}, {n} images in batches of {size}", **bench.timed(runs, cost), **values)
