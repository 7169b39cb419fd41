"""How often a VLM's echo prefers a moving video's true caption to one with exactly one fact made wrong.

    python perf/moving_pairs.py --vlm moving-vlm --pairs 400

The videos are drawn, so that what is true of them is known; no training saw them, since the seed is another. Printed
by what is wrong: how many pairs, the share that the echo gets right, and its 95 % interval (Wilson).
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from promptecho.intervals import wilson_interval
from promptecho.moving.grammar import QUERY, corrupt, write
from promptecho.moving.render import draw_frames
from promptecho.moving.world import Mover, random_movers
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.echo.options import EchoSection
from promptecho.shipped import model_path
from promptecho.video import Video
from promptecho.vlm import load_vlm

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


def what_is_wrong(true: tuple[Mover, ...], wrong: tuple[Mover, ...]) -> str:
    """colour, shape, motion or, of motions, the opposite one; or what two movers have swapped."""
    changed = [(a, b) for a, b in zip(true, wrong, strict=True) if a != b]
    a, b = changed[0]
    fact = next(name for name in ("color", "shape", "motion") if getattr(a, name) != getattr(b, name))
    if len(changed) == 2:
        return f"{fact}s swapped"
    return "opposite motion" if fact == "motion" and OPPOSITE.get(a.motion) == b.motion else fact


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlm", default="moving-vlm")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--seed", type=int, default=123)
    asked = parser.parse_args(arguments)
    vlm = load_vlm(model_path(asked.vlm, "vlm"))
    echo = make_reward("echo", RewardContext(vlm=vlm, query=QUERY, options=EchoSection(frames=asked.frames)))
    rng, videos, captions, kinds = np.random.default_rng(asked.seed), [], [], []
    for _ in range(asked.pairs):
        movers = random_movers(rng)
        wrong = corrupt(movers, rng)
        videos.append(Video(draw_frames(movers, rng)))
        wording = int(rng.integers(2))
        captions.append((write(movers, wording), write(wrong, wording)))
        kinds.append(what_is_wrong(movers, wrong))
    names = [str(index) for index in range(asked.pairs)]
    true, false = (echo(videos, list(texts), names) for texts in zip(*captions, strict=True))
    pairs, right = Counter(), Counter()
    for kind, high, low in zip(kinds, true, false, strict=True):
        for name in (kind, "any"):
            pairs[name] += 1
            right[name] += high > low
    for name in sorted(pairs):
        low, high = wilson_interval(right[name], pairs[name])
        share = right[name] / pairs[name]
        print(f"{name}: {right[name]} of {pairs[name]}, {100 * share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]")


if __name__ == "__main__":
    main()
