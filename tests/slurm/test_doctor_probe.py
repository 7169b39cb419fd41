"""The preflight on a real cluster: what its partitions can't give, and what a node tells that a probe was sent to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent.parent
EXPERIMENT = {
    "models": {"t2i": {"path": "shapes", "dtype": "float32", "height": 64, "width": 64}, "vlm": {"path": "shapes"}},
    "captions": {"shapes": {"count": 8, "seed": 1}, "heldout": 2},
    "training": {"iterations": 2},
    "runs": {"echo": {"seed": 1}},
    "resources": {"train": {"runtime": 6000}},
}


def diagnosed(cluster: Cluster, folder: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "promptecho", "doctor", "--config", "tiny.yaml", "--profile", "profile"]
    done = subprocess.run(
        [*command, "--probe", "--only", "nodes", "--json", *options], cwd=folder, capture_output=True, text=True,
        env={**os.environ, **cluster.environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return {check["check"]: check["findings"] for check in json.loads(done.stdout)["checks"]}


def test_partitions_are_compared_and_a_node_tells_what_it_sees(cluster, tmp_path):
    folder = tmp_path / "it's a größe"
    (folder / "profile").mkdir(parents=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    resources = {"slurm_partition": "'main'", "slurm_account": "'lab'"}
    rules = {"caption_shard": {"slurm_partition": "'nowhere'"}}
    profile = {"executor": "submitit", "default-resources": resources, "set-resources": rules}
    (folder / "profile/config.yaml").write_text(yaml.safe_dump(profile))
    found = diagnosed(cluster, folder, "--only", "partitions")

    told = [one["what"] for one in found["partitions"] if one["severity"] == "problem"]
    assert any("rule caption_shard: slurm_partition 'nowhere' does not exist; there are: main" in one for one in told)
    assert any("rule train: runtime 6000 minutes: partition main allows 2880" in one for one in told), told
    nodes = found["nodes"]
    assert any("partition nowhere: sbatch refuses a probe" in one["what"] for one in nodes), nodes
    (seen,) = [one["what"] for one in nodes if one["severity"] == "fine"]
    assert seen.startswith("partition main, node ") and "sees results on " in seen and "no GPU asked for" in seen
    # Nothing is left: neither a job nor a file.
    assert cluster.run("squeue", "-h", "-n", "promptecho-doctor").strip() == ""
    assert not (folder / "results").exists()

    # GPUs that Slurm counts and torch does not see.
    train = {"slurm_partition": "'main'", "gres": "'gpu:1'"}
    profile["set-resources"] = {"train": train}
    (folder / "profile/config.yaml").write_text(yaml.safe_dump(profile))
    nodes = diagnosed(cluster, folder)["nodes"]
    (missing,) = [one for one in nodes if one["severity"] == "problem"]
    assert "1 GPU(s) asked for: torch" in missing["what"] and "rule train" in missing["when"]
