"""How long an iteration takes on 8 to 512 GPUs, as `promptecho plan` estimates it: where more GPUs stop paying.

    python perf/scaling.py --config config/experiments/zimage.yaml --run promptecho --gpu h100

Nothing is measured. The work of the busiest GPU is exact (whole images to sample, whole units of an image at one
timestep to train on); its speed and that of the network are assumptions, which the command prints.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from promptecho.config import load_experiment, run_training
from promptecho.phases import Phase
from promptecho.plan.gpus import find_gpu
from promptecho.plan.plan import Planner
from promptecho.plan.result import Cluster
from promptecho.plan.settings import Settings, usual_prompt_tokens
from promptecho.train.deal import accumulation, largest_share

NODES = (1, 2, 3, 4, 5, 6, 8, 16, 32, 64)
PHASES = (Phase.SAMPLE, Phase.DECODE, Phase.REWARD, Phase.PRECOMPUTE, Phase.UPDATE, Phase.EXCHANGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--nodes", type=int, nargs="+", default=list(NODES))
    parser.add_argument("--mfu", type=float, default=0.3)
    parser.add_argument("--transfer", type=float, default=0.7)
    parser.add_argument("--network-gb-s", type=float, default=50.0)
    arguments = parser.parse_args()
    config = load_experiment(arguments.config)
    tokens = usual_prompt_tokens(config)
    settings = Settings(
        arguments.mfu, arguments.transfer, arguments.network_gb_s, 5.0, tokens, 100, config.captions.query, True
    )
    planner, gpu, training = Planner(settings), find_gpu(arguments.gpu), run_training(config, arguments.run)
    images = training.sampled_images
    print("| GPUs | Images | Units | Passes |", " | ".join(PHASES), "| iteration | images/s | efficiency |")
    print("| ---: " * (7 + len(PHASES)) + "|")
    first = None
    for nodes in arguments.nodes:
        plan = planner.run(config, Cluster(gpu, nodes, arguments.gpus_per_node), arguments.run)
        gpus = nodes * arguments.gpus_per_node
        seconds = {phase.name: phase.seconds for phase in plan.phases}
        total = sum(seconds.values())
        first = first or total * gpus
        work = [-(-images // gpus), largest_share(training, gpus), accumulation(training, gpus)]
        told = [*map(str, [gpus, *work]), *(f"{seconds.get(phase, 0.0):.2f}" for phase in PHASES)]
        print("|", " | ".join([*told, f"{total:.1f}", f"{images / total:.2f}", f"{first / gpus / total:.0%}"]), "|")
        sys.stdout.flush()
    print(
        f"\nImages to sample, units of a step and passes of a step: those of the busiest GPU. {gpu.name}; assumed: "
        f"{settings.mfu:.0%} of its FLOP/s, {settings.transfer:.0%} of its bandwidths, {settings.network_gb_s:g} GB/s "
        f"between nodes for each GPU, prompts of {tokens} tokens. Not in it: encoding, loading, saving, waiting for "
        "the slowest, latencies of exchanges."
    )


if __name__ == "__main__":
    main()
