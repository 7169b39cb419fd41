"""Training on two nodes with two ranks each: joined by srun, stopped, killed and resumed, always the same bits."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
from cluster import Cluster
from ranks import send, training_ranks

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "unit"))

from forked import ranks, run
from tiny_experiment import Experiment, metrics_without_times, same_bytes

from promptecho.files import read_json

ROOT = Path(__file__).resolve().parent.parent.parent
ITERATIONS = 5


class Life:
    """One Slurm job that runs `promptecho train` on two nodes, started as the workflow's rule starts it."""

    def __init__(self, cluster: Cluster, folder: Path, arguments: list[str]):
        self.cluster, self.folder = cluster, folder
        folder.mkdir()
        # Each rank's own exit code, also where srun ends the step: bash waits for its command before it traps.
        command = shlex.join([sys.executable, "-m", "promptecho", *arguments])
        rank = f"trap : TERM; {command}; code=$?; echo $code > {folder}/$SLURM_PROCID.code; exit $code"
        (folder / "job.sh").write_text(
            f"#!/bin/bash\ncd {ROOT}\nexport OMP_NUM_THREADS=1\n"
            f"bash workflow/scripts/ranks.sh 2 2 1 bash -c {shlex.quote(rank)}\necho $? > {folder}/srun.code\n"
        )
        options = ["-N2", "--ntasks-per-node=2", "--parsable", "--job-name=train", "-o", folder / "log"]
        self.job = cluster.run("sbatch", *options, folder / "job.sh").strip()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text() if (self.folder / "log").exists() else ""

    def code(self, name: str | int) -> int | None:
        """Exit code of srun, or of a rank; None where it was killed."""
        path = self.folder / f"{name}.code"
        return int(path.read_text()) if path.exists() else None

    def reach(self, work: Path, iteration: int) -> dict[int, int]:
        """Wait for the rolling state of an iteration, upon which the ranks stand still; returns their process ids."""

        def reached() -> bool:
            assert self.code("srun") is None, self.log
            return any(int(path.name) >= iteration for path in (work / "states").glob("[0-9]*"))

        self.cluster.wait(reached, f"iteration {iteration}", 300)
        ranks = training_ranks(job=self.job, folder=ROOT)
        send(ranks.values(), signal.SIGSTOP)
        assert len(ranks) == 4, self.log
        return ranks

    def end(self) -> int:
        """Wait for the job to leave the queue; returns srun's exit code."""
        self.cluster.wait(lambda: not self.cluster.run("squeue", "-h", "-j", self.job, check=False), "its end", 300)
        return self.code("srun")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("nodes"))


@pytest.fixture(scope="module")
def config(experiment) -> Path:
    return experiment.config(iterations=ITERATIONS, checkpoints=[ITERATIONS], batch_size=8)


@pytest.fixture(scope="module")
def expected(experiment, config) -> Path:
    """The checkpoint of four ranks that nothing disturbed and no Slurm started."""
    run(experiment.train(config, ITERATIONS, "expected"), ranks(4, LOCAL_WORLD_SIZE=2))
    return experiment.folder / "expected" / str(ITERATIONS)


def assert_same(checkpoint: Path, expected: Path) -> None:
    assert same_bytes(checkpoint, expected) == []
    a, b = (read_json(folder / "state" / "state.json") for folder in (checkpoint, expected))
    assert a == b and a["facts"]["world_size"] == 4 and a["iteration"] == ITERATIONS
    assert metrics_without_times(checkpoint) == metrics_without_times(expected)


@pytest.fixture(scope="module")
def lives(cluster, experiment, config) -> list[Life]:
    """The same command three times: asked to stop, with a rank killed, left to end."""
    stop, work = experiment.folder / "stop", experiment.folder / "slurm" / "work" / str(ITERATIONS)
    arguments = experiment.train(config, ITERATIONS, "slurm")
    stopped = Life(cluster, experiment.folder / "life1", [*arguments, "--stop-file", str(stop), "--json"])
    ranks = stopped.reach(work, 1)
    stop.touch()
    send(ranks.values(), signal.SIGCONT)
    stopped.end()
    stopped.reached = max(int(path.name) for path in (work / "states").glob("[0-9]*"))

    killed = Life(cluster, experiment.folder / "life2", arguments)
    ranks = killed.reach(work, stopped.reached + 1)
    os.kill(ranks[2], signal.SIGKILL)
    send(ranks.values(), signal.SIGCONT)
    killed.end()

    finished = Life(cluster, experiment.folder / "life3", [*arguments, "--json"])
    finished.end()
    return [stopped, killed, finished]


def test_stopped_and_killed_on_two_nodes_the_run_ends_with_the_bits_of_an_undisturbed_one(experiment, lives, expected):
    finished = lives[2]
    assert finished.end() == 0, finished.log
    assert_same(experiment.folder / "slurm" / str(ITERATIONS), expected)
    assert list((experiment.folder / "slurm" / "work" / str(ITERATIONS)).iterdir()) == []


def test_asked_to_stop_all_ranks_leave_with_exit_code_75(lives):
    stopped = lives[0]
    assert [stopped.code(rank) for rank in range(4)] == [75] * 4, stopped.log
    assert stopped.end() == 75, stopped.log
    assert f"asked to stop; state of iteration {stopped.reached} saved" in stopped.log
    assert f"from iteration {stopped.reached} to {ITERATIONS}" in lives[1].log


def test_without_one_rank_the_others_end(lives):
    killed = lives[1]
    assert killed.code(2) == 128 + signal.SIGKILL, killed.log
    assert killed.end() not in (0, 75)
    assert training_ranks(job=killed.job, folder=ROOT) == {}
    assert "another rank is gone" in killed.log and "Traceback" not in killed.log, killed.log


def test_what_is_said_once_is_said_by_one_rank(lives):
    for life, said in (
        (lives[0], [f"from iteration 0 to {ITERATIONS}", "4 process(es)", "asked to stop", '"finished": false']),
        (
            lives[2],
            [
                "4 process(es)",
                f"{ITERATIONS}/{ITERATIONS} iterations",
                f"checkpoint {ITERATIONS} in",
                '"finished": true',
            ],
        ),
    ):
        assert [life.log.count(text) for text in said] == [1] * len(said), life.log
        assert life.log.count("FutureWarning") <= 1
