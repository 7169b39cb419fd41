"""Our sampler against the diffusers pipeline: prompts to images, without and with an adapter.

    python perf/gpu/sampler.py --folder /scratch/random-models               # Z-Image (6B), random weights, 1024 px
    python perf/gpu/sampler.py --model shapes --device cpu --threads 1       # the embedded model
    python perf/gpu/sampler.py --tiny --folder /tmp/random-models            # what the tests run

Both sides encode the same prompts, start from the same noise, take the same steps with guidance and decode with the
same VAE in one batch. What differs: ours encodes each prompt once however many images it has, unpadded; and with an
adapter of random weights it folds that into the base weights while it samples, where those are float32. Where they are
not, the adapter is measured a second time computing in float32, as PEFT does unless told otherwise. Pairs in turning
order; times on a CPU are this process's CPU seconds. The largest difference of a pixel is reported too.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import measuring
import models
import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from rich.table import Table

from promptecho.config.training_parts import LoraSection
from promptecho.t2i.lora import add_lora, merged, trained_parameters
from promptecho.t2i.registry import load_family
from promptecho.train.data import normal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="A Z-Image pipeline's folder, or `shapes`; default: random weights, real size.")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--per-prompt", type=int, default=4, help="Images of each prompt.")
    parser.add_argument("--tokens", type=int, help="Tokens of a prompt; default 260, a caption of 200 words (else 24).")
    parser.add_argument("--steps", type=int, help="Steps of the ODE; default 30 (tiny: 3).")
    parser.add_argument("--guidance-scale", type=float, default=3.5)
    parser.add_argument("--rank", type=int, default=64, help="Of the adapter.")
    measuring.add_setting(parser)
    arguments = parser.parse_args()
    setting = measuring.setting(arguments)
    device, dtype, small, size = setting.device, setting.dtype, setting.small, setting.size
    steps = arguments.steps or (3 if arguments.tiny else 30)
    path = arguments.model
    if path is None:
        name = "tiny-zimage" if arguments.tiny else "zimage"
        path = models.zimage(arguments.folder / name, device, getattr(torch, dtype), tiny=arguments.tiny)
    family = load_family("zimage", str(path), dtype=dtype, device=device)
    texts = models.prompts(arguments.prompts, arguments.tokens or (24 if small else 260))
    n = arguments.prompts * arguments.per_prompt
    noise = torch.stack([normal(family.latent_shape(size, size), 0, "perf", i) for i in range(n)]).to(device)
    options = {"num_inference_steps": steps, "guidance_scale": arguments.guidance_scale}

    def pipeline() -> list[Any]:
        each = [text for text in texts for _ in range(arguments.per_prompt)]
        return family.pipeline(prompt=each, height=size, width=size, latents=noise.clone(), **options).images

    def ours() -> list[Any]:
        cond = [c for c in family.encode_prompts(texts) for _ in range(arguments.per_prompt)]
        return family.decode(family.sample(noise, cond, **options))

    def with_adapter() -> list[Any]:
        with merged(family.transformer):
            return ours()

    peak = measuring.matmul_peak(device, getattr(torch, dtype), tiny=arguments.tiny)
    needed = measuring.flops(ours)
    facts = {
        **measuring.describe(device), "model": str(arguments.model or path.name), "dtype": dtype, "images": n,
        "prompts": arguments.prompts, "pixels": size, "steps": steps, "guidance_scale": arguments.guidance_scale,
        "rounds": arguments.rounds, "matmul_peak_tflops": peak / 1e12, "comparisons": {},
    }  # fmt: skip
    table = Table(
        title=f"{n} images of {arguments.prompts} prompts, {size} px, {steps} steps, {dtype}, {facts['device']}; "
        f"n = {arguments.rounds} pairs"
    )
    for column in ("adapter", "pipeline s", "ours s", "pipeline / ours", "of matmul peak", "peak GB", "difference"):
        table.add_column(column, justify="left" if column == "adapter" else "right")

    def compare(name: str, mine) -> None:
        taken = measuring.in_rounds({"pipeline": pipeline, "ours": mine}, device, arguments.rounds)
        times = {side: [run.time_on(device) for run in runs] for side, runs in taken.items()}
        ratio = measuring.ratios(taken["pipeline"], taken["ours"], device)
        used = needed / statistics.median(times["ours"]) / peak
        memory = {side: max(run.peak_gb for run in runs) for side, runs in taken.items()}
        pairs = zip(taken["pipeline"][0].value, taken["ours"][0].value, strict=True)
        gap = max(int(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max()) for a, b in pairs)
        table.add_row(
            name, measuring.spread(times["pipeline"]), measuring.spread(times["ours"]), measuring.spread(ratio),
            f"{used:.0%}", f"{memory['pipeline']:.2f}, {memory['ours']:.2f}", f"{gap} of 255",
        )  # fmt: skip
        facts["comparisons"][name] = {
            "seconds": times, "pipeline_over_ours": ratio, "share_of_matmul_peak": used, "peak_gb": memory, "gap": gap,
        }  # fmt: skip

    compare("none", ours)
    # It changes the layers in place, so the pipeline samples with it too.
    family.transformer = add_lora(
        family.transformer, LoraSection(rank=arguments.rank, alpha=2 * arguments.rank), 0, family.lora_targets
    )
    with torch.no_grad():
        for parameter in trained_parameters(family.transformer).values():
            parameter.normal_(0, 1e-3)
    compare(f"rank {arguments.rank}", with_adapter)
    if dtype != "float32":
        for layer in family.transformer.modules():
            if isinstance(layer, LoraLayer):
                layer.cast_input_dtype_enabled = True
        compare(f"rank {arguments.rank} in float32", with_adapter)
    measuring.show(table)
    measuring.write(arguments.out, facts)


if __name__ == "__main__":
    main()
