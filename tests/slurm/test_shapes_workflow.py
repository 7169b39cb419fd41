"""The embedded experiment through profiles/slurm, killed, preempted, and always with the same results."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from shlex import quote

import pytest
from cluster import Cluster
from flow import COUNTED, SNAKEMAKE, Flow
from ranks import commands, send, stands_still, training_ranks

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "unit"))

import conda_stand_in  # noqa: E402
from own_wheels import borrow_packages, only_index, wheel  # noqa: E402
from tiny_experiment import metrics_without_times, same_bytes  # noqa: E402

from promptecho.envs.spec import spec_named  # noqa: E402
from snakemake_executor_plugin_submitit.payload import seconds_of  # noqa: E402

# Every stage for real, on little of everything.
SMALL = {
    "captions.shapes.count": 64, "captions.heldout": 24, "captions.batch_size": 8, "captions.num_shards": 4,
    "training.iterations": 6, "training.checkpoints": "[3,6]", "training.prompts_per_iteration": 4,
    "training.images_per_prompt": 4, "training.batch_size": 8, "training.micro_batch_size": 2,
    "training.sampling.num_inference_steps": 2, "training.sampling.batch_size": 4, "training.heldout.prompts": 4,
    "training.heldout.every": 3, "training.save_every_s": 0,
    "image_sets.heldout.heldout": 16, "image_sets.heldout.num_inference_steps": 2, "image_sets.heldout.num_shards": 1,
    "image_sets.geneval.shapes.per_tag": 1, "image_sets.geneval.images_per_prompt": 1,
    "image_sets.geneval.num_inference_steps": 2, "image_sets.geneval.num_shards": 1,
    # One by scores, one by counts, one by pairs; the other benchmarks differ in nothing that Slurm sees.
    "tables": "[heldout,geneval,densealign]",
    "evaluate": '[{"benchmark":"heldout","at":"last"},{"benchmark":"geneval","at":"last"},'
    '{"benchmark":"densealign","at":"last"}]',
}  # fmt: skip
RUN = "results/shapes/runs/promptecho-s1"
ENVIRONMENTS = ("caption", "generate", "score", "tables", "train")  # those of the rules that SMALL has


class Suite(Flow):
    """The embedded experiment in a copy of the checkout."""

    def __init__(self, folder: Path, cluster: Cluster):
        super().__init__(folder, cluster, (ROOT / "Snakefile").read_text(), prefix="pe")

    @classmethod
    def checkout(cls, folder: Path, cluster: Cluster) -> Suite:
        """A fresh copy, whose profile has been edited as its comments say: partition and account."""
        for name in ("workflow", "config", "profiles", "envs", "promptecho"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        profile = folder / "profiles" / "slurm" / "config.yaml"
        text = profile.read_text()
        assert text.count("\"'gpu'\"") == text.count("\"'research'\"") == 1
        profile.write_text(text.replace("'gpu'", "'main'").replace("'research'", "'lab'"))
        return cls(folder, cluster)

    def build_environments(self, names: tuple[str, ...], folder: Path, used: Path) -> None:
        """By `promptecho envs build`, of packages without content, and the key `envs`. Each process that starts in one
        of them adds its prefix, Slurm job and command to `used`."""
        (index := folder / "index").mkdir(parents=True)
        for pin in sorted({pin for name in names for pin in spec_named(name).packages}):
            wheel(index, *pin.split("=="), module=False)
        build = [sys.executable, "-m", "promptecho", "envs", "build", *names, "--into", str(folder)]
        environment = os.environ | only_index(index) | {"PYTHONPATH": str(self.folder)}
        subprocess.run(build, cwd=self.folder, env=environment, check=True, capture_output=True)
        what = "'\\t'.join([sys.prefix, os.environ.get('SLURM_JOB_ID', ''), *sys.orig_argv[1:5]])"
        for name in names:
            borrow_packages((folder / name).resolve(), used, what)
        with (self.folder / "config/config.yaml").open("a") as file:
            file.write(f"envs: {folder}\n")

    def command(self, *arguments: str) -> list[str]:
        """`arguments`: options, and perhaps `--` and a target; `all` otherwise."""
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        target = arguments[len(options) :] or ("--", "all")
        # Shorter waits than on a real cluster; everything else is the profile's.
        return [
            *SNAKEMAKE, "--profile", "profiles/slurm", "--seconds-between-status-checks", "1", "--latency-wait", "3",
            "--submitit-status-interval", "2", "--submitit-signal-delay", "30", *options,
            "--config", "experiments=shapes", "set=" + " ".join(f"shapes.{k}={v}" for k, v in SMALL.items()),
            *target,
        ]  # fmt: skip


@pytest.fixture(scope="module")
def suite(cluster, tmp_path_factory) -> Suite:
    folder = tmp_path_factory.mktemp("suite") / "it's a größe"
    folder.mkdir()
    one = Suite.checkout(folder, cluster)
    one.build_environments(ENVIRONMENTS, folder.parent / "environments", folder.parent / "used.txt")
    return one


def test_all_survives_a_kill_while_captions_are_queued_and_running(suite, cluster):
    # Room for two jobs at a time, as many as this machine has cores.
    rest = ["--parsable", "--output=/dev/null", "--wrap=sleep 3600"]
    blockers = [
        cluster.run("sbatch", "-w", "n1", "--exclusive", *rest).strip(),
        cluster.run("sbatch", "-w", "n2", "-c", "6", *rest).strip(),
    ]
    try:
        process = suite.start()

        def mixed() -> bool:
            assert process.poll() is None, suite.text
            states = [state for _, name, state in suite.queue() if ".caption_shard" in name]
            return "RUNNING" in states and "PENDING" in states

        suite.wait(mixed, "caption shards that run and wait")
        suite.wait(lambda: bool(commands("caption", folder=suite.folder)), "a process that writes captions")
        held = list(commands("caption", folder=suite.folder))
        send(held, signal.SIGSTOP)
        suite.kill(process)
        again = suite.start()
        suite.wait(lambda: "Taken up: Slurm job" in suite.text, "jobs taken up")
        send(held, signal.SIGCONT)
        assert suite.end(again, 1800) == 0, suite.text[-6000:]
    finally:
        cluster.run("scancel", *blockers)
    # What an operator saw in squeue, which still knows jobs that are over.
    names = set(cluster.run("squeue", "-h", "-r", "-t", "all", "-o", "%j").splitlines())
    assert {"pe.train.shapes.promptecho-s1.3", "pe.train.shapes.promptecho-s1.6"} <= names
    assert any(name.startswith("pe.generate_shard.shapes.base.0") for name in names)
    shards = [job_id for job_id in suite.submitted_as("pe.caption_shard")]
    assert len(shards) == 4, shards
    for table in ("heldout", "geneval", "densealign"):
        assert "promptecho-s1" in (suite.folder / f"results/shapes/tables/{table}.md").read_text()
    code, text = suite.run()
    assert code == 0 and "Nothing to be done" in text
    # Each command ran in the built environment of its stage: on the nodes, and beside Snakemake.
    environments = suite.folder.parent / "environments"
    named = {str((environments / name).resolve()): name for name in ENVIRONMENTS}
    rows = [line.split("\t") for line in (suite.folder.parent / "used.txt").read_text().splitlines()]
    ran = {(named[prefix], bool(job), words[2]) for prefix, job, *words in rows if words[1:2] == ["promptecho"]}
    assert {(name, command) for name, on_node, command in ran if on_node} == {
        ("score", "shapes"), ("caption", "caption"), ("train", "train"), ("generate", "generate"), ("score", "score"),
    }  # fmt: skip
    assert ("tables", False, "tables") in ran


def test_conda_environments_are_those_of_the_nodes_jobs(cluster, tmp_path):
    """By a stand-in for conda that knows one channel, the packages of this Python."""
    one, used = Suite.checkout(tmp_path, cluster), tmp_path / "used.txt"
    one.environment["PATH"] = f"{conda_stand_in.install(tmp_path / 'conda', used)}:{one.environment['PATH']}"
    code, text = one.run("--sdm", "conda", "--", "results/shapes/captions/images")
    assert code == 0, text[-6000:]
    (place,) = [path for path in (tmp_path / ".snakemake/conda").iterdir() if path.is_dir()]
    assert set(used.read_text().splitlines()) == {str(place)}
    assert len(list((tmp_path / "results/shapes/captions/images").glob("*.png"))) == 64


# Training on two nodes with a rank each, on what the first test has captioned; test_training_nodes.py has two on each.


RANKS = [
    "--set-resources", "train:nodes=2", "train:tasks_per_node=1", "train:gpus_per_node=1", "train:mem_mb=6000",
    "train:slurm_partition=spot",
]  # fmt: skip


def train(suite: Suite, name: str, cluster: Cluster, segments: tuple[int, ...], disturb: dict[int, Callable]) -> Path:
    """Segments of the run by two ranks; something disturbs the training in the middle of some of them."""
    folder = suite.folder.parent / name
    shutil.copytree(suite.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("runs", "work", "bin", "calls*"))
    shutil.rmtree(folder / ".snakemake" / "submitit", ignore_errors=True)
    one = Suite(folder, cluster)
    process = one.start(*RANKS, "--set-threads", "train=1", "--", f"{RUN}/{segments[-1]}/metrics.jsonl")
    for step in segments if disturb else ():
        states = folder / f"results/shapes/work/train/promptecho-s1/{step}"
        one.wait(lambda states=states: any(states.glob("*/states/[0-9]*")), f"a state of segment {step}")
        disturb[step](one)
        one.wait(
            lambda step=step: (folder / RUN / str(step) / "metrics.jsonl").exists() or process.poll() is not None,
            f"the end of segment {step}",
        )
    assert one.end(process) == 0, one.text[-6000:]
    # A warning of the time limit may come too late for the job to requeue itself.
    late = one.text.count("reached its time limit before it could be requeued")
    assert len(one.calls("sbatch")) == len(segments) + late
    return folder / RUN


def stand_still(suite: Suite, why_ever: Callable[[], object], until: Callable[[list[int], set[Path]], bool]) -> None:
    """Stop the ranks, two iterations before their end, so that they can't end before; let them go on `until`."""
    ranks = list(training_ranks(folder=suite.folder).values())
    send(ranks, signal.SIGSTOP)
    assert len(ranks) == 2, suite.text[-3000:]
    asked = set(stop_files(suite))
    why_ever()
    suite.wait(lambda: until(ranks, set(stop_files(suite)) - asked), "the training to be disturbed")
    send(ranks, signal.SIGCONT)


