"""Clusters that take no more jobs now, or don't answer, or refuse: jobs wait where that helps, and fail where not."""

from __future__ import annotations

import json
import os
import signal
from itertools import count
from pathlib import Path
from shlex import quote

import pytest

_QOS = count()


@pytest.fixture
def qos(cluster):
    """Makes a QOS with the limits given, for this cluster's user."""
    made = []

    def make(*limits: str) -> str:
        made.append(f"limit{next(_QOS)}")
        cluster.run("sacctmgr", "-i", "add", "qos", made[-1], *limits)
        cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", f"qos+={made[-1]}")
        # sbatch does not hear of it before slurmctld has.
        cluster.wait(lambda: f"({made[-1]}" in known() or f"={made[-1]}(" in known(), f"the QOS {made[-1]}")
        return made[-1]

    def known() -> str:
        return cluster.run("scontrol", "show", "assoc_mgr", "flags=qos")

    return make


def part(name: str, n: int, resources: str, command: str = "sleep 1; touch {output}") -> str:
    return f"""
        rule {name}:
            output: "{name}-{{k}}.txt"
            resources: runtime=5, mem_mb=100, {resources}
            shell: "{command}"
    """


def wanted(**n: int) -> str:
    files = [f"{name}-{k}.txt" for name, many in n.items() for k in range(many)]
    return f"""
        rule all:
            input: {files}
    """


