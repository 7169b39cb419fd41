"""Rewards by a whole VLM on the ranks that train: a batch of images is scored in a thread while the next is sampled."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext

import torch
from PIL import Image

from promptecho.memory import shortage
from promptecho.train.data import TrainingPrompt
from promptecho.train.scoring import RolloutScores, WeightedReward, score_images
from promptecho.train.stop import POLL_S, StopCheck

MARGIN = 0.05  # of a GPU's memory that stays free
SLACK = 2**26  # bytes: less is no peak
Lot = tuple[list[Image.Image], list[TrainingPrompt], list[str]]


class OverlappedRewarder:
    """Every lot of images that is submitted is scored by itself, whether at once or at the end, so that an iteration's
    rewards do not depend on which. On a GPU it has a stream of its own.

    On a GPU the first lots wait for `collect`, which learns how much memory scoring takes beside what is there. From
    then on lots are scored while the next is sampled, as long as both fit. A lot that meets a shortage of memory in
    the thread is scored once more at the end, and so are all lots from there on; two passes never run at once, since
    they share the model.
    """

    overlaps = True

    def __init__(self, rewards: list[WeightedReward], stop: StopCheck, device: torch.device):
        self.rewards, self.stop, self.device = rewards, stop, device
        self.on_gpu = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.on_gpu else None
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="rewards")
        self.lots: list[tuple[Lot, Future[RolloutScores] | None]] = []
        self.has_room = None if self.on_gpu else True  # None: not known yet
        self.sampling = 0  # most bytes that were taken while images were sampled

    def submit(self, images: list[Image.Image], prompts: list[TrainingPrompt], names: list[str]) -> None:
        lot = images, prompts, names
        if self.has_room is None:
            self.sampling = max(self.sampling, torch.cuda.max_memory_allocated(self.device))
        self.lots.append((lot, self.pool.submit(self._in_thread, lot) if self.has_room else None))

    def collect(self, moved: Callable[[int], None]) -> RolloutScores:
        lots, self.lots = self.lots, []
        parts, alone = [RolloutScores.none(self.rewards)], False
        before = torch.cuda.memory_allocated(self.device) if self.on_gpu else 0
        # Within a held-out evaluation, which is measured as one, the peak is that of its sampling.
        clear = self.on_gpu and torch.cuda.max_memory_allocated(self.device) <= before + SLACK
        futures = [future for _, future in lots if future is not None]
        try:
            for step, (lot, future) in enumerate(lots, start=1):
                self.stop.poll()
                part = self._awaited(future)
                if part is None:
                    self._end_thread(futures)
                    part, alone = self._score(lot), True
                parts.append(part)
                moved(step)
        except BaseException:
            for future in futures:  # else the process would end only when all of them are scored
                future.cancel()
            raise
        if alone and clear and self.has_room is None:
            taken = torch.cuda.max_memory_allocated(self.device) - before
            free, _ = torch.cuda.mem_get_info(self.device)
            there = free + torch.cuda.memory_reserved(self.device)
            self.has_room = fits(self.sampling, taken, there)
        return RolloutScores.joined(parts)

    def abandon(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def close(self, exit_code: int) -> None:
        self.abandon()

    def _awaited(self, future: Future[RolloutScores] | None) -> RolloutScores | None:
        """What the thread has found; None where it has not been asked, or ran out of memory."""
        if future is None or future.cancelled():
            return None
        while not wait([future], POLL_S).done:
            self.stop.poll()
        error = future.exception()
        if error is not None and shortage(error) is not None:
            told = "rewards ran out of memory beside the sampler; from here on images are scored after sampling"
            print(told, file=sys.stderr, flush=True)
            self.has_room = False
            _let_go(error)
            return None
        return future.result()

    def _end_thread(self, futures: Sequence[Future[RolloutScores]]) -> None:
        """Have the thread begin nothing more, and wait for what it is at."""
        running = [future for future in futures if not future.cancel()]
        while wait(running, POLL_S).not_done:
            self.stop.poll()
        if self.on_gpu and running:
            torch.cuda.empty_cache()  # what its stream has kept is of no use to others

    def _in_thread(self, lot: Lot) -> RolloutScores:
        context: AbstractContextManager = nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
        with context:
            return self._score(lot)

    def _score(self, lot: Lot) -> RolloutScores:
        return score_images(self.rewards, *lot, lambda _: None)


def _let_go(error: BaseException | None) -> None:
    """Free what the frames of a failed pass hold: its activations."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def fits(sampling: int, scoring: int, there: int) -> bool:
    """Whether the most that sampling takes, and what scoring takes beside it, are less than the bytes `there`, with a
    margin."""
    return sampling + scoring <= (1 - MARGIN) * there
