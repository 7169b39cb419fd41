"""Stopping early: the rank that learns of a request tells the others, and all ranks act together.

A request is a file (from a scheduler's hook), SIGTERM or Ctrl-C. While models load there is nothing to lose, so all
ranks end at once. After that there are two ways:

- At a boundary that all ranks share, the views of all are summed (`stop()`), and all leave there or none does. If
  each rank looked for itself, ranks would see a file at different steps and wait for each other forever.
- Between two boundaries, where a phase runs for minutes without any exchange, a rank that learns of a request ends
  the phase early by itself (`listening`, `poll`) and goes straight to the boundary at its end, where the others meet
  it. So every such phase ends in a boundary, and nothing is exchanged between the two; phases.py ensures both. A
  request known to one rank is known to all of them within a second, through the store in which they have found each
  other.

A person's request (stop_file.py) is in no hurry: it is looked at between two iterations, and while models load.

Light to import: a command is ready to be stopped before it imports torch.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

    from promptecho.train.launch import Launch

EXIT_CODE = 75  # EX_TEMPFAIL: nothing is wrong, start the same command again
POLL_S = 1.0  # between two looks at file and store
LEAVE_TOGETHER_S = 10.0  # how long a rank waits for the others before it ends without them
NOTHING_LOST = b"promptecho: asked to stop while loading: nothing is lost, start the same command again\n"
RUN_STOPS = (
    "promptecho: this run is to stop (`promptecho stop`): nothing is lost; start Snakemake to go on, or delete {}\n"
)
STAGE, STOP, LEFT = "promptecho/stage", "promptecho/stop", "promptecho/left"  # keys of the store
RUNNING, LEAVING = b"running", b"leaving"  # values of STAGE
REQUESTS = (signal.SIGTERM, signal.SIGINT)


class StopRequestedError(Exception):
    """Raised on all ranks together once a stop was asked for; the loop saves its state and leaves."""


class HeardError(Exception):
    """Raised by `poll` on this rank alone; `listening` takes it."""


def leave_while_importing(on_leave: Callable[[], None]) -> None:
    """React to SIGTERM and Ctrl-C by ending at once, until `StopCheck.install` installs a better handler."""

    def leave(*_: object) -> None:
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            os.write(2, NOTHING_LOST)
        on_leave()
        os._exit(EXIT_CODE)

    signal.signal(signal.SIGTERM, leave)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # not where a shell ignores it
        signal.signal(signal.SIGINT, leave)


class StopCheck:
    """What this rank knows of requests to stop.

    Args:
        launch: all ranks that were started together, reward servers too; None: this process alone, without a store.
        on_leave: called before the process is ended while it loads.
        run_file: a person's request, which lets the iteration under way finish.
    """

    def __init__(
        self, stop_file: Path | None, launch: Launch | None = None, on_leave: Callable[[], None] = lambda: None,
        run_file: Path | None = None,
    ):  # fmt: skip
        self.stop_file, self.launch, self.on_leave, self.run_file = stop_file, launch, on_leave, run_file
        self.signalled = self.heard = False
        self._looked = 0.0
        self._poll: Callable[[], None] | None = None  # what `poll` does now
        # Of its own: a call in another thread may hold the connection for as long as it waits.
        self.store: Store | None = None
        if launch is not None:
            self.store = launch.store.clone()  # type: ignore[attr-defined]  # torch does not declare it
        self._loading = False

    def install(self) -> None:
        """React to SIGTERM and to the first Ctrl-C by stopping as soon as all ranks can."""
        ours = signal.getsignal(signal.SIGINT) == signal.default_int_handler or _is_ours(signal.SIGINT)
        signal.signal(signal.SIGTERM, self._on_signal)
        if ours:  # not where a shell ignores it
            signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, _: object) -> None:
        self.signalled = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if not self._loading:
                os.write(2, b"\npromptecho: saves and leaves at the next step boundary; Ctrl-C again ends it at once\n")

    # While models load.

    @contextmanager
    def loading(self, *, serves: bool = False) -> Iterator[None]:
        """While models load: a thread looks for requests, and ends this process upon one, as all others do. Collective
        at its end: all have loaded, and from there on leave at boundaries.

        Args:
            serves: a reward server, whose trainers say when all have loaded.
        """
        launch, store = self.launch, self.store
        assert launch is not None and store is not None, "a process that loads models was launched"
        pipe = os.pipe()
        for end in pipe:
            os.set_blocking(end, False)
        # Signals wake the thread by themselves: handlers wait until the main thread is back from a library's call.
        before = signal.set_wakeup_fd(pipe[1], warn_on_full_buffer=False)
        over = threading.Event()
        watched = (pipe[0], over, launch, store)
        thread = threading.Thread(target=self._watch_loading, args=watched, name="stop", daemon=True)
        self._loading = True
        thread.start()
        try:
            yield
            if not serves:
                self._agree_to_run(store)
        finally:
            over.set()
            os.write(pipe[1], b"\0")
            thread.join()  # never, if it is about to end the process
            self._loading = False
            signal.set_wakeup_fd(before)
            for end in pipe:
                os.close(end)

    def _watch_loading(self, pipe: int, over: threading.Event, launch: Launch, store: Store) -> None:
        ended = False
        while not ended:
            ready, *_ = select.select([pipe], [], [], POLL_S / 2)
            ended = over.is_set()  # looked at once more: all may have agreed to leave
            woken = os.read(pipe, 64) if ready else b""
            self.signalled |= any(number in woken for number in REQUESTS if _is_ours(number))
            try:
                if self._seen() or self._run_is_to_stop() or store.check([STAGE]):
                    # Whichever comes first holds for all ranks: that they leave, or that they run.
                    if store.compare_set(STAGE, "", LEAVING.decode()) == LEAVING:
                        self._end_process(launch, store)
                    return
            except RuntimeError:  # the rank that keeps the store is gone, which the main thread meets too
                return

    def _end_process(self, launch: Launch, store: Store) -> None:
        from promptecho.train.ranks import FAILED

        code = EXIT_CODE
        # Together: the store goes with rank 0, and a rank that waits for one that is gone would call it a failure.
        with suppress(RuntimeError):  # rank 0 has waited long enough and left, with the store
            if store.check([FAILED]):  # the launcher ends us for that, and that rank says why
                code = 1
            elif store.add(LEFT, 1) == 1:
                os.write(2, RUN_STOPS.format(self.run_file).encode() if self._run_is_to_stop() else NOTHING_LOST)
        self.on_leave()
        end = time.monotonic() + LEAVE_TOGETHER_S
        with suppress(RuntimeError):
            while code == EXIT_CODE and store.add(LEFT, 0) < launch.world_size and time.monotonic() < end:
                time.sleep(0.05)
        if launch.rank == 0 and launch.world_size > 1:
            time.sleep(0.3)  # for the others' last look
        os._exit(code)

    def _agree_to_run(self, store: Store) -> None:
        import torch
        import torch.distributed as dist

        if dist.get_world_size() > 1:
            dist.all_reduce(torch.zeros(1))
        if dist.get_rank() == 0:
            store.compare_set(STAGE, "", RUNNING.decode())
        store.wait([STAGE])

    # Between two shared boundaries.

    @contextmanager
    def listening(self, *, in_step: bool = False) -> Iterator[None]:
        """A phase that ends early on a rank that hears of a request in a `poll`; call this object after it, before
        anything else is exchanged.

        Args:
            in_step: all ranks poll equally often, and may only leave together: every `poll` is a call of this object.
        """
        self._poll = self if in_step else self._look
        try:
            yield
        except HeardError:
            pass
        finally:
            self._poll = None

    def poll(self) -> None:
        """Within `listening`, look for a request; elsewhere do nothing."""
        if self._poll is not None:
            self._poll()

    def watch_passes(self, model: torch.nn.Module) -> None:
        """`poll` before every pass of `model`, ahead of whatever else hooks into it."""

        def look(*_: object) -> None:
            self.poll()

        model.register_forward_pre_hook(look, prepend=True)

    def _look(self) -> None:
        if self.heard:
            # Again: heard in a pass for the sake of the other ranks (vlm/turns.py), the first one was kept back.
            raise HeardError
        now = time.monotonic()
        if not self.signalled:
            if now - self._looked < POLL_S:
                return
            self._looked = now
        if self._seen():
            if self.store is not None:
                self.store.set(STOP, "")
        elif self.store is None or not self.store.check([STOP]):
            return
        self.heard = True
        raise HeardError

    def _seen(self) -> bool:
        leads = self.launch is None or self.launch.rank == 0
        return self.signalled or (leads and self.stop_file is not None and self.stop_file.exists())

    def _run_is_to_stop(self) -> bool:
        return self.run_file is not None and self.run_file.exists()

    # At a boundary that all ranks share.

    def between_iterations(self) -> None:
        """Collective, where an iteration has ended and another would follow. Raises StopRequestedError on all ranks
        together if a person has asked for it; rank 0 looks."""
        from promptecho.train.ranks import any_rank

        if any_rank((self.launch is None or self.launch.rank == 0) and self._run_is_to_stop()):
            raise StopRequestedError

    def __call__(self) -> None:
        """Collective. Raises StopRequestedError on all ranks together."""
        import torch
        import torch.distributed as dist

        seen = self.heard or self._seen()
        if dist.get_world_size() > 1:
            flag = torch.tensor([int(seen)])
            dist.all_reduce(flag)
            seen = bool(flag.item())
        if seen:
            raise StopRequestedError


def _is_ours(number: int) -> bool:
    handler: Any = signal.getsignal(number)
    return getattr(handler, "__module__", None) == __name__
