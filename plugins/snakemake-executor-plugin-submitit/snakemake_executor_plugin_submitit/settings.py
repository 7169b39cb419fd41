"""Settings of the executor; Snakemake turns them into `--submitit-*` options and profile keys `submitit-*`."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase


def _setting(default, text: str):
    return field(default=default, metadata={"help": text, "env_var": False, "required": False})


# No postponed annotations for these fields' types: Snakemake reads them as classes.
@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    logdir: Path = _setting(
        Path(".snakemake/submitit"),
        "Folder of job logs, submitted and returned pickles and the ledger, one sub-folder per rule. Must be on a "
        "file system that all nodes share. Readable by its owner only, but see log-access; never writable by others.",
    )
    log_access: str = _setting(
        "owner",
        "Who may read the logs of Slurm jobs: `owner`, or `group` (the log folder's group, which a setgid folder above "
        "it passes on). Pickles, ledger and outcomes are for the owner in any case.",
    )
    requeue_limit: int = _setting(
        3,
        "How often one job may go on in a new allocation after it reached its time limit, was told of a preemption or "
        "cancelled by one, or lost its node. Requeueing by Slurm itself (PreemptMode=REQUEUE) is not counted. The "
        "resource `requeue_limit` of a rule goes before it.",
    )
    signal_delay: int = _setting(
        120,
        "Seconds before the time limit (half of `runtime` at most; and, where the site sends it, at a preemption) at "
        "which a job is asked to save and leave: the file named by SNAKEMAKE_STOP_FILE appears; what still runs 20 "
        "seconds before the end gets SIGTERM.",
    )
    status_interval: int = _setting(
        30,
        "Seconds between two calls of squeue (one call for all jobs). Finished jobs are seen earlier, by their "
        "outcome files, which are looked for at Snakemake's own --seconds-between-status-checks.",
    )
    array_size: int = _setting(
        1000, "Largest number of tasks in one job array; the cluster's MaxArraySize may lower it. 1 means no arrays."
    )
    jobname_prefix: str = _setting(
        "smk", "Beginning of every job name, before rule and wildcards; letters, digits, '_' and '-'."
    )
    keep_on_exit: bool = _setting(
        False,
        "Leave submitted jobs alone on Ctrl-C too, as SIGTERM and SIGHUP always do; the next start takes them up.",
    )
    command_timeout: int = _setting(
        600, "Seconds to go on trying while slurmctld does not answer, before the jobs to be submitted fail."
    )
    skip_checks: bool = _setting(
        False, "Don't compare resources with the cluster's partitions, accounts and nodes before the first submission."
    )
    plain_start: bool = _setting(
        False,
        "Start the Snakemake in jobs as `python -m snakemake`, with all that it imports; else it leaves out what a job "
        "does not use, and needs half of the processor time until its command starts.",
    )

    def __post_init__(self) -> None:
        problems = [
            f"submitit-{name.replace('_', '-')}: {getattr(self, name)} is less than {least}"
            for name, least in (
                ("requeue_limit", 0), ("signal_delay", 10), ("status_interval", 1), ("array_size", 1),
                ("command_timeout", 1),
            )
            if getattr(self, name) < least
        ]  # fmt: skip
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", self.jobname_prefix):
            problems.append(f"submitit-jobname-prefix: {self.jobname_prefix!r} is not 1 to 32 of A-Z a-z 0-9 _ -")
        if self.log_access not in ("owner", "group"):
            problems.append(f"submitit-log-access: {self.log_access!r} is neither owner nor group")
        if problems:
            raise WorkflowError("; ".join(problems))
        from .checks import install_in_dry_runs

        install_in_dry_runs(self)
