"""The log folder: who may read it, and what a second user is told."""

from __future__ import annotations

import os
import pwd
import stat

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import log_access
from snakemake_executor_plugin_submitit.folder import private_folder
from snakemake_executor_plugin_submitit.log_access import another_user
from snakemake_executor_plugin_submitit.settings import ExecutorSettings


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_group_may_read_logs_if_the_user_says_so_and_never_write(tmp_path):
    folder = tmp_path / "logs"
    rule = folder / "train"
    submission = rule / "train.1-ab"
    submission.mkdir(parents=True)
    for path in (folder, rule, submission):
        path.chmod(0o2777)  # as a generous umask and a setgid folder above would have it
    files = {name: submission / name for name in ("1_0_log.out", "task_0.pkl", "submission.sh", "1.outcome.json")}
    for path in [*files.values(), folder / "ledger.jsonl"]:
        path.touch()
        path.chmod(0o664)
    assert mode(private_folder(folder, tmp_path, "group")) == 0o2750
    assert mode(rule) & 0o022 == 0 and mode(folder / "ledger.jsonl") == 0o600
    log_access.open_submission(submission, "group")
    assert mode(rule) == mode(submission) == 0o2750
    assert {name for name, path in files.items() if mode(path) & 0o077} == {"1_0_log.out"}
    assert mode(private_folder(folder, tmp_path)) == 0o2700  # and nobody gets in again
    rule.chmod(0o700)
    log_access.open_submission(submission, "owner")
    assert mode(rule) == 0o700


def test_the_setting_has_two_values():
    assert ExecutorSettings().log_access == "owner"
    with pytest.raises(WorkflowError, match="submitit-log-access: 'all' is neither owner nor group"):
        ExecutorSettings(log_access="all")


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A queue with the rows given, in the format asked for; without any, Slurm does not answer."""

    def answer(*rows: str) -> None:
        path = tmp_path / "bin" / "squeue"
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/bash\n" + ("\n".join(f"echo '{row}'" for row in rows) or "exit 1") + "\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return answer


def test_a_second_user_is_told_of_the_first_ones_jobs(tmp_path, squeue, monkeypatch):
    me = pwd.getpwuid(os.getuid()).pw_name
    squeue(f"12|{tmp_path}", "13|/elsewhere", f"14_3|{tmp_path}")
    text = another_user(os.getuid(), tmp_path)
    assert text.startswith(f"belongs to {me}, whose jobs for this working folder are in the queue (12, 14_3). ")
    assert f"let {me} go on, or work in a copy of the workflow" in text and "would run such jobs twice" in text
    squeue("13|/elsewhere")
    assert "are not in the queue now, as far as squeue shows" in another_user(os.getuid(), tmp_path)
    squeue()
    assert "may be queued or running" in another_user(os.getuid(), tmp_path)
    assert another_user(2**30, tmp_path).startswith(f"belongs to {2**30}, ")
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # now the folder is another user's
    with pytest.raises(WorkflowError, match=f"submitit-logdir: {folder}: belongs to {me}, whose jobs"):
        private_folder(folder, tmp_path)


def test_another_log_folder_does_not_double_them_either(tmp_path, squeue, monkeypatch):
    usual, mine = tmp_path / ".snakemake" / "submitit", tmp_path / "mine"
    usual.mkdir(parents=True)
    mine.mkdir()
    squeue(f"12|{tmp_path}")
    assert log_access.another_users_jobs(mine, tmp_path) is None  # one's own
    uid = os.getuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert "are in the queue (12)" in log_access.another_users_jobs(mine, tmp_path)
    assert log_access.another_users_jobs(usual, tmp_path) is None  # private_folder says it
    squeue("12|/elsewhere")
    assert log_access.another_users_jobs(mine, tmp_path) is None
