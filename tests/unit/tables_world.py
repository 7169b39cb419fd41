"""Score files as the scorers write them, for tests of tables and figures: made from random outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from promptecho.benchmarks.densealign.rules import rates
from promptecho.benchmarks.geneval.prompts import TAGS
from promptecho.benchmarks.geneval.scorer import summary_of as geneval_summary
from promptecho.benchmarks.tiif.attributes import ATTRIBUTES, LENGTHS
from promptecho.benchmarks.tiif.scorer import summary_of as tiif_summary
from promptecho.provenance import Provenance
from promptecho.scores import ScoreItem, Scores, write_scores

CATEGORIES = ("global", "entity", "attribute", "relation", "other")


def item(prompt_id: str, image_index: int, group: str, outcome: float | None) -> ScoreItem:
    return ScoreItem(prompt_id=prompt_id, image_index=image_index, group=group, outcome=outcome, failed=outcome is None)


def write(
    root: Path, scorer: str, run: str, step: int, items: Sequence[ScoreItem], summary: dict[str, float],
    parts: Sequence[ScoreItem] = (), **changed,
) -> Path:  # fmt: skip
    """Write results/E/scores/BENCH/R/N.json below `root`."""
    values = {
        "experiment": "zimage", "run": run, "step": step, "benchmark": scorer, "scorer": scorer, "backend": "judge",
        "mode": "official", "judge_model": f"{scorer}-judge 1.0", "config_digest": "d1", "git_commit": "c1",
        "prompts_digest": f"p{len(items)}", "n": len(items), "failures": sum(i.failed for i in items),
    }  # fmt: skip
    provenance = Provenance(**(values | changed))
    path = root / f"{provenance.experiment}/scores/{provenance.benchmark}/{run}/{step}.json"
    write_scores(path, Scores(provenance=provenance, summary=summary, items=list(items), parts=list(parts)))
    return path


def _rng(scorer: str, run: str, step: int) -> np.random.Generator:
    return np.random.default_rng([step, *run.encode(), *scorer.encode()])


def geneval(root: Path, run: str, step: int, chance: float, *, prompts: int = 12, **changed) -> Path:
    rng = _rng("geneval", run, step)
    items = [
        item(f"{tag}{p}", i, tag, float(rng.random() < chance))
        for tag in TAGS
        for p in range(prompts)
        for i in range(4)
    ]
    return write(root, "geneval", run, step, items, geneval_summary(items), **changed)


def dpg(root: Path, run: str, step: int, chance: float, *, prompts: int = 40, failed: int = 0, **changed) -> Path:
    """Images of 13 questions; the first `failed` images failed."""
    rng = _rng("dpg", run, step)
    outcomes = rng.binomial(13, chance, (prompts, 4)) / 13
    items = [
        item(f"partiprompts{p}", i, "all", None if 4 * p + i < failed else float(outcomes[p, i]))
        for p in range(prompts)
        for i in range(4)
    ]
    means: dict[str, list[float]] = {}
    for one in items:
        means.setdefault(one.prompt_id, []).extend([] if one.outcome is None else [one.outcome])
    overall = float(np.mean([np.mean(found) for found in means.values() if found]))
    summary = {"overall": overall, **{name: float(rng.uniform(0.8, 0.95)) for name in CATEGORIES}}
    return write(root, "dpg", run, step, items, summary, **{"backend": "mplug", **changed})


def tiif(
    root: Path, run: str, step: int, chance: float, *, attributes: Sequence[str] = ATTRIBUTES,
    prompts: Callable[[str], int] = lambda attribute: 4, questions: int = 3, mode: str = "official", **changed,
) -> Path:  # fmt: skip
    rng = _rng("tiif", run, step)
    items = [
        item(f"{a}/{p}", q + questions * (length == "long"), f"{length}:{a}", float(rng.random() < chance))
        for a in attributes
        for p in range(prompts(a))
        for length in LENGTHS
        for q in range(questions)
    ]
    return write(root, "tiif", run, step, items, tiif_summary(items, mode), mode=mode, **changed)


def densealign(
    root: Path, run: str, step: int, win: float, loss: float, *, prompts: int = 60, images: int = 1, failed: int = 0,
    **changed,
) -> Path:  # fmt: skip
    rng = _rng("densealign", run, step)
    drawn = rng.choice([1.0, -1.0, 0.0], p=[win, loss, 1 - win - loss], size=prompts * images)
    items = [
        item(f"{n // images}", n % images, "all", None if n < failed else float(value)) for n, value in enumerate(drawn)
    ]
    shares = rates([one.outcome for one in items if not one.failed])
    summary = {"overall": shares["net"], **shares, "position_bias_p": 0.25}
    return write(root, "densealign", run, step, items, summary, **({"baseline": "base @ 0"} | changed))


def textocr(root: Path, run: str, step: int, chance: float, *, groups: Sequence[str] = ("all",), **changed) -> Path:
    rng = _rng("textocr", run, step)
    items = [item(f"{g}{p}", 0, g, float(rng.random() < chance)) for g in groups for p in range(30)]
    summary = {"overall": float(np.mean([one.outcome for one in items]))}
    summary["character_error_rate"] = 0.125
    return write(root, "textocr", run, step, items, summary, **changed)
