"""The training rule as one process and as several."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from tiny_experiment import metrics_without_times, same_bytes  # noqa: E402

SEVERAL = ("--set-resources", "train:nodes=2", "train:tasks_per_node=4")
CHECKPOINT = "results/tiny/runs/echo-s1/2/adapter"


def test_one_process_has_no_launcher_and_several_have_srun(workflow):
    shown = workflow.snakemake("--dry-run", "--printshellcmds", CHECKPOINT).stdout
    assert "python -m promptecho train" in shown and "ranks.sh" not in shown
    assert '${SNAKEMAKE_STOP_FILE:+--stop-file "$SNAKEMAKE_STOP_FILE"}' in shown
    shown = workflow.snakemake("--dry-run", "--printshellcmds", CHECKPOINT, *SEVERAL).stdout
    assert f"bash {workflow.root}/workflow/scripts/ranks.sh 2 4 2 python -m promptecho train" in shown


def test_another_number_of_processes_reruns_nothing(finished):
    assert finished.planned(*SEVERAL) == {}


def test_several_processes_without_slurm_are_refused_in_one_line(finished):
    shutil.rmtree(finished.root / "results/tiny/runs/echo-s1/2")
    result = finished.snakemake(CHECKPOINT, *SEVERAL)
    assert result.returncode != 0
    assert result.stdout.count("ranks.sh: 2 node(s) x 4 process(es): there is no Slurm job here; run this rule") == 1


@pytest.fixture
def trained(workflow):
    """The experiment with prompts of its own, whose run has one checkpoint, and the embedded models."""
    (workflow.root / "promptecho/shapes/weights").symlink_to(ROOT / "promptecho/shapes/weights")
    prompts = "\n".join(f"A red circle and {n} blue squares." for n in range(8))
    (workflow.root / "prompts.txt").write_text(prompts)
    workflow.edit(
        "config/experiments/tiny.yaml", "captions: {shapes: {count: 40, seed: 1}, num_shards: 3, heldout: 8}",
        "captions: {prompts: prompts.txt, heldout: 0}",
    )  # fmt: skip
    workflow.edit(
        "config/experiments/tiny.yaml", "  checkpoints: [2, 4]", "  checkpoints: [4]\n  save_every_s: 0\n  passes: 1\n"
        "  sampling: {num_inference_steps: 1}\n  timesteps: {per_sample: 1}\n"
        "  lora: {rank: 2, alpha: 4, target_modules: [to_q]}",
    )  # fmt: skip
    for old, new in {
        "prompts_per_iteration: 6": "prompts_per_iteration: 2", "images_per_prompt: 4": "images_per_prompt: 2",
        "  batch_size: 24": "  batch_size: 4", "micro_batch_size: 1": "micro_batch_size: 2",
    }.items():  # fmt: skip
        workflow.edit("config/experiments/tiny.yaml", old, new)
    return workflow


def test_two_processes_on_one_machine_stopped_by_ctrl_c_equal_torchrun(trained):
    """Under profiles/local, without Slurm; the run that torchrun starts by hand is left alone."""
    target = ["--", "results/tiny/runs/echo-s1/4/adapter"]
    options = ["--cores", "2", "--printshellcmds", "--set-resources", "train:tasks_per_node=2", "--set-threads"]
    options += ["train=1", "--quiet", "progress"]
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--profile", "profiles/local", *options, *target], cwd=trained.root,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    work = trained.root / "results/tiny/work/train/echo-s1/4"
    while not any(work.glob("*/states/[0-9]*")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, _ = process.communicate()
    assert process.returncode != 0
    log = (trained.root / "results/tiny/logs/train/echo-s1.4.log").read_text()
    assert log.count("asked to stop; state of iteration") == 1 and "2 process(es)" in log, log
    assert "Traceback" not in log, log
    state = max(work.glob("*/states/[0-9]*"), key=lambda path: int(path.name))

    again = trained.snakemake(*options, *target)
    assert again.returncode == 0, again.stdout
    log = (trained.root / "results/tiny/logs/train/echo-s1.4.log").read_text()
    assert f"from iteration {int(state.name)} to 4" in log

    (command,) = {line for line in again.stdout.splitlines() if "python -m promptecho train" in line}
    words = shlex.split(command.split("python -m promptecho ")[1].split(" ${SNAKEMAKE_STOP_FILE")[0])
    for option in ("--out", "--work", "--trackers"):
        words[words.index(option) + 1] = f"by-hand/{option[2:]}/4"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "promptecho"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *torchrun, *words], cwd=trained.root, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found, expected = trained.root / "results/tiny/runs/echo-s1/4", trained.root / "by-hand/out/4"
    assert same_bytes(found, expected) == []
    assert metrics_without_times(found) == metrics_without_times(expected)
