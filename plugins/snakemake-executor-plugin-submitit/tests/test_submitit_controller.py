"""What scontrol says of jobs, and when its silence means that there is none."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from snakemake_executor_plugin_submitit import controller
from snakemake_executor_plugin_submitit.slurm import SlurmError, SlurmUnreachableError

# Fields as Slurm 22.05 prints them, some left out. Paths and names may have spaces; 24.05 has more fields in between.
JOB = (
    "JobId={id}{array} JobName=smk.part UserId=me(1000) GroupId=me(1000) MCS_label=N/A Priority=1 Nice=0 Account=lab "
    "QOS=normal JobState={state} Reason={reason} Dependency=(null) Requeue=1 Restarts=0 Partition=main NodeList=n2 "
    "Licenses=(null) Network=(null) Command={command} WorkDir=/home/me StdErr=/dev/null Comment=part k=1 "
)


def job(number: int, array: str = "", state: str = "RUNNING", reason: str = "None", command="/a b/submission.sh"):
    return JOB.format(id=number, array=array, state=state, reason=reason, command=command)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A command `scontrol` that prints the text and ends with the code."""

    def make(text: str, code: int = 0, name: str = "scontrol") -> None:
        (tmp_path / f"{name}.txt").write_text(text)
        script = f"#!/bin/bash\necho $@ >> {tmp_path}/calls\ncat {tmp_path}/{name}.txt; exit {code}"
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return make


def test_states_by_id(scontrol):
    scontrol(
        "\n".join([
            job(7, " ArrayJobId=7 ArrayTaskId=4-6,9%3 ArrayTaskThrottle=3", "PENDING", "Resources"),
            job(8, " ArrayJobId=7 ArrayTaskId=0 ArrayTaskThrottle=3"),
            job(20, command="(null)", state="FAILED", reason="NonZeroExitCode"),
        ])
    )  # fmt: skip
    found = controller.read_scontrol(["7_0", "7_3", "7_5", "7_9", "20", "21"])
    assert {job_id: state.state for job_id, state in found.items()} == {
        "7_0": "RUNNING", "7_5": "PENDING", "7_9": "PENDING", "20": "FAILED",
    }  # fmt: skip
    assert found["7_5"].detail == "Resources" and found["7_0"].detail == ""
    assert found["7_0"].script == "/a b/submission.sh" and found["20"].script == ""
    assert found["7_0"].name == "smk.part"


@pytest.mark.parametrize("tasks", ["1,3,5,...", "1,3,27-...", "1,3-9:2,1...", "..."])
def test_a_list_of_tasks_that_slurm_has_cut_stands_for_all_others(scontrol, tasks):
    scontrol(job(7, f" ArrayJobId=7 ArrayTaskId={tasks} ArrayTaskThrottle=3", "PENDING"))
    assert controller.read_scontrol(["7_11"])["7_11"].state == "PENDING"


@pytest.mark.parametrize(
    "answer", ["slurm_load_jobs error: Invalid job id specified", "Job 7_77 not found", "Job 7 not found in controller"]
)
def test_a_job_that_slurmctld_does_not_know(scontrol, answer):
    scontrol(answer, 1)
    assert controller.read_scontrol(["7_77"]) == {}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", SlurmUnreachableError),
        ("bash: scontrol: Permission denied", SlurmError),
    ],
)
def test_no_answer_is_no_job_that_is_gone(scontrol, answer, error):
    scontrol(answer, 1)
    with pytest.raises(error):
        controller.read_scontrol(["7"])


def test_many_arrays_are_asked_about_in_one_call(scontrol, tmp_path):
    scontrol("\n".join(job(number) for number in range(50)))
    assert len(controller.read_scontrol([str(number) for number in range(40)])) == 40
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_a_submission_is_looked_for_in_slurmctld_where_squeue_has_none(scontrol, tmp_path):
    scontrol("", name="squeue")
    scontrol(job(8, " ArrayJobId=7 ArrayTaskId=0", command=f"{tmp_path}/part/x/submission.sh"))
    assert controller.find_submission(tmp_path / "part/x", time.time()) == "7"
    assert controller.find_submission(tmp_path / "part/y", time.time()) is None
    scontrol("No jobs in the system")
    assert controller.find_submission(tmp_path / "part/x", time.time()) is None


def test_without_scontrol_accounting_tells_or_a_cache_of_squeue_is_waited_out(scontrol, tmp_path):
    scontrol("", name="squeue")
    scontrol("not for you", 1)
    scontrol(f"9_0|sbatch {tmp_path}/part/x/submission.sh\n10|sbatch other.sh", name="sacct")
    assert controller.find_submission(tmp_path / "part/x", time.time()) == "9"
    with pytest.raises(SlurmUnreachableError, match="squeue alone does not tell"):
        controller.find_submission(tmp_path / "part/y", time.time())
    assert controller.find_submission(tmp_path / "part/y", time.time() - 100) is None


def test_an_sbatch_that_still_runs_is_seen(scontrol, tmp_path):
    scontrol("", name="squeue")
    scontrol("No jobs in the system")
    (tmp_path / "sbatch").write_text("#!/bin/bash\necho begun; read line")
    command = ["bash", tmp_path / "sbatch", tmp_path / "x/submission.sh"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"begun\n"  # for a moment a new process shows no command line
        with pytest.raises(SlurmUnreachableError, match=f"still under way .process {child.pid}"):
            controller.find_submission(tmp_path / "x", time.time())
    finally:
        child.communicate()
    assert controller.find_submission(tmp_path / "x", time.time()) is None
