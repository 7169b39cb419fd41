"""Training of real size on one GPU, measured: Z-Image (6B) with a Qwen3-VL-8B reward at 1024 pixels, random weights.

    python perf/gpu/train_zimage.py --folder /scratch/random-models --out zimage.json      # 39 GB of disk
    python perf/gpu/train_zimage.py --tiny --folder /tmp/random-models                     # what the tests run

Writes both models once, then runs the command `promptecho train` on a configuration made from
config/experiments/zimage.yaml, with few prompts and images and one GPU. Reported per phase: seconds, peak memory, and
the share of the device's own fastest matrix product that useful work reaches (MFU), beside what `promptecho plan` says
for the same configuration. Useful work is counted by torch on one forward pass of each part: sampling with guidance and
decoding, one pass of the VLM per image, passes without gradient, and twice a forward pass for each image, timestep and
pass of the update (forward, and backward through frozen weights). What activation checkpointing computes again is not
counted. The first iteration warms up: medians and ranges are over the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring
import models
import torch
import yaml
from rich.table import Table

from promptecho.captions.merge import MergeSpec, import_prompts
from promptecho.cluster.device import choose_device
from promptecho.config import TrainingConfig, load_experiment, run_training, run_vlm
from promptecho.files import read_jsonl
from promptecho.phases import MEASURED, PART_OF
from promptecho.rewards.echo.reward import EchoReward
from promptecho.t2i.registry import load_configured
from promptecho.train.data import normal
from promptecho.train.deal import drawn_timesteps
from promptecho.train.setup import load_prompts
from promptecho.vlm import load_vlm

ROOT = Path(__file__).resolve().parents[2]
RUN = "measured"
TINY = {
    "models.t2i.height": 32, "models.t2i.width": 32, "training.passes": 2, "training.micro_batch_size": 2,
    "training.lora.rank": 4, "training.lora.alpha": 8, "training.sampling.num_inference_steps": 3,
    "training.timesteps.per_sample": 2,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("random-models"), help="Where random models are kept.")
    parser.add_argument("--tiny", action="store_true", help="Tiny models and images, few steps.")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=2, help="Per iteration.")
    parser.add_argument("--images-per-prompt", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4, help="Images per optimizer step.")
    parser.add_argument("--tokens", type=int, help="Tokens of a prompt; default 260, for 200 words (tiny: 24).")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="Another value of the configuration, such as training.micro_batch_size=2; repeat for several.",
    )  # fmt: skip
    parser.add_argument("--gpu", default="h100", help="Which GPU `promptecho plan` is asked about.")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="Default: bfloat16 on a GPU, else float32.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads.")
    parser.add_argument("--out", type=Path, help="JSON file to write.")
    arguments = parser.parse_args()
    if arguments.iterations < 2:
        parser.error("--iterations: at least 2, as the first one warms up")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(choose_device(arguments.device))
    dtype = arguments.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    torch_dtype, prefix = getattr(torch, dtype), "tiny-" if arguments.tiny else ""
    t2i = models.zimage(arguments.folder / f"{prefix}zimage", device, torch_dtype, tiny=arguments.tiny)
    vlm = models.qwen3vl(arguments.folder / f"{prefix}qwen3vl-8b", device, torch_dtype, tiny=arguments.tiny)
    with tempfile.TemporaryDirectory(prefix="train-zimage-", dir=arguments.folder) as temporary:
        work = Path(temporary)
        config = write_config(arguments, work, t2i, vlm, dtype)
        captions = write_captions(arguments, work)
        peak = measuring.matmul_peak(device, torch_dtype, tiny=arguments.tiny)
        once = flops_of_parts(config, captions, device)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the command that follows is another process
        plan, no_plan = ask_plan(config, arguments.gpu)
        rows = train(config, captions, work, arguments, device)
        loaded = load_experiment(config)
    useful = useful_flops(once, run_training(loaded, RUN))
    facts = {
        **measuring.describe(device), "config": loaded.model_dump(mode="json"), "matmul_peak_tflops": peak / 1e12,
        "flops_of_one": once, "useful_flops_per_iteration": useful, "iterations": rows, "plan": plan,
        "no_plan_because": no_plan,
    }  # fmt: skip
    report(facts, arguments.gpu)
    measuring.write(arguments.out, facts)


def write_config(arguments: argparse.Namespace, work: Path, t2i: Path, vlm: Path, dtype: str) -> Path:
    """The shipped Z-Image experiment with these models, one short run, and what was asked for."""
    shipped = yaml.safe_load((ROOT / "config" / "experiments" / "zimage.yaml").read_text(encoding="utf-8"))
    content = {key: shipped[key] for key in ("models", "training", "rewards")}
    content |= {"captions": {"prompts": str(work / "prompts.txt"), "heldout": 0}, "runs": {RUN: {"seed": 1}}}
    content["models_prompt_cache"] = str(work / "embeddings")  # as the site's configuration has it
    content["training"].pop("checkpoint_every", None)
    changes = {
        "models.t2i.path": str(t2i), "models.t2i.dtype": dtype, "models.vlm": {"path": str(vlm), "dtype": dtype},
        "training.iterations": arguments.iterations, "training.heldout": {"prompts": 0},
        "training.prompts_per_iteration": arguments.prompts, "training.batch_size": arguments.batch_size,
        "training.images_per_prompt": arguments.images_per_prompt,
        **(TINY if arguments.tiny else {}),
        **{key: yaml.safe_load(value) for key, value in (change.split("=", 1) for change in arguments.changes)},
    }  # fmt: skip
    for key, value in changes.items():
        *outer, last = key.split(".")
        section = content
        for name in outer:
            section = section.setdefault(name, {})
        section[last] = value
    path = work / "measured.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def write_captions(arguments: argparse.Namespace, work: Path) -> Path:
    n_tokens = arguments.tokens or (24 if arguments.tiny else 260)
    texts = models.prompts(arguments.prompts * arguments.iterations, n_tokens)
    (work / "prompts.txt").write_text("\n".join(texts) + "\n")
    captions = work / "captions.h5"
    spec = MergeSpec(out=captions, heldout_out=work / "heldout.jsonl", heldout=0, max_words=10**6, max_tokens=None)
    import_prompts(work / "prompts.txt", spec)
    return captions


def flops_of_parts(config: Path, captions: Path, device: torch.device) -> dict[str, int]:
    """What one prompt, one forward pass of the transformer, one decoded image and one reward take."""
    loaded = load_experiment(config)
    t2i, vlm = loaded.models.t2i, run_vlm(loaded, RUN)
    text = load_prompts(captions)[0].text
    family = load_configured(loaded, device)
    x = normal(family.latent_shape(t2i.height, t2i.width), 0, "perf")[None].to(device)
    cond = family.encode_prompts([text])
    time = torch.full((1,), 0.5, device=device)
    with torch.no_grad():
        found = {
            "encode": measuring.flops(lambda: family.encode_prompts([text])),
            "forward": measuring.flops(lambda: family.velocity(x, time, cond)),
            "decode": measuring.flops(lambda: family.decode(x)),
        }
    image = family.decode(x)[0]
    reward = EchoReward(load_vlm(vlm.path, dtype=vlm.dtype, device=device), query=loaded.captions.query, batch_size=1)
    return {**found, "reward": measuring.flops(lambda: reward([image], [text], ["0"]))}


def useful_flops(once: dict[str, int], training: TrainingConfig) -> dict[str, int]:
    """Per phase of an iteration after the first, in which policy and moving average are still the same."""
    images, updated = training.sampled_images, training.update_images
    references = 1 + (training.kl_ema.weight > 0) + (training.kl_base.weight > 0)
    per_step = once["forward"] * (2 if training.sampling.guidance_scale > 0 else 1)
    per_loss = once["forward"] * (2 if training.train_guidance else 1)
    return {
        "sample": training.prompts_per_iteration * once["encode"]
        + images * (training.sampling.num_inference_steps * per_step + once["decode"]),
        "reward": images * once["reward"],
        "precompute": updated * drawn_timesteps(training) * references * per_loss,
        "update": training.passes * updated * training.timesteps.per_sample * 2 * per_loss,
    }


def ask_plan(config: Path, gpu: str) -> tuple[dict[str, Any] | None, str | None]:
    """What `promptecho plan` says of the same configuration on one GPU; or None, and why not."""
    command = [
        sys.executable, "-m", "promptecho", "plan", "--config", config, "--run", RUN, "--nodes", "1",
        "--gpus-per-node", "1", "--gpu", gpu, "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(done.stdout)["runs"][0], None
    except (json.JSONDecodeError, KeyError, IndexError):
        last = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        return None, f"promptecho plan ended with exit code {done.returncode}: {last[0][:300]}"


def train(
    config: Path, captions: Path, work: Path, arguments: argparse.Namespace, device: torch.device
) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl of the real command; ends this script where that fails, with its own message."""
    command = [
        sys.executable, "-m", "promptecho", "train", "--config", config, "--run", RUN, "--to", arguments.iterations,
        "--captions", captions, "--out", work / "out", "--work", work / "work", "--device", device,
    ]  # fmt: skip
    if arguments.threads:
        command += ["--threads", arguments.threads]
    done = subprocess.run([str(word) for word in command])
    if done.returncode:
        sys.exit(done.returncode)
    return read_jsonl(work / "out" / "metrics.jsonl")