def stop_files(suite: Suite) -> Iterable[Path]:
    return (suite.folder / ".snakemake" / "submitit" / "train").rglob("*.stop.*")


def preempt(suite: Suite) -> None:
    """An urgent job takes both nodes.

    The ranks are asked to stop (with warning, which goes to the batch script alone) or ended by Slurm (without: it
    wakes stopped processes up to send them SIGTERM).
    """

    def urgent() -> None:
        suite.cluster.run("sbatch", "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", "--wrap=sleep 1")

    stand_still(suite, urgent, lambda ranks, asked: bool(asked) or not any(map(stands_still, ranks)))


def limit(suite: Suite) -> None:
    """The time limit comes near, whenever that is, and all ranks are asked to stop."""
    (job_id,) = [job_id for job_id, name, _ in suite.queue() if ".train." in name]
    used = seconds_of(suite.cluster.run("squeue", "-h", "-j", job_id, "-o", "%M").strip())

    def allow(minutes: int) -> bool:
        """Whether that is the limit now; Slurm refuses while the job ends."""
        suite.cluster.run("scontrol", "update", f"JobId={job_id}", f"TimeLimit={minutes}", check=False)
        limits = suite.cluster.run("squeue", "-h", "-j", job_id, "-o", "%l", check=False).split()
        return not limits or seconds_of(limits[0]) == 60 * minutes

    stand_still(suite, lambda: allow(int(used / 60) + 2), lambda ranks, asked: bool(asked))
    suite.wait(lambda: allow(600), "a longer limit for the next life")


