"""Slurm's commands; their errors are separated by whether trying again can help."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from .refusals import FULL, LIMIT, PASSING, UNCLEAR, kind_of

_CALL_TIMEOUT_S = 120
_UNCLEAR_S = 60  # of trying again after an error that no list here knows
_MOST_LINES = 8  # of a command's words: a site's plugin may need several to say what it wants
_HURRIED_S = 5  # for a command that runs when Snakemake is asked to end
_STEP_S = 0.5
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS")
_OF_A_JOB = ("SLURM_JOB", "SLURM_ARRAY_", "SLURM_STEP", "SLURM_TASK", "SLURM_PROCID", "SLURM_RESTART_COUNT")
# A user's habits at the terminal, such as SQUEUE_PARTITION or SCANCEL_STATE, which would hide or spare jobs here.
_HABITS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_")
# scontrol cuts the list of an array's waiting tasks at 64 characters otherwise.
_WHOLE_LISTS = {"SLURM_BITSTR_LEN": "0"}


class SlurmError(RuntimeError):
    """A Slurm command has failed; the message is the command's own, in one line. `stdout` is what it wrote before."""

    stdout = ""


class SlurmUnreachableError(SlurmError):
    """slurmctld (or slurmdbd, for sacct) does not answer now, or can't do now what it will do later."""


class SlurmUnclearError(SlurmError):
    """An error that may or may not be temporary: it is in no list here."""


class SlurmLimitError(SlurmError):
    """No more jobs are taken now; `own`: for those that this user has in the queue. `jobs` are those it was about."""

    def __init__(self, message: str, limit: str, own: bool):
        super().__init__(message)
        self.limit, self.own = limit, own
        self.jobs: list = []


class Ending:
    """Whether Snakemake is asked to end: nothing is tried again then, and what runs has a few seconds more.

    A plain flag, because a signal handler that sets a threading.Event can meet a wait for it in its own thread.
    """

    now = False

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.now and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))


ENDING = Ending()


@dataclass(frozen=True)
class Done:
    """What a command that ended well has written."""

    stdout: str
    stderr: str


def call(*command: str, timeout_s: float = _CALL_TIMEOUT_S, hurried: bool = True) -> str:
    """Standard output of a Slurm command; see `run`."""
    return run(*command, timeout_s=timeout_s, hurried=hurried).stdout


def run(*command: str, timeout_s: float = _CALL_TIMEOUT_S, hurried: bool = True) -> Done:
    """A Slurm command's output.

    Raises:
        SlurmUnreachableError: the daemon does not answer; the command may or may not have had its effect.
        SlurmLimitError: no more jobs are taken now.
        SlurmUnclearError: an unknown error.
        SlurmError: a refusal.
    """
    name = command[0]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="surrogateescape", env=environment() | (_WHOLE_LISTS if name == "scontrol" else {}),
            process_group=0,  # a Ctrl-C at the terminal would end an sbatch between slurmctld's answer and ours
        )  # fmt: skip
    except FileNotFoundError:
        raise SlurmError(f"{name}: not found; run Snakemake on a host with Slurm's commands") from None
    except OSError as error:  # no process or no memory left on this host
        raise SlurmError(f"{name}: can't be started: {error.strerror}") from None
    with process:
        try:
            stdout, stderr = _communicate(process, name, timeout_s, hurried)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the sbatch that a site's wrapper runs
            raise
    if process.returncode == 0:
        return Done(stdout, stderr)
    if process.returncode < 0:
        raise SlurmUnreachableError(f"{name}: ended by signal {-process.returncode}")
    error = failure(name, stderr.strip() or stdout.strip() or f"exit code {process.returncode}")
    error.stdout = stdout
    raise error


def _communicate(process: subprocess.Popen, name: str, timeout_s: float, hurried: bool) -> tuple[str, str]:
    end = time.monotonic() + timeout_s
    told_to_end = False
    while True:
        try:
            return process.communicate(timeout=_STEP_S)
        except subprocess.TimeoutExpired as error:
            said = (error.stderr or b"").decode(errors="surrogateescape")
            if FULL.search(said):  # sbatch would go on trying for two minutes
                raise failure(name, said.strip()) from None
            if hurried and ENDING.now and not told_to_end:
                told_to_end, end = True, min(end, time.monotonic() + _HURRIED_S)
            if time.monotonic() > end:
                waited = _HURRIED_S if told_to_end else timeout_s
                raise SlurmUnreachableError(f"{name}: no answer within {waited:.0f} s") from None


def failure(name: str, text: str) -> SlurmError:
    """The exception for the words of a command that has failed."""
    prefix = re.compile(rf"^{re.escape(os.path.basename(name))}: ((error|fatal):)?\s*")
    lines = [line for one in text.splitlines() if (line := prefix.sub("", one.strip()))]
    shown = lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 3], "...", *lines[-2:]]
    message = f"{name}: {'; '.join(shown)}"
    kind = kind_of("\n".join(lines))
    if kind.word == LIMIT:
        return SlurmLimitError(message, kind.limit, kind.own)
    return {PASSING: SlurmUnreachableError, UNCLEAR: SlurmUnclearError}.get(kind.word, SlurmError)(message)


def environment() -> dict[str, str]:
    """This process's environment as Slurm's commands get it, and through sbatch the jobs, which call squeue too."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_HABITS)}


def patiently(
    function: Callable, seconds: float, before_sleep: Callable | None = None, *, hurried: bool = True,
    unclear_s: float = _UNCLEAR_S,
):  # fmt: skip
    """`function()`, tried again for `seconds` while the daemons do not answer, less and less often.

    After an error of an unknown kind for a minute at most.

    Raises:
        SlurmUnreachableError: they did not answer in all that time, or Snakemake is asked to end.
        SlurmError: as soon as they answer with a refusal.
    """

    def stop(state: RetryCallState) -> bool:
        unclear = isinstance(state.outcome.exception(), SlurmUnclearError)
        if hurried and ENDING.now:
            return True
        return state.seconds_since_start >= (min(seconds, unclear_s) if unclear else seconds)

    return Retrying(
        retry=retry_if_exception_type((SlurmUnreachableError, SlurmUnclearError)),
        stop=stop,
        wait=wait_random_exponential(multiplier=1, max=15),
        sleep=ENDING.pause if hurried else time.sleep,
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
        command = ("scancel", "--quiet", *job_ids[start : start + 100])
        patiently(lambda command=command: call(*command, hurried=False), patience_s, hurried=False, unclear_s=0)
