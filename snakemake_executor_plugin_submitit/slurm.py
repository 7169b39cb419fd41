"""Slurm's commands, told apart by whether trying again can help."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

# A controller that is down, restarting, or busy. After some of these a submission may have gone through.
_PASSING = re.compile(
    r"unable to contact slurm|socket timed out|connection refused|connection reset|communication connection failure"
    r"|zero bytes were transmitted|transport endpoint|unexpected message received|slurm_persist_conn"
    r"|temporarily unable|resource temporarily unavailable|broken pipe|backup controller|slurmctld.*not respond",
    re.IGNORECASE,
)
_CALL_TIMEOUT_S = 120
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS")
_OF_A_JOB = ("SLURM_JOB", "SLURM_ARRAY_", "SLURM_STEP", "SLURM_TASK", "SLURM_PROCID", "SLURM_RESTART_COUNT")
# A user's habits at the terminal, such as SQUEUE_PARTITION or SCANCEL_STATE, which would hide or spare jobs here.
_HABITS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_")


class SlurmError(RuntimeError):
    """A Slurm command has failed; the message is the command's own, in one line."""


class SlurmUnreachableError(SlurmError):
    """slurmctld (or slurmdbd, for sacct) does not answer now."""


def call(*command: str, timeout_s: float = _CALL_TIMEOUT_S) -> str:
    """Standard output of a Slurm command.

    Raises:
        SlurmUnreachableError: the daemon does not answer; the command may or may not have had its effect.
        SlurmError: any other failure.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="surrogateescape", timeout=timeout_s,
            stdin=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SlurmUnreachableError(f"{command[0]}: no answer within {timeout_s:.0f} s") from None
    except FileNotFoundError:
        raise SlurmError(f"{command[0]}: not found; run Snakemake on a host with Slurm's commands") from None
    except OSError as error:  # no process or no memory left on this host
        raise SlurmError(f"{command[0]}: can't be started: {error.strerror}") from None
    if done.returncode == 0:
        return done.stdout
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    message = f"{command[0]}: {'; '.join(lines[-3:]) or f'exit code {done.returncode}'}"
    raise (SlurmUnreachableError if _PASSING.search(message) else SlurmError)(message)


def environment() -> dict[str, str]:
    """This process's environment as Slurm's commands get it, and through sbatch the jobs, which call squeue too."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_HABITS)}


def patiently(function: Callable, seconds: float, before_sleep: Callable | None = None):
    """`function()`, tried again for `seconds` while the daemons do not answer, less and less often.

    Raises:
        SlurmUnreachableError: they did not answer in all that time.
        SlurmError: as soon as they answer with an error.
    """
    return Retrying(
        retry=retry_if_exception_type(SlurmUnreachableError),
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=1, max=15),
        before_sleep=before_sleep,
        reraise=True,
    )(function)


def clean_environment() -> list[str]:
    """Take out of this process's environment what would overrule the jobs' resources; returns the names.

    SBATCH_* variables win over the options in a batch script. Inside a Slurm job (or `salloc`), SLURM_* variables
    describe the surrounding allocation and would leak into every job submitted from it. So would what is left of one,
    in a container or after `unset SLURM_JOB_ID`: Slurm sets SLURM_ARRAY_JOB_ID in tasks of arrays only, and others
    would take it for their own. SUBMITIT_* variables are of a job of submitit that this process runs in.
    """
    inside = any(name.startswith(_OF_A_JOB) for name in os.environ)
    found = [
        name
        for name in os.environ
        if name not in _KEPT
        and (name.startswith(("SBATCH_", "SUBMITIT_")) or (inside and name.startswith(("SLURM_", "SRUN_"))))
    ]
    for name in found:
        del os.environ[name]
    return sorted(found)


def cancel(job_ids: Sequence[str], patience_s: float) -> None:
    """scancel, a hundred jobs a call; a job that has ended already is no error."""
    for start in range(0, len(job_ids), 100):
        part = job_ids[start : start + 100]
        patiently(lambda part=part: call("scancel", "--quiet", *part), patience_s)