def lives(run: Path) -> int:
    """How often the segments of a run were begun, by the logs of their Slurm jobs."""
    return train_logs(run).count(", restarts: ")


def train_logs(run: Path) -> str:
    logs = (run.parents[3] / ".snakemake" / "submitit" / "train").rglob("*_log.out")
    return "".join(log.read_text() for log in logs)


@pytest.fixture(scope="module")
def undisturbed(suite, cluster) -> Path:
    if not (suite.folder / "results/shapes/captions/captions.h5").exists():
        code, text = suite.run("--", "results/shapes/captions/captions.h5")
        assert code == 0, text
    run = train(suite, "undisturbed", cluster, (3, 6), {})
    assert lives(run) == 2
    name = "--name=pe.train.shapes.promptecho-s1.3"
    used = cluster.run("sacct", "-X", "-n", "-P", "-S", "2000-01-01", name, "-o", "AllocTRES")
    assert "gres/gpu=2" in used and "node=2" in used
    return run


@pytest.mark.parametrize(
    "warning, disturb",
    [(False, {3: preempt, 6: limit}), (True, {3: preempt})],
    ids=["preempted without warning, then at its time limit", "preempted with warning"],
)
def test_disturbed_training_ends_in_the_same_bits(suite, undisturbed, cluster, warning, disturb, request):
    where = request.getfixturevalue("warning_cluster") if warning else cluster
    run = train(suite, f"disturbed-{warning}", where, tuple(disturb), disturb)
    assert lives(run) >= 2 * len(disturb)
    limits = train_logs(run).count("after its time limit")
    assert limits if limit in disturb.values() else not limits
    for step in map(str, disturb):
        assert same_bytes(undisturbed / step, run / step) == []
        assert metrics_without_times(undisturbed / step) == metrics_without_times(run / step)


