"""`promptecho status` and `efficiency` beside Slurm: the executor's own ledger, and stand-ins for squeue and sacct."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from permissions import obey_permissions, writable
from status_world import JOBS, Made

from promptecho.status.efficiency import measure, megabytes, snippet
from promptecho.status.queue import AT_ONCE, ask_accounting, seconds
from promptecho.status.report import look
from promptecho.status.slurm_files import plain_name, read_ledger, slurm_name
from snakemake_executor_plugin_submitit.identity import job_name
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger, Submission

LOGDIR = ".snakemake/submitit"


class Cluster:
    """A Slurm run of `Made`, with stand-ins for squeue and sacct that print what they are given."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.made = Made(root, executor="submitit", logdir=LOGDIR, requeue_limit=3)
        self.logdir, self.calls = root / LOGDIR, root / "calls.txt"
        self.logdir.mkdir(parents=True)
        self.ledger = Ledger(self.logdir / "ledger.jsonl")
        self.bin = root / "bin"
        monkeypatch.setenv("PATH", str(self.bin), prepend=os.pathsep)
        self.answer("squeue", "")
        self.answer("sacct", "")

    def answer(self, command: str, text: str, code: int = 0) -> None:
        self.made.write(f"{command}.txt", text)
        to = "" if code == 0 else " >&2"
        script = f"#!/bin/sh\necho {command} >> {self.calls}\ncat {self.made.root}/{command}.txt{to}\nexit {code}\n"
        self.made.write(f"bin/{command}", script).chmod(0o755)

    def submit(self, *numbers: int, slurm_id: str | None, resubmissions: int = 0) -> Submission:
        names = [f"pe.{name_of(number)}" for number in numbers]
        folder = self.logdir / JOBS[numbers[0]]["rule"] / f"s{slurm_id}"
        folder.mkdir(parents=True)
        entries = [Entry(name, "f", "r", name) for name in names]
        submission = Submission(f"t{slurm_id}", str(folder), entries, resubmissions=resubmissions)
        self.ledger.intend(submission)
        if slurm_id is not None:
            self.ledger.submitted(submission, slurm_id)
        return submission

    def begin(self, job_id: str, name: str) -> Path:
        """The log of a job, as submitit and the executor begin it."""
        text = "submitit INFO (2026-11-28 12:00:00,000) - Starting with JobEnvironment(job_id=8)\n"
        text += f"[2026-11-28 12:00:01] pe.{name}: job {job_id} on n1, restarts: 0\n"
        return self.made.write(f"{LOGDIR}/generate_shard/s8/{job_id}_0_log.out", text)

    def queue(self, *rows: tuple[str, str]) -> None:
        """Rows of squeue: id, and the rest."""
        self.answer("squeue", "".join(f"{job_id}|{rest}\n" for job_id, rest in rows))

    def asked(self) -> list[str]:
        return self.calls.read_text().split() if self.calls.exists() else []


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def name_of(number: int) -> str:
    job = JOBS[number]
    return ".".join([job["rule"], *job["wildcards"].values()])


