"""What every phase of training does in addition to its work, in one place.

    with trainer.phase(Phase.UPDATE, step=3):
        ...

- The watchdog learns where this rank is, so that it can distinguish a hang from progress (watchdog.py).
- Where all ranks begin or end a phase together, they leave together if one of them was asked to stop; in between, a
  rank that learns of a request ends its phase early and goes to that end (stop.py).
- Seconds and peak memory count for the phase (meter.py).
- A shortage of memory becomes one line that says what to change (promptecho/memory.py).

A phase within a phase, such as the sampling of a held-out evaluation, is a part of it: position and time are those of
the outer one, advice goes by the inner one. An exchange is measured as part of the phase whose results it exchanges.

Beginning or ending together is an exchange between ranks. The phases that do so are listed in the two tuples below
only, so they are the same on every rank; `tests/unit/test_train_phases.py` counts exchanges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from promptecho.compute.mode import only_deterministic
from promptecho.errors import PromptEchoError
from promptecho.memory import MemoryAdvice
from promptecho.phases import Phase
from promptecho.train.meter import Meter
from promptecho.train.ranks import agree
from promptecho.train.stop import StopCheck
from promptecho.train.watchdog import Watchdog

BEGIN_TOGETHER = (Phase.SAMPLE, Phase.PRECOMPUTE, Phase.UPDATE)  # unless as a part of another phase
END_TOGETHER = (Phase.SAMPLE, Phase.REWARD, Phase.PRECOMPUTE)  # nothing is exchanged in them before


class Phases:
    """Call it with the phase that begins.

    Args:
        keys: which keys lower the memory of a phase on a device (MemoryAdvice).
        in_step: every pass of the policy is one of all ranks (ZeRO-3), so none may break off by itself there.
    """

    def __init__(
        self, watchdog: Watchdog, stop: StopCheck, device: torch.device, keys: Callable[[str, str], list[str]], *,
        in_step: bool = False,
    ):  # fmt: skip
        self.watchdog, self.stop, self.device, self.in_step = watchdog, stop, device, in_step
        self.advice = MemoryAdvice(str(device), keys, self._where)
        self.step = 0
        self._outermost: Phase | None = None
        self._working = Phase.START  # the innermost phase, under way or last, exchanges aside
        self.begin(0)

    def begin(self, iteration: int) -> None:
        """`iteration` is under way, as people count (0: before the first), and measured from zero again."""
        self.iteration, self.meter = iteration, Meter(self.device)

    @contextmanager
    def __call__(self, phase: Phase, step: int = 0) -> Iterator[None]:
        """Collective where ranks begin or end `phase` together.

        Raises:
            OutOfMemoryError: for a shortage of memory inside; where rewards met it, on every rank.
            PromptEchoError: where rewards met it, on every rank.
            StopRequestedError: on all ranks together.
        """
        outer, failed = self._outermost, None
        self._outermost = outer or phase
        self._working = self._working if phase is Phase.EXCHANGE else phase
        try:
            if phase in BEGIN_TOGETHER and outer is None:
                self._arrive(phase, step)
                self.stop()
            self.moved(step)
            measured = self.meter(self._working) if outer is None else nullcontext()
            with measured, self.advice(self._working), only_deterministic(), self._breaking_off(phase):
                yield
        except PromptEchoError as error:
            if phase is not Phase.REWARD:
                raise
            failed = error
        finally:
            self._outermost = outer
        if phase in END_TOGETHER:
            self._arrive(Phase.EXCHANGE)
            if phase is Phase.REWARD:
                agree(failed)
            self.stop()

    def moved(self, step: int) -> None:
        """This rank has done so many steps of its phase."""
        self.step = step
        self.watchdog(self._outermost or self._working, self.iteration, step)

    def _arrive(self, phase: Phase, step: int = 0) -> None:
        """This rank is where all meet, ahead of those that are not yet."""
        self.watchdog.boundary += 1
        self.watchdog(phase, self.iteration, step)

    def _breaking_off(self, phase: Phase) -> AbstractContextManager[None]:
        if phase not in END_TOGETHER:
            return nullcontext()
        return self.stop.listening(in_step=self.in_step and phase is not Phase.REWARD)

    def _where(self) -> str:
        return f" of iteration {self.iteration}" if self.iteration else ""