# The same rules under Snakemake's standard Slurm plugin, which `make test-slurm` puts beside the other packages.
STANDARD = Path(sys.prefix) / "standard-slurm-plugin"


class StandardSuite(Suite):
    def command(self, *arguments: str) -> list[str]:
        return super().command("--executor", "slurm", "--slurm-init-seconds-before-status-checks", "5", *arguments)


def test_the_same_rules_run_under_snakemake_s_standard_slurm_plugin(suite, undisturbed, cluster):
    if not (STANDARD / "snakemake_executor_plugin_slurm").is_dir():
        pytest.skip(f"NO STANDARD PLUGIN: {STANDARD} is missing; `make test-slurm` brings it where pip has an index")
    folder = suite.folder.parent / "standard"
    left_out = shutil.ignore_patterns("runs", "work", "bin", "calls*")
    shutil.copytree(suite.folder, folder, symlinks=True, ignore=left_out)
    shutil.rmtree(folder / "results/shapes/captions")
    shutil.rmtree(folder / ".snakemake" / "submitit", ignore_errors=True)
    one = StandardSuite(folder, cluster)
    one.environment["PYTHONPATH"] = str(STANDARD)
    for name in COUNTED:  # the step that this plugin starts a job in drops SLURM_CONF
        one.wrap(name, f'export SLURM_CONF={quote(str(cluster.conf))}\nexec {one.real(name)} "$@"')
    one.wrap("srun", f'export SLURM_CONF={quote(str(cluster.conf))}\nexec {one.real("srun")} "$@"')
    # Both ranks on one node, as this plugin wants more than one on each; GPUs in the one word that both plugins know.
    ranks = [word for word in RANKS if not word.startswith(("train:gpus_per_node", "train:nodes", "train:tasks_per"))]
    ranks += ["train:nodes=1", "train:tasks_per_node=2", "train:gpu=2", "train:mpi='srun'", "--set-threads", "train=1"]
    code, text = one.run(*ranks, "--", f"{RUN}/3/metrics.jsonl", timeout=600)
    assert code == 0, text[-6000:]
    assert "Taken up" not in text and not (folder / ".snakemake/submitit").exists()
    assert same_bytes(undisturbed / "3", folder / RUN / "3") == []