@pytest.mark.parametrize("long", [0, 60, 61, 62, 300])  # 61 makes a name of 120 bytes
def test_names_are_those_that_the_executor_gives(long):
    wildcards = {"E": "e", "R": "a+b c", "S": "ö" * (long // 2) + "s" * (long % 2), "K": "é" * 20, "N": "200"}
    job = SimpleNamespace(rule=SimpleNamespace(name="train"), wildcards_dict=wildcards, is_group=lambda: False)
    name = slurm_name("train", wildcards)
    assert plain_name(job_name("my-prefix", job)) == name and name.startswith("train.e.a+b_c.")
    assert name.endswith(".200") == (long <= 61)


def test_the_queue_the_limit_and_requeues(cluster):
    train = cluster.submit(1, slurm_id="7", resubmissions=1)
    cluster.submit(3, 4, slurm_id="8")
    (Path(train.folder) / "7.requeues").write_text('[{"life": 0, "why": "its time limit"}]')
    cluster.made.write("results/e/work/train/r/2/0123/live.jsonl", json.dumps(
        {"iteration": 1, "reward_mean": -1.5, "seconds": 3000.0}) + "\n")  # fmt: skip
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 3600))
    script = f"{cluster.logdir}/generate_shard/s8/submission.sh"
    cluster.queue(
        ("7", f"RUNNING|None|2026-11-28T11:00:00|1-00:10:00|1-00:30:00|n[1-2]|pe.train.e.r.2|{cluster.logdir}/x"),
        ("8_0", f"PENDING|Priority|{start}|0:00|4:00:00||pe.generate_shard.e.base.0.s|{script}"),
        ("8_1", f"PENDING|Priority|N/A|0:00|4:00:00||pe.generate_shard.e.base.0.s|{script}"),
        ("9", "RUNNING|None|N/A|1:00|4:00:00|n3|other|/elsewhere/job.sh"),
    )
    status = look(cluster.made.results)
    assert cluster.asked() == ["squeue"] and status.notes == []
    (train_job,) = status.running
    assert (train_job.slurm, train_job.node, train_job.elapsed, train_job.limit_s) == ("7", "n[1-2]", 87000.0, 88200.0)
    assert status.runs[0].limit == "will reach its limit, requeue 3 of 3"
    assert (status.waiting[0].jobs, status.waiting[0].reason) == (2, "Slurm: Priority")
    assert status.waiting[0].start == pytest.approx(time.time() + 3600, abs=5)
    assert status.hours.gpu_used == pytest.approx(8 * 87000 / 3600)


def test_a_job_that_is_not_in_the_queue_any_more(cluster):
    cluster.submit(1, slurm_id="7")
    cluster.submit(3, slurm_id="8")
    cluster.submit(4, slurm_id="9")
    (cluster.logdir / "generate_shard/s8/8.outcome.json").write_text(json.dumps({"returncode": 0}))
    cluster.answer("sacct", "7|NODE_FAIL\n9|RUNNING\n")
    status = look(cluster.made.results)
    assert cluster.asked() == ["squeue", "sacct"]
    assert [(one.job, one.reason) for one in status.failed] == [
        ("train r 2", "Slurm: NODE_FAIL, without a word from the job")
    ]
    assert [one.job for one in status.running] == ["generate_shard base 0 s 0", "generate_shard base 0 s 1"]


def test_a_failure_by_its_outcome_and_what_is_in_nobody_s_queue(cluster):
    failed = cluster.submit(1, slurm_id="7")
    cluster.made.begin("runs/r/2/adapter")
    told = {"returncode": 1, "node": "n1", "seconds": 9.3, "reason": None, "missing": [],
            "memory": {"kills": 1, "of_job": True, "limit_mb": 500}}  # fmt: skip
    (Path(failed.folder) / "7.outcome.json").write_text(json.dumps(told))
    (Path(failed.folder) / "7_0_log.out").write_text("Killed\n")
    cluster.ledger.ended(failed, 0, "failed")
    # Chosen by Snakemake, not submitted yet.
    cluster.made.begin("images/base/0/s/shards/0.jsonl")
    status = look(cluster.made.results)
    (one,) = status.failed
    assert (one.job, one.reason, one.last_line) == ("train r 2", "ran out of memory on n1 after 9 s", "Killed")
    assert "ready: waits for its turn" in [one.reason for one in status.waiting]