def report(facts: dict[str, Any], gpu: str) -> None:
    training, rows, plan = facts["config"]["runs"][RUN], facts["iterations"][1:], facts["plan"]
    images = training["prompts_per_iteration"] * training["images_per_prompt"]
    t2i = facts["config"]["models"]["t2i"]
    seconds, memory = planned(plan)
    table = Table(
        title=f"{images} images of {t2i['height']} x {t2i['width']} pixels an iteration, {t2i['dtype']}, "
        f"{facts['device']}; n = {len(rows)} iteration(s) after a first one, median (least - most)"
    )
    for column in ("phase", "seconds", "MFU", "peak memory, GB", f"plan ({gpu}): seconds", "plan: GB"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for phase in MEASURED:
        times = [row[f"seconds_{phase}"] for row in rows]
        used = facts["useful_flops_per_iteration"][phase] / max(statistics.median(times), 1e-9)
        held = max(row[f"memory_gb_{phase}"] for row in facts["iterations"])
        table.add_row(
            phase, measuring.spread(times), f"{used / facts['matmul_peak_tflops'] / 1e12:.0%}", f"{held:.2f}",
            f"{seconds[phase]:.2f}" if phase in seconds else "", f"{memory[phase]:.2f}" if phase in memory else "",
        )  # fmt: skip
    measuring.show(table)
    print(f"images/s: {measuring.spread([row['images_per_s'] for row in rows], 3)}")
    print(f"fastest matrix product: {facts['matmul_peak_tflops']:.2f} TFLOP/s")
    if facts["no_plan_because"]:
        print(f"no plan beside it: {facts['no_plan_because']}")


def planned(plan: dict[str, Any] | None) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds and GB per phase of the metrics, from the plan's own phases."""
    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}
    if plan is not None:
        for phase in plan["phases"]:
            name = PART_OF.get(phase["name"], phase["name"])
            seconds[name] = seconds.get(name, 0.0) + phase["seconds"]
        for part, total in plan["memory"][0]["totals"].items():
            name = PART_OF.get(part, part)
            memory[name] = max(memory.get(name, 0.0), total / 1e9)
    return seconds, memory


if __name__ == "__main__":
    main()
