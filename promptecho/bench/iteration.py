"""Whole iterations by `promptecho train`, phase by phase; the shares of the card that `promptecho plan --mfu` takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from promptecho.bench.context import Bench, overrides
from promptecho.config import load_experiment
from promptecho.config.load import dump_yaml
from promptecho.errors import DataError
from promptecho.phases import MEASURED
from promptecho.plan.gpus import of_device
from promptecho.train.checkpoint import LIVE
from promptecho.train.metrics import Row, read_live, read_segment

POLL_S = 0.5


def iteration(bench: Bench, iterations: int) -> None:
    """Train for so many iterations, of which the first warms up and compiles. Its rows are written as they come, so
    that a run which is broken off has told those that were whole."""
    # On the disk that holds temporary files; the models are where the configuration says.
    with tempfile.TemporaryDirectory(prefix="promptecho-bench-") as temporary:
        work = Path(temporary)
        captions, config = written(bench, work, iterations)
        command = [
            sys.executable, "-m", "promptecho", "train", "--config", str(config), "--run", bench.run, "--to",
            str(iterations), "--captions", str(captions), "--out", str(work / "out"), "--work", str(work / "work"),
            "--device", str(bench.device), *(["--threads", str(bench.threads)] if bench.threads else []),
        ]  # fmt: skip
        rows: list[Row] = []
        process = subprocess.Popen(command, stdout=sys.stderr)
        try:
            while process.poll() is None:
                time.sleep(POLL_S)
                rows = _told(bench, rows, read_live(work / "work" / LIVE))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode:
            raise DataError(f"promptecho train ended with exit code {process.returncode}; its output is above")
        rows = _told(bench, rows, read_segment(work / "out" / "metrics.jsonl"))
    summary(bench, rows)


def _told(bench: Bench, before: list[Row], now: list[Row]) -> list[Row]:
    """Write rows for iterations that are new."""
    for row in now[len(before) :]:
        first = "first one, compilation included" if not before and row["iteration"] == 1 else ""
        bench.row(f"iteration {row['iteration']}", **_values([row], ""), remarks=first)
    return now if len(now) > len(before) else before


def summary(bench: Bench, rows: list[Row]) -> None:
    """A row for each phase, of all iterations but the first; and for the plan, what share of the card they reach."""
    usual = rows[1:] or rows
    for phase in MEASURED:
        again = usual[-1].get(f"hfu_{phase}")
        remarks = f"{again:.0%} with what is computed again" if again is not None else ""
        peak = max(row[f"memory_gb_{phase}"] for row in rows)
        bench.row(phase, **_values(usual, f"_{phase}"), peak_gb=peak, remarks=remarks)
    images = bench.images / median([row["seconds"] for row in usual])
    bench.row("iteration", **_values(usual, ""), remarks=f"{images:.3g} images/s")
    shares = {
        phase: median([row[f"hfu_{phase}" if f"hfu_{phase}" in row else f"mfu_{phase}"] for row in usual])
        for phase in MEASURED if all(f"mfu_{phase}" in row for row in usual)
    }  # fmt: skip
    if shares:
        import torch

        bench.facts(gpu=of_device(torch.cuda.get_device_name(bench.device)), hfu=shares)


def _values(rows: list[Row], suffix: str) -> dict[str, Any]:
    found: dict[str, Any] = {"seconds": [row[f"seconds{suffix}"] for row in rows]}
    for key in ("tflops", "mfu"):
        if values := [row[key + suffix] for row in rows if key + suffix in row]:
            found[key] = median(values)
    return found


def written(bench: Bench, work: Path, iterations: int) -> tuple[Path, Path]:
    """Captions and configuration of the run."""
    from promptecho.captions.merge import MergeSpec, import_prompts

    training = bench.training
    texts = bench.texts(bench.equal(training.prompts_per_iteration * iterations))
    prompts, captions, config = work / "prompts.txt", work / "captions.h5", work / "measured.yaml"
    prompts.write_text("\n".join(texts) + "\n")
    spec = MergeSpec(out=captions, heldout_out=work / "heldout.jsonl", heldout=0, max_words=10**6, max_tokens=None)
    import_prompts(prompts, spec)
    config.write_text(dump_yaml(bench.config))
    settings = [f"training.iterations={iterations}", "compute.mfu=on"]
    changed = load_experiment(config, overrides(bench.run, settings))
    content = yaml.safe_load(dump_yaml(changed)) | {"models_prompt_cache": str(work / "embeddings")}
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    return captions, config