def test_a_task_that_failed_in_an_earlier_start_and_is_made_again(cluster):
    """Its array stays in the ledger while another task of it runs."""
    array = cluster.submit(3, 4, slurm_id="8")
    outcome = Path(array.folder) / "8_0.outcome.json"
    outcome.write_text(json.dumps({"returncode": 1, "node": "n1", "seconds": 5.0}))
    cluster.ledger.ended(array, 0, "failed")
    cluster.queue(("8_1", f"RUNNING|None|N/A|10:00|4:00:00|n1|pe.{name_of(4)}|{array.folder}/x"))
    (failed,) = look(cluster.made.results).failed
    assert (failed.job, failed.reason) == ("generate_shard base 0 s 0", "exit code 1 on n1 after 5 s")
    # Tried again by the same start: Snakemake has begun it, and waits for room in Slurm's queue.
    cluster.made.begin("images/base/0/s/shards/0.jsonl")
    os.utime(outcome, (time.time() - 10, time.time() - 10))
    assert cluster.made.states()["generate_shard"] == (0, 1, 1, 0, 0)
    # Failed before this start, which has read the ledger and not come to it yet.
    for mark in (cluster.made.root / ".snakemake/incomplete").iterdir():
        mark.unlink()
    os.utime(outcome, (cluster.made.started - 50, cluster.made.started - 50))
    Ledger(cluster.ledger.path)
    assert cluster.made.states()["generate_shard"] == (0, 1, 1, 0, 0)
    again = cluster.submit(3, slurm_id="9")
    cluster.answer("sacct", "9|RUNNING\n")
    assert cluster.made.states()["generate_shard"] == (0, 2, 0, 0, 0)
    cluster.made.finish(3, 1.0)
    cluster.ledger.ended(again, 0, "success")
    Ledger(cluster.ledger.path)  # of a next start, which drops what is closed
    assert cluster.made.states()["generate_shard"] == (1, 1, 0, 0, 0)


def test_a_second_person_who_may_only_read_sees_it_all_but_the_ledger(cluster):
    script = f"{cluster.logdir}/train/s7/submission.sh"
    cluster.submit(1, slurm_id="7")
    cluster.made.begin("images/base/0/s/shards/0.jsonl")
    cluster.queue(("7", f"RUNNING|None|N/A|10:00|1:00:00|n1|pe.train.e.r.2|{script}"))
    cluster.calls.touch()
    cluster.calls.chmod(0o666)
    (cluster.logdir / "ledger.jsonl").chmod(0)
    writable(cluster.made.root, False)
    command = [sys.executable, "-m", "promptecho", "status", "results/e", "--json"]
    told = subprocess.run(command, cwd=cluster.made.root, capture_output=True, text=True, preexec_fn=obey_permissions)
    writable(cluster.made.root, True)
    assert told.returncode == 0, told.stderr
    (status,) = json.loads(told.stdout)
    assert "only its owner may read it" in status["notes"][0]
    assert [(one["job"], one["node"]) for one in status["running"]] == [("train r 2", "n1")]
    assert "Slurm: in its queue, or about to be" in [one["reason"] for one in status["waiting"]]


def test_without_the_ledger_running_jobs_are_known_by_their_names(cluster):
    script = f"{cluster.logdir}/train/s7/submission.sh"
    cluster.queue(
        ("7", f"RUNNING|None|N/A|10:00|1:00:00|n1|pe.train.e.r.2|{script}"),
        ("8_[3-4]", f"PENDING|Resources|N/A|0:00|1:00:00||pe.generate_shard.e|{script}"),
    )
    status = look(cluster.made.results)
    assert [(one.job, one.node) for one in status.running] == [("train r 2", "n1")]


def test_slurm_that_does_not_answer_is_told(cluster):
    submission = cluster.submit(1, slurm_id="7")
    (Path(submission.folder) / "7.started").write_text("n5\n0\n")
    cluster.answer("squeue", "squeue: error: Unable to contact slurm controller\n", code=1)
    status = look(cluster.made.results)
    assert status.notes == ["squeue: Unable to contact slurm controller"] and cluster.asked() == ["squeue"]
    assert [(one.job, one.node, one.reason) for one in status.running] == [
        ("train r 2", "n5", "Slurm: submitted; its queue was not asked")
    ]


def test_a_ledger_whose_last_line_is_being_written(cluster):
    cluster.submit(1, slurm_id="7")
    with (cluster.logdir / "ledger.jsonl").open("a") as file:
        file.write('{"event": "ended", "tok')
    tasks, problem = read_ledger(cluster.logdir)
    assert problem is None and [(one.name, one.job_id, one.ended) for one in tasks.values()] == [
        ("train.e.r.2", "7", None)
    ]


