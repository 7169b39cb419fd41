"""The echo reward against what one would write without it: `model(..., labels=...)`, an image at a time.

    python perf/gpu/reward.py --folder /scratch/random-models                # Qwen3-VL-8B, random weights, 1024 px
    python perf/gpu/reward.py --model shapes --device cpu --threads 1        # the embedded model
    python perf/gpu/reward.py --tiny --folder /tmp/random-models             # what the tests run

The plain call masks everything but the label with -100 and takes the loss's negative: the mean log-probability of the
label's tokens, but also the logits of every position. Ours packs images into batches and computes logits of the label's
positions only. Sides in turning order: plain, ours one by one, ours in batches, and batches with logits of the label's
positions through the library's pass, which reads numbers back from the device. Times on a CPU are this
process's CPU seconds, because other work may share the machine. The largest difference of a reward is reported too.
`--counts` says besides how often each side calls an operator, copies to the device and waits for it (host_waits.py).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import host_waits
import measuring
import models
import torch
from PIL import Image
from rich.table import Table

from promptecho.bench.rewards import librarys_pass, pictures, plain
from promptecho.rewards.echo.reward import EchoReward
from promptecho.vlm import Vlm, label_pass, load_vlm, patches


@contextmanager
def marked() -> Iterator[None]:
    """What our pass copies to the device is marked."""
    places = label_pass, patches
    before = [place.on_device for place in places]
    for place, own in zip(places, before, strict=True):
        place.on_device = lambda values, device, own=own: host_waits.mark(own(values, device))
    try:
        yield
    finally:
        for place, own in zip(places, before, strict=True):
            place.on_device = own


def count(vlm: Vlm, images: list[Image.Image], labels: list[str], reward: EchoReward) -> dict[str, dict]:
    """What each side asks of the device for all images: see host_waits.py."""
    ids = [str(i) for i in range(len(images))]
    with librarys_pass(vlm):
        found = {"plain": host_waits.counts(lambda: plain(vlm, images, labels, mark=host_waits.mark), vlm.model)}
    with marked():
        found["ours"] = host_waits.counts(lambda: reward(images, labels, ids), vlm.model)
    return found


def counts_table(counted: dict[str, dict], n: int) -> Table:
    table = Table(title=f"What the device is asked for {n} rewards")
    for column in ("side", "operators called", "reads that wait", "copies", "MB copied", "GFLOP", "of these, logits"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for name, facts in counted.items():
        copies = facts["copies"]
        table.add_row(
            name, f"{facts['operators']:,}", str(sum(facts["reads"].values())), str(copies.get("copies", 0)),
            f"{copies.get('bytes', 0) / 1e6:.3f}", f"{facts['flops'] / 1e9:.3f}", f"{facts['head_flops'] / 1e9:.3f}",
        )  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="A model folder, or `shapes`; default: random weights of Qwen3-VL-8B's size.")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--tokens", type=int, help="Tokens of a label; default 260, a caption of 200 words (else 24).")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--counts", action="store_true", help="Count operators, copies and waits for the device, too.")
    measuring.add_setting(parser)
    arguments = parser.parse_args()
    setting = measuring.setting(arguments)
    device, dtype, small, size = setting.device, setting.dtype, setting.small, setting.size
    path = arguments.model
    if path is None:
        name = "tiny-qwen3vl-8b" if arguments.tiny else "qwen3vl-8b"
        path = models.qwen3vl(arguments.folder / name, device, getattr(torch, dtype), tiny=arguments.tiny)
    vlm = load_vlm(path, dtype=dtype, device=device)
    images = pictures(arguments.images, size, size)
    labels = models.prompts(arguments.images, arguments.tokens or (24 if small else 260))
    ids = [str(i) for i in range(len(images))]
    single, batched = (EchoReward(vlm, batch_size=n) for n in (1, arguments.batch_size))

    def library(code: Callable[[], list[float]]) -> list[float]:
        with librarys_pass(vlm):
            return code()

    sides = {
        "plain": lambda: library(lambda: plain(vlm, images, labels)),
        "ours, batch 1": lambda: single(images, labels, ids),
        f"ours, batch {arguments.batch_size}": lambda: batched(images, labels, ids),
        f"library's pass, batch {arguments.batch_size}": lambda: library(lambda: batched(images, labels, ids)),
    }
    taken = measuring.in_rounds(sides, device, arguments.rounds)
    peak = measuring.matmul_peak(device, getattr(torch, dtype), tiny=arguments.tiny)
    needed = measuring.flops(sides["ours, batch 1"])
    expected = torch.tensor(taken["plain"][0].value)
    facts = {
        **measuring.describe(device), "model": str(arguments.model or path.name), "dtype": dtype, "images": len(images),
        "pixels": size, "rounds": arguments.rounds, "matmul_peak_tflops": peak / 1e12, "sides": {},
    }  # fmt: skip
    table = Table(title=f"{len(images)} rewards, {size} px, {dtype}, {facts['device']}; n = {arguments.rounds} rounds")
    for column in ("side", "seconds", "plain / side", "of matmul peak", "peak memory, GB", "largest difference"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for name, runs in taken.items():
        times = [run.time_on(device) for run in runs]
        ratio = measuring.ratios(taken["plain"], runs, device)
        used = needed / statistics.median(times) / peak
        gap = float((torch.tensor(runs[0].value) - expected).abs().max())
        memory = max(run.peak_gb for run in runs)
        table.add_row(
            name, measuring.spread(times, 3), measuring.spread(ratio), f"{used:.0%}", f"{memory:.2f}", f"{gap:.1e}"
        )
        facts["sides"][name] = {
            "seconds": times, "plain_over_this": ratio, "share_of_matmul_peak": used, "peak_gb": memory, "gap": gap,
        }  # fmt: skip
    measuring.show(table)
    if arguments.counts:
        facts["counts"] = count(vlm, images, labels, batched)
        measuring.show(counts_table(facts["counts"], len(images)))
    measuring.write(arguments.out, facts)


if __name__ == "__main__":
    main()
