"""Saving while training goes on: rank 0 writes a state in a thread, and whatever goes wrong is raised at the next look.

What is written never changes meanwhile, because an iteration makes new tensors for its state. One state is written at a
time. A process that is asked to stop waits for the thread; one that is killed leaves a file under a temporary name.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import torch

from promptecho.errors import PromptEchoError
from promptecho.train.state import TrainingState


class Saver:
    """With `with`: at its end the last state is written, also where an error ends the run."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif issubclass(kind, Exception):  # not where Ctrl-C ends it at once
            try:
                self.wait()
            except PromptEchoError as error:  # the first error is the one to raise
                print(f"promptecho: {error}", file=sys.stderr, flush=True)

    def begin(self, write: Callable[[], None]) -> None:
        """Start to write, once the write before is done.

        Raises:
            Exception: of the write before, as `wait`.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(write,), name="save", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong, without waiting."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written.

        Raises:
            DataError: the disk is full or not writable; names the file.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            self._error = error


def on_host(state: TrainingState) -> Callable[[], TrainingState]:
    """A function for another thread: the same state with tensors in host memory, copied beside what the GPU does."""
    device = next(iter(state.tensors["weights"].values())).device
    if device.type != "cuda":
        return lambda: state
    ready = torch.cuda.current_stream(device).record_event()

    def copied() -> TrainingState:
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)):
            torch.cuda.current_stream().wait_event(ready)
            tensors = {kind: {name: value.cpu() for name, value in of.items()} for kind, of in state.tensors.items()}
        return replace(state, tensors=tensors)

    return copied