def test_efficiency_by_accounting(cluster):
    made = cluster.made
    listed = json.loads((made.results / "work/jobs/0.json").read_text())
    listed["rules"]["generate_shard"] |= {"mem_mb": 32000, "runtime": 240, "threads": 8}
    made.write("results/e/work/jobs/0.json", json.dumps(listed))
    for number in range(3):
        cluster.begin(f"8_{number}", f"generate_shard.e.base.0.s.{number}")
    rows = [
        line
        for n in range(3)
        for line in (f"8_{n}|COMPLETED|3600|02:00:00|", f"8_{n}.batch|COMPLETED|3600|02:00:00|{9000 + n}M")
    ]
    cluster.answer("sacct", "\n".join([*rows, "9|FAILED|1|00:01|"]))
    found = measure(made.results)
    (use,) = found.rules
    assert (use.rule, use.jobs, use.source, use.cpus_used, use.peak_mb) == ("generate_shard", 3, "sacct", 2.0, 9002.0)
    assert use.better == {"runtime": 90, "mem_mb": 11500, "threads": 2}
    assert snippet(found.rules) == (
        "set-threads:\n  generate_shard: 2\nset-resources:\n  generate_shard:\n    runtime: 90\n    mem_mb: 11500"
    )
    assert found.notes[-1].startswith("how busy GPUs were: unknown") and len(found.notes) == 1


def test_efficiency_counts_no_job_of_another_experiment(cluster):
    made = cluster.made
    for name in ("other", "e.wide"):  # Snakemake was started for them in the same folder
        made.write(f"results/{name}/work/jobs/0.json", "{}")
    of = ["e.base.0.s.0", "other.base.0.s.0", "e.wide.base.0.s.0", "gone.base.0.s.0"]
    for number, name in enumerate(of):
        cluster.begin(f"8_{number}", f"generate_shard.{name}")
    cluster.answer("sacct", "".join(f"8_{n}|COMPLETED|{100 + n}|00:10|1M\n" for n in range(5)))
    found = measure(made.results)
    assert [(use.jobs, use.seconds_most) for use in found.rules] == [(1, 100.0)] and len(found.notes) == 1
    cluster.begin("8_4", "").write_text("slurmstepd: error\n")
    found = measure(made.results)
    assert [(use.jobs, use.seconds_most) for use in found.rules] == [(2, 104.0)]
    assert found.notes[0].startswith("1 Slurm job may be of another experiment")


def test_efficiency_without_accounting_says_so_and_guesses_nothing(cluster):
    made = cluster.made
    cluster.begin("8", "generate_shard.e.base.0.s.0")
    cluster.answer("sacct", "sacct: error: Slurm accounting storage is disabled\n", code=1)
    made.finish(3, 60.0)
    path = made.root / JOBS[3]["timing"]
    path.write_text(path.read_text().replace("100.0", "-").replace("\t30.0", "\tNA"))
    found = measure(made.results)
    (use,) = found.rules
    assert (use.cpus_used, use.peak_mb, use.unknown, use.better) == (None, None, ["CPU", "memory"], {})
    assert "accounting storage is disabled: of Slurm jobs only Snakemake's own timings" in found.notes[0]
    cluster.answer("sacct", "")
    assert measure(made.results).notes[0].startswith("sacct does not know these Slurm jobs")


def test_times_and_sizes_in_slurm_s_words():
    assert [seconds(one) for one in ("10", "1:30", "02:00:00", "1-00:10:00", "01:02.500", "UNLIMITED", "")] == [
        10, 90, 7200, 87000, 62.5, None, None
    ]  # fmt: skip
    assert [megabytes(one) for one in ("2048K", "9000M", "1.5G", "", "1048576")] == [2, 9000, 1536, None, 1]


def test_sacct_is_asked_about_many_jobs_in_pieces_that_a_command_can_hold(tmp_path, monkeypatch):
    """20,000 ids in one word are more than Linux takes."""
    (tmp_path / "sacct").write_text('#!/bin/sh\nfor last; do :; done\necho "${last#--jobs=}" | tr , "\\n"\n')
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    ids = [str(10_000_000 + number) for number in range(20 * AT_ONCE)]
    rows, problem = ask_accounting(ids, "JobID")
    assert problem is None and rows == [[job_id] for job_id in ids]
    (tmp_path / "sacct").write_text("#!/bin/sh\ncase $* in *10001000*) echo slurmdbd >&2; exit 1;; esac; echo 1\n")
    assert ask_accounting(ids, "JobID") == ([], "sacct: slurmdbd")
