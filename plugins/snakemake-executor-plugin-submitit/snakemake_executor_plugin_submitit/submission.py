"""From payloads to a Slurm job or job array, through submitit."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cloudpickle

from . import controller, memory
from . import payload as payload_module
from .ledger import task_id
from .payload import JobPayload
from .queue import SCRIPT
from .quiet_submitit import DelayedSubmission, JobPaths, SlurmExecutor
from .slurm import SlurmError, SlurmLimitError, SlurmUnclearError, SlurmUnreachableError, failure, patiently, run

# By value: jobs unpickle it without importing this package and what it stands on.
cloudpickle.register_pickle_by_value(payload_module)
cloudpickle.register_pickle_by_value(memory)

# submitit counts every limit of ten minutes or less as a time-out; the payload counts for itself.
_NO_LIMIT = 10**6
# As `-m submitit.core._submit`, which imports numpy where it is there, in case that a pickle needs it: ours does not.
_RUN_PICKLE = (
    'import sys; sys.modules["numpy"] = None; from submitit.core.submission import submitit_main; submitit_main()'
)


class ArrayExecutor(SlurmExecutor):
    """submitit's Slurm executor for one call of sbatch, in a folder of its own.

    It differs from the parent where that would lose or double jobs:

    - The parent submits arrays by a fresh copy of itself, which forgets `python`.
    - Pickles have names by index, so that a later process can finish the moves that a kill has prevented.
    - An sbatch that got no answer is looked up in the queue before it is called again.
    - The job's id is what `sbatch --parsable` says, not the first number after the word job.
    - It does without srun on the submit host, which nothing here calls.
    - The process that runs the pickle, and waits for the command, does not import numpy.
    """

    def __init__(self, folder: Path, parameters: dict, *, name: str, comment: str, signal_delay_s: int):
        self._called = 0.0  # when sbatch was called last
        self.words: list[str] = []  # of the site, beside the answer of an sbatch that went well
        # `exec`: the batch shell becomes the Python process, which so gets the signal that is sent to the shell.
        super().__init__(folder, max_num_timeout=_NO_LIMIT, python=f"exec {shlex.quote(sys.executable)}")
        extra = {
            **parameters.get("additional_parameters", {}),
            "signal": f"B:USR2@{signal_delay_s}",  # to the batch shell alone, not to the ranks of srun
            "requeue": True,
            "chdir": str(Path.cwd()),
        }
        self.update_parameters(
            **{
                **parameters,
                "job_name": name,
                "comment": comment,
                "wckey": None,
                "use_srun": False,
                "stderr_to_stdout": True,
                # Until Python handles it, the signal is to be ignored, not to end the job.
                "setup": ["trap '' USR2"],
                "additional_parameters": extra,
            }
        )

    @classmethod
    def affinity(cls) -> int:
        return 2  # as where srun is found

    @property
    def _submitit_command_str(self) -> str:
        return f"{self.python} -u -c {shlex.quote(_RUN_PICKLE)} {shlex.quote(str(self.folder))}"

    def submit_all(self, payloads: Sequence[JobPayload], patience_s: float, on_wait: Callable) -> str:
        """One job, or one array of them; returns the Slurm id (of the array).

        Raises:
            SlurmUnreachableError: no answer for `patience_s`; a job may have been submitted.
            SlurmLimitError: no more jobs are taken now; none was submitted.
            SlurmError: sbatch refused; none was submitted.
            OSError: the folder can't be written.
        """
        folder = Path(self.folder)
        for index, one in enumerate(payloads):
            delayed = DelayedSubmission(one)
            delayed.set_timeout(self.parameters.get("time") or _NO_LIMIT, _NO_LIMIT)
            delayed.dump(pickle_path(folder, index))
        n = len(payloads)
        if n > 1:
            self.parameters.update(map_count=n, array_parallelism=n)
        script = folder / SCRIPT
        script.write_text(self._make_submission_file_text(self._submitit_command_str, folder.name))
        try:
            slurm_id = patiently(lambda: self._sbatch(script), patience_s, on_wait)
        except SlurmUnreachableError:
            raise
        except SlurmError as error:
            slurm_id = self._submitted_all_the_same(folder, error, patience_s, on_wait)
            if slurm_id is None:
                raise
        place_pickles(folder, slurm_id, n)
        return slurm_id

    def _sbatch(self, script: Path) -> str:
        """Submit, or find what an earlier call has submitted although its answer got lost."""
        if self._called and (found := controller.find_submission(script.parent, self._called)):
            return found
        self._called = time.time()
        try:
            done = run("sbatch", "--parsable", str(script))
        except SlurmError as error:
            slurm_id, self.words = read_answer(error.stdout, str(error))
            if slurm_id is None:
                raise
            return slurm_id  # of a wrapper around sbatch that fails after it
        slurm_id, self.words = read_answer(done.stdout, done.stderr)
        if slurm_id is not None:
            return slurm_id
        error = failure("sbatch", done.stderr.strip() or done.stdout.strip() or "no job id in its answer")
        if isinstance(error, SlurmUnclearError):
            raise SlurmUnreachableError(f"{error} (no job id in its answer)")
        raise error  # of a wrapper around sbatch that loses its exit code

    def _submitted_all_the_same(self, folder: Path, error: SlurmError, patience_s: float, on_wait: Callable):
        """The id of what an sbatch has submitted that ended in a way that does not exclude it; None if nothing.

        Raises:
            SlurmUnreachableError: that can't be known.
        """
        cut = isinstance(error, SlurmLimitError) and error.limit == "MaxJobCount"  # while sbatch tried by itself
        if not (cut or isinstance(error, SlurmUnclearError)):
            return None
        try:
            return patiently(lambda: controller.find_submission(folder, self._called), patience_s, on_wait)
        except SlurmError as second:
            raise SlurmUnreachableError(f"{error}; {second}") from None


def read_answer(stdout: str, stderr: str) -> tuple[str | None, list[str]]:
    """The id in the answer of `sbatch --parsable` (`12`, or `12;cluster`), and all other lines.

    A wrapper of a site may leave the option out, and print anything before the answer or after it.
    """
    lines = [line.strip() for line in stdout.splitlines() if line.strip()]
    for pattern in (r"(\d+)(;\S+)?", r"Submitted batch job (\d+).*"):
        for line in reversed(lines):
            if found := re.fullmatch(pattern, line):
                lines.remove(line)
                return found[1], [*lines, *(line.strip() for line in stderr.splitlines() if line.strip())]
    return None, []


def pickle_path(folder: Path, index: int) -> Path:
    return folder / f"task_{index}.pkl"


def place_pickles(folder: Path, slurm_id: str, n: int) -> None:
    """Give the pickles the names under which the jobs look for them (for up to a minute)."""
    for index in range(n):
        waiting = pickle_path(folder, index)
        if waiting.exists():
            waiting.rename(JobPaths(folder, task_id(slurm_id, index, n)).submitted_pickle)


def discard_pickles(folder: Path, n: int) -> None:
    """So that a job of a submission that was given up has nothing to run, should it turn up after all."""
    for index in range(n):
        pickle_path(folder, index).unlink(missing_ok=True)
