"""Ask a run to stop (train/stop_file.py), and take the request back."""

from __future__ import annotations

import time
from pathlib import Path

from promptecho.errors import ConfigError, DataError
from promptecho.files import write_text
from promptecho.suggest import maybe
from promptecho.train.metrics import find_runs
from promptecho.train.stop_file import stop_file_of
from promptecho.train.watch import planned_runs


def ask_to_stop(results: Path, run: str) -> Path:
    """Leave the request; returns its file.

    Raises:
        ConfigError: no such run.
        DataError: no such folder, or it can't be written.
    """
    check_run(results, run)
    path = stop_file_of(results, run)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{path}: can't be written ({error.strerror}): its owner can stop the run") from None
        write_text(path, f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    return path


def check_run(results: Path, run: str) -> None:
    """Refuse what is no run of these results.

    Raises:
        ConfigError: no such run.
        DataError: no such folder.
    """
    known = list(dict.fromkeys([*find_runs(results), *planned_runs(results)]))
    if run not in known:
        raise ConfigError(f"--run {run}: no such run in {results} (known: {', '.join(known)}){maybe(run, known)}")


def take_back(results: Path, run: str) -> bool:
    """Whether there was a request.

    Raises:
        OSError: it can't be removed.
    """
    path = stop_file_of(results, run)
    there = path.exists()
    path.unlink(missing_ok=True)
    return there
