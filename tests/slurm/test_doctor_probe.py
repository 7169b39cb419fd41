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


def facts(cluster: Cluster, folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    """What the command prints as JSON, and what it says beside that."""
    command = [sys.executable, "-m", "promptecho", "doctor", "--config", "tiny.yaml", "--profile", "profile", "--json"]
    done = subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True,
        env={**os.environ, **cluster.environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout), done.stderr


def diagnosed(cluster: Cluster, folder: Path, *options: str) -> dict[str, Any]:
    found, _ = facts(cluster, folder, "--probe", "--only", "nodes", *options)
    return {check["check"]: check["findings"] for check in found["checks"]}


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
    # One that Slurm is still completing is over.
    assert cluster.run("squeue", "-h", "-t", "pending,running,suspended", "-n", "promptecho-doctor").strip() == ""
    assert not (folder / "results").exists()

    # GPUs that Slurm counts and torch does not see.
    train = {"slurm_partition": "'main'", "gres": "'gpu:1'"}
    profile["set-resources"] = {"train": train}
    (folder / "profile/config.yaml").write_text(yaml.safe_dump(profile))
    nodes = diagnosed(cluster, folder)["nodes"]
    (missing,) = [one for one in nodes if one["severity"] == "problem"]
    assert "1 GPU(s) asked for: torch" in missing["what"] and "rule train" in missing["when"]


def test_a_rehearsal_is_one_job_on_a_node(cluster, tmp_path):
    """Of an experiment without training, which is the cheapest one."""
    folder = tmp_path / "it's a größe"
    (folder / "profile").mkdir(parents=True)
    images = {"benchmark": "geneval", "shapes": {"per_tag": 1, "seed": 1}, "num_inference_steps": 2}
    scored = {"image_set": "geneval", "scorer": "geneval", "backend": "oracle"}
    evaluated = {"image_sets": {"geneval": images}, "benchmarks": {"geneval": scored}, "runs": {}}
    evaluated["evaluate"] = [{"benchmark": "geneval", "base": True}]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT | evaluated | {"resources": {}}))
    resources = {"slurm_partition": "main", "slurm_account": "lab", "mem": "2GB"}
    profile = {"executor": "submitit", "default-resources": resources}
    (folder / "profile/config.yaml").write_text(yaml.safe_dump(profile))
    found, said = facts(cluster, folder, "--rehearse", "--only", "rehearsal", "--no-totals")

    outcomes = {one["name"]: one["outcome"] for one in found["rehearsal"]["stages"]}
    assert outcomes == {"generate base": "ok", "score geneval": "ok"}, (found, said)
    assert all(one["seconds"] > 0 and one["memory_gb"] > 0 for one in found["rehearsal"]["stages"])
    # Nothing is left: neither a job nor a file.
    # One that Slurm is still completing is over.
    assert cluster.run("squeue", "-h", "-t", "pending,running,suspended", "-n", "promptecho-rehearsal").strip() == ""
    assert sorted(path.name for path in folder.iterdir()) == ["profile", "tiny.yaml"]
