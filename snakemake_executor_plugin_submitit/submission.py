"""From payloads to a Slurm job or job array, through submitit."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cloudpickle

from . import controller, memory
from . import payload as payload_module
from .ledger import task_id
from .payload import Payload
from .quiet_submitit import DelayedSubmission, FailedSubmissionError, JobPaths, SlurmExecutor
from .slurm import SlurmUnreachableError, call, patiently

# By value: jobs unpickle it without importing this package and what it stands on.
cloudpickle.register_pickle_by_value(payload_module)
cloudpickle.register_pickle_by_value(memory)

# submitit counts every limit of ten minutes or less as a time-out; the payload counts for itself.
_NO_LIMIT = 10**6


class ArrayExecutor(SlurmExecutor):
    """submitit's Slurm executor for one call of sbatch, in a folder of its own.

    It differs from the parent where that would lose or double jobs:

    - The parent submits arrays by a fresh copy of itself, which forgets `python`.
    - Pickles have names by index, so that a later process can finish the moves that a kill has prevented.
    - An sbatch that got no answer is looked up in the queue before it is called again.
    """

    def __init__(self, folder: Path, parameters: dict, *, name: str, comment: str, signal_delay_s: int):
        self._called = 0.0  # when sbatch was called last
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

    def submit_all(self, payloads: Sequence[Payload], patience_s: float, on_wait: Callable) -> str:
        """One job, or one array of them; returns the Slurm id (of the array).

        Raises:
            SlurmError: sbatch refused, or slurmctld did not answer for `patience_s`.
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
        script = folder / "submission.sh"
        script.write_text(self._make_submission_file_text(self._submitit_command_str, folder.name))
        slurm_id = patiently(lambda: self._sbatch(script), patience_s, on_wait)
        place_pickles(folder, slurm_id, n)
        return slurm_id

    def _sbatch(self, script: Path) -> str:
        """Submit, or find what an earlier call has submitted although its answer got lost."""
        if self._called and (found := controller.find_submission(script.parent, self._called)):
            return found
        self._called = time.time()
        output = call(*self._make_submission_command(script))
        try:
            return self._get_job_id_from_submission_command(output)
        except FailedSubmissionError as error:
            raise SlurmUnreachableError(str(error).replace("\n", "; ")) from None


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
