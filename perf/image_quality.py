"""Whether the images of trainings in the embedded world are as well drawn as the base model's, whatever they show.

    python perf/image_quality.py results/ablations/images --set heldout --step 20 promptecho-s1 promptecho-s2 nft-s1

The world's oracle says of each object how well-formed its shape is (docs/shapes.md). An image is well drawn if it has
an object and all of its objects are well-formed; neither the prompt nor what was asked for counts. Runs that differ by
their seed alone are pooled, as further images of the same prompts. Printed for the base model and each of them: the
share of well drawn images, its paired difference to the base and its interval, by the statistics of the tables; and
the objects in an image, since one that draws fewer has fewer that could be malformed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from promptecho.figures.samples import read_column
from promptecho.images import load_image
from promptecho.scores import ScoreItem
from promptecho.shapes.oracle import WELL_FORMED, detect
from promptecho.statistics import mean_of_group_means, paired_difference, pool_seeds
from promptecho.tables.compare import SEED_OF_RUN


def well_drawn(folder: Path) -> tuple[list[ScoreItem], float]:
    """An item for each image, 1 where it is well drawn, and the mean number of objects."""
    items, objects = [], 0
    listed = read_column(folder).images
    for prompt_id, index in sorted(listed):
        found = detect(load_image(listed[prompt_id, index].path, fix="generate it again"))
        objects += len(found)
        right = bool(found) and all(thing.score >= WELL_FORMED for thing in found)
        items.append(ScoreItem(prompt_id=prompt_id, image_index=index, group="all", outcome=float(right), failed=False))
    return items, objects / len(items)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="results/E/images")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--set", dest="image_set", required=True)
    parser.add_argument("--step", type=int, required=True)
    options = parser.parse_args(arguments)
    base, objects = well_drawn(options.images / "base" / "0" / options.image_set)
    share = mean_of_group_means(base)[0]
    images, prompts = share.n_items, share.n_prompts
    print(f"{'model':>20}  images  well drawn % [95 %]      against base        objects ({images} images of {prompts})")
    print(
        f"{'base':>20}  {images:>6}  {100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
        f"{'':>30}  {objects:.2f}"
    )
    named: dict[str, list[str]] = {}
    for run in options.runs:
        match = SEED_OF_RUN.fullmatch(run)
        named.setdefault(match["name"] if match else run, []).append(run)
    for name, runs in named.items():
        seeds = [well_drawn(options.images / run / str(options.step) / options.image_set) for run in runs]
        pooled = pool_seeds([items for items, _ in seeds])
        share = mean_of_group_means(pooled)[0]
        apart = paired_difference(pool_seeds([base] * len(seeds)), pooled)
        print(
            f"{name:>20}  {share.n_items:>6}  {100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]  "
            f"{100 * apart.value:+.1f} [{100 * apart.low:+.1f}, {100 * apart.high:+.1f}] p = {apart.p_value:.3f}  "
            f"{sum(count for _, count in seeds) / len(seeds):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
