"""Lets the ranks of a group run different numbers of passes of one sharded model.

A pass of a sharded model gathers its weights block by block, which all ranks of the group must do alike. They have
different numbers of images, answers of different lengths, and sometimes an error. So before every pass they agree on
its kind: "image" if one of them wants a pass with images, else "text" (decoding steps bring no image, and then nobody
gathers the vision tower), else nothing is left to do. Whoever wants another kind, or nothing, runs the pass on a tiny
input of no consequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather  # no public name; torch is pinned

from promptecho.errors import ModelError
from promptecho.vlm.inputs import batch_inputs, render_prompt
from promptecho.vlm.label_pass import during
from promptecho.vlm.model import Vlm

KINDS = ("image", "text")  # in the order in which they are served


def on_cpu(group: dist.ProcessGroup) -> dist.ProcessGroup:
    """Collective: a group of the same ranks on gloo, for small questions between processes that may wait for long."""
    if dist.get_backend(group) == "gloo":
        return group
    ranks = dist.get_process_group_ranks(group)
    return dist.new_group(ranks, timeout=group_timeout(), backend="gloo", use_local_synchronization=True)


def all_want(wanted: bool, group: dist.ProcessGroup) -> bool:
    """Collective: whether every rank of the group wants it."""
    answer = torch.tensor(int(wanted))
    dist.all_reduce(answer, op=dist.ReduceOp.MIN, group=on_cpu(group))
    return bool(answer)


def group_timeout() -> timedelta:
    """How long ranks wait for each other in the world's group. Torch gives any other group minutes, whatever the world
    has, while one rank may wait for another's loading."""
    world = dist.group.WORLD
    assert world is not None, "asked for when the group of all ranks is there"
    backend = world._get_backend(torch.device("cpu"))  # no public name; torch is pinned
    return backend.options._timeout