def open_in_ledger(one) -> list[str]:
    """Tokens of submissions that a next Snakemake would look for."""
    left: dict[str, set[int]] = {}
    for line in (one.folder / ".snakemake/submitit/ledger.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "intent":
            left[event["token"]] = set(range(len(event["entries"])))
        elif event["event"] == "ended":
            left[event["token"]].discard(event["index"])
    return [token for token, indices in left.items() if indices]


def test_at_a_submit_limit_what_fits_is_submitted_and_the_rest_as_jobs_end(cluster, flow, qos, tmp_path):
    """Of the user's own jobs, with another workflow's among them, and of a group's; a job that fails comes back.

    A banner and a plugin's words are no job ids, are told once, and nothing needs srun on the submit host.
    """
    own, group = qos("MaxSubmitJobsPerUser=3", "Flags=DenyOnLimit"), qos("GrpSubmitJobs=1")
    fails_once = "[ -e failed.{wildcards.k} ] || {{ touch failed.{wildcards.k}; exit 1; }}; touch {output}"
    rules = part("a", 4, f"qos='{own}'") + part("b", 2, f"qos='{group}'", fails_once)
    one = flow(cluster, wanted(a=4, b=2) + rules)
    said = f'echo sbatch >> {quote(str(one.calls_file))}; echo "Welcome, job 42 of today"'
    one.wrap("sbatch", f'{said}; {one.real("sbatch")} "$@" && echo "sbatch: lua: hello" >&2')
    one.environment["PATH"] = path_without_srun(one, tmp_path / "tools")
    foreign = cluster.run("sbatch", "--parsable", f"--qos={own}", "-o/dev/null", "--wrap=sleep 600").strip()
    try:
        code, text = one.run("--retries", "1")
    finally:
        cluster.run("scancel", foreign)
    assert code == 0, text
    assert text.count("the cluster takes no more jobs of yours now (") >= 1 and "QOSMaxSubmitJobPerUserLimit" in text
    assert "no job waits here any more" in text and "violates accounting" not in text
    one.expect_submitted(4 + 2 * 2)
    assert len(one.calls("sbatch")) < 60
    assert len(list(one.folder.glob(".snakemake/submitit/*/*/submission.sh"))) <= 8  # refused ones leave none
    assert text.count("sbatch: Welcome, job 42 of today") == 1 and text.count("sbatch: lua: hello") == 1


def path_without_srun(one, tools: Path) -> str:
    tools.mkdir()
    for folder in ("/bin", "/usr/bin"):
        for tool in Path(folder).iterdir():
            if tool.name != "srun" and not (tools / tool.name).is_symlink():
                (tools / tool.name).symlink_to(tool)
    first, python, *_ = one.environment["PATH"].split(":")
    return f"{first}:{python}:{tools}:/usr/sbin:/sbin"


def test_kept_jobs_at_ctrl_c_and_kill(cluster, flow, qos):
    own = qos("MaxSubmitJobsPerUser=1")
    command = "while [ ! -e go ]; do sleep 0.2; done; touch {output}"
    one = flow(cluster, wanted(a=3) + part("a", 3, f"qos='{own}'", command))

    def begun():
        process = one.start()
        one.wait(lambda: one.text.count("Submitted Slurm job") > before, "a submission")
        one.wait(lambda: one.states() == ["RUNNING"], "the first job")
        return process

    before = 0
    process = begun()
    os.kill(process.pid, signal.SIGINT)
    assert one.end(process) == 1
    assert "2 jobs that waited here were not submitted yet" in one.text and "Cancelling 1 Slurm job" in one.text
    assert len(open_in_ledger(one)) == 1  # the cancelled one, which may not have ended yet
    one.wait(lambda: not one.queue(), "an empty queue")
    before = one.text.count("Submitted Slurm job")
    one.kill(begun())
    assert len(open_in_ledger(one)) <= 2  # the running one, and one whose sbatch the kill has met
    cluster.run("sacctmgr", "-i", "modify", "qos", own, "set", "MaxSubmitJobsPerUser=-1")
    process = one.start()
    one.wait(lambda: "Taken up: Slurm job" in one.text, "the running job to be taken up")
    one.go()
    assert one.end(process) == 0, one.text
    one.expect_submitted(1 + 3)


def test_what_never_fits_fails_and_a_full_slurmctld_does_not(cluster, flow, qos):
    none, short = qos("MaxSubmitJobsPerUser=0"), qos("MaxWall=1", "Flags=DenyOnLimit")
    rules = part("a", 2, f"qos='{none}'") + part("b", 1, f"qos='{short}'") + part("c", 1, "nodes=1")
    one = flow(cluster, wanted(a=2, b=1, c=1) + rules)
    full = quote(str(one.folder / "full"))
    real, calls = one.real("sbatch"), quote(str(one.calls_file))
    # As an sbatch that slurmctld has no room for: it would go on trying by itself for two minutes.
    one.wrap(
        "sbatch",
        f'echo sbatch "$@" >> {calls}; if grep -q " c" "${{@: -1}}" && [ ! -e {full} ]; then touch {full}; '
        'echo "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying." >&2; sleep 600; fi; '
        f'exec {real} "$@"',
    )
    code, text = one.run()
    assert code == 1
    assert text.count("not even this job alone is taken; nothing was submitted") == 2, text
    assert "b k=0: sbatch: QOSMaxWallDurationPerJobLimit" in text and "MaxJobCount" in text
    assert (one.folder / "c-0.txt").exists()
    one.expect_submitted(1)


TWO = """
    rule second:
        input: "first.txt"
        output: "second.txt"
        resources: runtime=5
        shell: "touch {output}"

    rule first:
        output: "first.txt"
        resources: runtime=5
        shell: "touch running; while [ ! -e go ]; do sleep 0.2; done; touch {output}"
"""


def test_munged_away_while_submitting_and_ctrl_c_meanwhile(cluster, flow):
    one, ended = flow(cluster, TWO), flow(cluster, TWO)
    processes = [one.start(), ended.start()]
    for each in (one, ended):
        each.wait(lambda each=each: (each.folder / "running").exists(), "the first job")
    cluster.stop("munged")
    try:
        for each in (one, ended):
            each.go()
            each.wait(lambda each=each: "authentication error; trying again" in each.text, "an sbatch tried again")
        os.kill(processes[1].pid, signal.SIGINT)
        assert ended.end(processes[1], timeout=60) == 1  # and not only after --submitit-command-timeout
    finally:
        cluster.start("munged")
    assert one.end(processes[0]) == 0, one.text
    one.expect_submitted(2)
    ended.expect_submitted(1)
    # The next start looks whether the sbatch that got no answer has submitted something.
    assert "whether it got through is found out" in ended.text and len(open_in_ledger(ended)) >= 1
    cluster.take_back()  # a busy machine is without munged for longer than SlurmdTimeout


def test_why_jobs_wait_is_told_once(cluster, flow):
    never = cluster.run("sbatch", "--parsable", "--hold", "-o/dev/null", "--wrap=true").strip()
    cluster.run("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test")
    cluster.run("scontrol", "update", "PartitionName=scrap", "State=DOWN")
    one = flow(
        cluster,
        wanted(a=3, b=1, c=1, d=1)
        + part("a", 3, "slurm_extra='-w n2'")
        + part("b", 1, f"slurm_extra='--dependency=afterok:{never}'")
        + part("c", 1, "slurm_extra='--begin=now+1hour'")
        + part("d", 1, "slurm_partition='scrap'"),
    )
    try:
        process = one.start("--submitit-skip-checks")  # which refuse a closed partition at once
        expected = (
            "such as a k=0: wait with reason ReqNodeNotAvail", "b k=0: waits with reason Dependency",
            "c k=0: waits with reason BeginTime", "d k=0: waits with reason PartitionDown",
        )  # fmt: skip
        one.wait(lambda: all(words in one.text for words in expected), "the reasons")
        looked = len(one.calls("squeue"))
        one.wait(lambda: len(one.calls("squeue")) > looked + 2, "more calls of squeue")
        os.kill(process.pid, signal.SIGINT)
        assert one.end(process) == 1
    finally:
        cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME")
        cluster.run("scontrol", "update", "PartitionName=scrap", "State=UP")
        cluster.run("scancel", never)
    assert one.text.count("with reason") == 4 and "UnavailableNodes:n2: the nodes that it needs are down" in one.text