class Turns:
    """The passes of one sharded model on this rank.

    The first step begins with one tiny pass of each kind, to learn which blocks it gathers in which order. Every later
    pass is held to that order: one that would leave it is an error on its own rank before it can disturb the others,
    and what a pass leaves out (it failed half-way) is gathered at its end.

    Args:
        blocks: every module to which `fully_shard` was applied, the whole model among them.
        whole: a step gathers all weights at its beginning and drops them at its end. In between each rank runs its
            passes by itself.

    Raises:
        DataError, ModelError: the processor fails on a tiny input.
    """

    def __init__(self, vlm: Vlm, blocks: list[FSDPModule], group: dist.ProcessGroup, *, whole: bool = False):
        self.blocks, self.whole = blocks, whole
        self.model, self.path, self.group = vlm.model, vlm.path, group
        self.inside = self.idling = False
        self.idle_error: Exception | None = None
        self.broken: Exception | None = None
        self.order: dict[str, list[FSDPModule]] = {}  # blocks gathered by a pass of each kind
        self.gathered: list[FSDPModule] = []  # by the pass that is running
        self.kind: str | None = None  # of the pass that is running
        self.linked: str | None = None  # the kind whose order the blocks are linked in
        self.idle_inputs = {"image": _tiny_inputs(vlm, with_image=True), "text": _tiny_inputs(vlm, with_image=False)}
        self.image_inputs = [
            name
            for name, value in self.idle_inputs["image"].items()
            if torch.is_tensor(value) and value.is_floating_point() and name not in self.idle_inputs["text"]
        ]
        for block in blocks:
            block.set_custom_all_gather(_CountedAllGather(self, block))
        # Asking comes before FSDP's own hook, which begins to gather; tidying up after its last one, errors or not.
        self.model.register_forward_pre_hook(self._before_pass, prepend=True, with_kwargs=True)
        self.model.register_forward_hook(self._after_pass, always_call=True)

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """See `Vlm.in_step`; collective over the group. Errors of the body are raised after all ranks have left.

        An interrupt (Ctrl-C, exit) leaves at once.

        Raises:
            ModelError: a first tiny pass fails.
        """
        if self.inside:  # a step within a step ends with the outer one
            yield
            return
        self._learn()
        self.inside = True
        try:
            if self.whole:
                self._gather_all()
            yield
        except Exception as error:
            self._join(error)
            raise
        else:
            self._join(None)
            self.model.reset_iter_state()  # FSDP notes every pass until a backward pass, which never comes
        finally:
            self.inside = False
            if self.whole:
                self._drop_all()

    def _gather_all(self) -> None:
        """Collective: passes find all weights from here on. A rank that fails, out of memory say, still takes part in
        the exchanges that the others wait for, without keeping what comes."""
        self.model.set_reshard_after_forward(False)
        self._begin("all")
        try:
            for block in self.blocks:
                block.unshard()
        except Exception:
            self._finish([block for block in self.blocks if block not in self.gathered], failed=True)
            raise
        self.kind = None

    def _drop_all(self) -> None:
        self.model.set_reshard_after_forward(True)
        self.model.reset_iter_state()  # behind a pass that failed, too

    def _learn(self) -> None:
        if self.order:
            return
        self.asking = on_cpu(self.group)
        for kind in KINDS:
            self._idle(kind)
            if self.idle_error is not None:
                error = self.idle_error
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise ModelError(f"{self.path}: a first pass of the sharded model failed ({reason})") from error
            self.order[kind] = list(self.gathered)

    def _link(self, kind: str) -> None:
        """Let each block begin to gather the one that follows it in a pass of this kind, before it computes itself.

        Not where a pass comes by a block twice: then what follows it is not one block.
        """
        order = self.order.get(kind, [])
        if self.linked == kind or not order:
            return
        for block in self.blocks:  # links of another kind would lead out of this one's order
            block.set_modules_to_forward_prefetch([])
        if len(set(order)) == len(order):
            for block, following in pairwise(order):
                block.set_modules_to_forward_prefetch([following])
        self.linked = kind

    def _join(self, error: Exception | None) -> None:
        """Take part in the others' passes until nobody wants one."""
        self.inside = False
        try:
            while (turn := self._next_turn(None)) is not None:
                self._idle(turn)
        except Exception as broken:  # another process is gone; the first error says more
            if error is None:
                raise
            error.add_note(f"promptecho: the other ranks could not be joined any more ({broken})")
        idle_error, self.idle_error = self.idle_error, None
        if error is None and idle_error is not None:
            raise idle_error

    def _next_turn(self, mine: str | None) -> str | None:
        if self.broken is not None:  # the others wait in a pass for this rank; its end is what frees them
            raise ModelError(f"{self.path}: a failed pass could not be finished ({self.broken})") from self.broken
        wanted = torch.tensor([int(kind == mine) for kind in KINDS])
        dist.all_reduce(wanted, op=dist.ReduceOp.MAX, group=self.asking)
        return next((kind for kind, count in zip(KINDS, wanted.tolist(), strict=True) if count), None)

    def _before_pass(self, _, args: tuple, kwargs: dict[str, Any]) -> None:
        if self.idling or (self.inside and self.whole):
            return
        if not self.inside:
            raise ModelError(
                f"{self.path}: its weights are spread over {dist.get_world_size(self.group)} ranks, so passes must run "
                "within `with vlm.in_step():`, entered by all of them"
            )
        mine = "image" if any(kwargs.get(name) is not None for name in self.image_inputs) else "text"
        while (turn := self._next_turn(mine)) != mine:
            assert turn is not None, "this rank wants a pass"
            self._idle(turn)
        self._begin(mine)

    def _begin(self, kind: str) -> None:
        self._link(kind)
        self.kind, self.gathered = kind, []

    def count(self, block: FSDPModule) -> None:
        """`block` is about to be gathered.

        Raises:
            ModelError: not in a pass of the model, or not this block's turn in a pass of this kind.
        """
        if self.kind is None:
            raise ModelError(f"{self.path}: is sharded, so only whole passes of it can run; a part of it was called")
        order, position = self.order.get(self.kind), len(self.gathered)
        in_turn = order is None or (position < len(order) and order[position] is block)
        if not in_turn or any(map(_waits, self.gathered[-1:])):
            raise ModelError(
                f"{self.path}: which of its blocks a pass runs depends on its inputs ({type(block).__name__} out of "
                "turn), so it can't be sharded; set training.reward_placement.mode: replicated"
            )
        self.gathered.append(block)

    def _after_pass(self, _, args: tuple, output: Any) -> None:
        """`output` None: the pass failed."""
        if self.kind is not None:
            missing = self.order.get(self.kind, self.gathered)[len(self.gathered) :]
            self._finish(missing, failed=output is None)

    def _finish(self, missing: list[FSDPModule], *, failed: bool) -> None:
        """Gather, and drop at once, what was left out, so that the other ranks can finish theirs."""
        try:
            if missing or failed or any(map(_waits, self.gathered[-1:])):
                self.model.reset_iter_state()
            for block in missing:
                block.unshard()
                block.reshard()
        except Exception as error:  # torch would only warn of it
            self.broken = error
        self.kind = None

    def _idle(self, kind: str) -> None:
        """A pass on a tiny input; leaves no trace in the model, some of which keep state between decoding steps (the
        Qwen-VL family its `rope_deltas`). Its error waits until the end of the step: the others need this rank."""
        state = [(module, dict(vars(module)), dict(module._buffers)) for module in self.model.modules()]
        self.idling = True
        self._begin(kind)
        try:
            with torch.no_grad(), during(self.model, None):
                self.model(**self.idle_inputs[kind])
        except Exception as error:
            self.idle_error = self.idle_error or error
        finally:
            self.idling = False
            for module, attributes, buffers in state:
                vars(module).update(attributes)
                module._buffers.update(buffers)


class _CountedAllGather(DefaultAllGather):
    def __init__(self, turns: Turns, block: FSDPModule):
        self.turns, self.block = turns, block

    def __call__(self, *args: Any, **kwargs: Any) -> dist.Work | None:
        self.turns.count(self.block)
        return super().__call__(*args, **kwargs)


def _waits(block: FSDPModule) -> bool:
    """Whether a block was gathered, or is being gathered, ahead of its turn and has not been reached yet."""
    return any(group._all_gather_result is not None for group in block._get_fsdp_state()._fsdp_param_groups)


def _tiny_inputs(vlm: Vlm, *, with_image: bool) -> dict[str, Any]:
    images = [Image.new("RGB", (64, 64), "grey")] if with_image else []
    text = render_prompt(vlm, "a", n_images=len(images))
    inputs = batch_inputs(vlm, [images], [text], padding_side="right")
    return {**inputs, "use_cache": False, "logits_to_keep": 1}
