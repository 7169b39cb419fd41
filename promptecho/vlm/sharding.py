"""A frozen VLM whose weights lie spread over the ranks of a node, each of which scores images of its own.

FSDP2 (`torch.distributed.fsdp.fully_shard`): of n ranks each keeps 1/n of every weight. A block (a layer of the
language model or of the vision tower) is gathered before a pass reaches it and dropped behind it: the exchange for a
block is begun ahead of the computing of the one before, and goes on beside it. So a block's weights are held, the
buffer that they came in, and the buffer of the next. What belongs to no block (embeddings, head, norms, projector) is
gathered at the start of a pass and dropped at its end. Memory per rank: its share, and during a pass that remainder, up
to three blocks, and the activations of its own images. Weights stay in their dtype, and each block computes with whole
weights, so results are those of the unsharded model.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from promptecho.errors import ModelError, PromptEchoError
from promptecho.vlm.model import Vlm
from promptecho.vlm.turns import Turns, on_cpu

T = TypeVar("T")


def shard_vlm(
    vlm: Vlm, group: dist.ProcessGroup | DeviceMesh, device: torch.device | str | None = None, *, offload: bool = False,
    whole: bool = False,
) -> Vlm:  # fmt: skip
    """This rank's share of `vlm`, which is loaded whole on the CPU of every rank of `group` and changed in place.

    Without communication, so ranks may load and shard in turn (`load_in_turn`). Blocks move to the device one by one
    and the whole model never has to fit there: the peak is the shares so far and one whole block, or the remainder. Of
    each weight only this rank's rows are read.

    All passes then run inside `with sharded.in_step():`, which all ranks of the group enter together and leave
    together, whatever number of passes each runs and whatever error one of them meets; `label_log_probs`, rewards
    and `generate` work as before within it. The first one also runs two tiny passes to learn the order of blocks; so
    `with sharded.in_step(): pass` after loading shows early whether the model works.

    Args:
        group: the ranks that share one copy, best those of one node.
        device: where this rank computes; by default its current GPU if `group` can use GPUs, else the CPU.
        offload: shares stay in host memory (pinned where there is a GPU), from where each block comes for its pass:
            the device holds nothing between passes, and a pass waits for the host's bus.
        whole: `in_step()` gathers all weights once, which then stay until its end: for passes by the hundred, as those
            of single tokens are. The device must have room for the whole model beside this rank's share.

    Raises:
        ModelError: the model's class does not name its blocks.
    """
    group = group.get_group() if isinstance(group, DeviceMesh) else group
    place = _device(group, device)
    blocks = _cut(vlm, group, place, offload)
    sharded = replace(vlm, placed=place)
    turns = Turns(sharded, blocks, group, whole=whole)
    return replace(sharded, in_step=turns.in_step)


def load_in_turn(
    load: Callable[[], T], group: dist.ProcessGroup, done: Callable[[int], None] = lambda _: None,
    light: Callable[[], bool] = lambda: False,
) -> T:  # fmt: skip
    """Collective: what `load` returns, called on one rank of `group` after the other; rank 0 prints a line for each,
    and every rank calls `done` with their number.

    Args:
        light: asked on the first rank when it has loaded: whether the others may load all at once, because none of them
            has the whole model in memory.

    Raises:
        Exception: what `load` raised on this rank.
        PromptEchoError: on the other ranks, which load nothing any more; names the rank and repeats its error.
    """
    group = on_cpu(group)  # waiting may take long; no matter for a GPU
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    loaded: list[T] = []
    turns = [[turn] for turn in range(size)]
    while turns:
        now, *turns = turns
        error: Exception | None = None
        if rank in now:
            try:
                loaded.append(load())
            except Exception as caught:  # whatever it is, the others must hear of it
                error = caught
            gc.collect()  # the rest of the whole copy, before the next rank loads one
        messages: list[tuple[str | None, bool]] = [(None, False)] * size
        text = None if error is None else str(error) if isinstance(error, PromptEchoError) else repr(error)
        dist.all_gather_object(messages, (text, bool(loaded) and light()), group=group)
        if error is not None:
            raise error
        for turn in now:
            if (said := messages[turn][0]) is not None:
                raise PromptEchoError(f"rank {dist.get_global_rank(group, turn)}: {said}")
        done(now[-1] + 1)
        if dist.get_rank() == 0 and size > 1:
            print(f"loading in turn: {now[-1] + 1} of this node's {size} ranks done", file=sys.stderr, flush=True)
        if now == [0] and messages[0][1] and turns:
            turns = [sum(turns, [])]
    return loaded[0]


def _device(group: dist.ProcessGroup, device: torch.device | str | None) -> torch.device:
    if device is None:
        on_gpu = torch.cuda.is_available() and "nccl" in dist.get_backend_config(group)
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else "cpu"
    device = torch.device(device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # FSDP2 takes the current one
    return device


def _cut(vlm: Vlm, group: dist.ProcessGroup, device: torch.device, offload: bool) -> list[FSDPModule]:
    """Reduce the model to this rank's share; returns the modules that are gathered as one."""
    model = vlm.model
    blocks = find_blocks(model)
    if not blocks:
        raise ModelError(
            f"{vlm.path}: {type(model).__name__} does not say which layers belong together (_no_split_modules), so it "
            "can't be sharded; set training.reward_placement.mode: replicated"
        )
    whole = set()  # FSDP2 can't cut a scalar
    for parameter in model.parameters():
        if parameter.ndim == 0:
            parameter.data = parameter.data.to(device)
            whole.add(parameter)
        elif not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()
    policy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if offload else OffloadPolicy()
    mesh = DeviceMesh.from_group(group, device.type)
    units = [*blocks, model]
    for unit in units:
        _keep_share([p for p in unit.parameters() if p not in whole], group, device)
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, offload_policy=policy, ignored_params=whole)
    if device.type == "cpu":  # on a GPU exchanges have streams of their own
        model._set_unshard_async_op(True)
    # Only whole passes are agreed on between the ranks. transformers' generate() would otherwise run in lock-step with
    # all processes of the world, and the vision tower by itself ahead of the first pass.
    model._is_fsdp_managed_module = False
    model._supports_mm_encoder_outputs = lambda: False
    return units


def _keep_share(parameters: list[nn.Parameter], group: dist.ProcessGroup, device: torch.device) -> None:
    """Put weights onto the device with this rank's rows alone; the other rows are memory that nobody has written.

    fully_shard would move the whole weight and then keep these rows. Of a weight in a mapped file, only this part is
    read from disk.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    for parameter in parameters:
        if isinstance(parameter, DTensor):  # of a block that is sharded already
            continue
        rows = -(-len(parameter) // ranks)
        mine = slice(rank * rows, (rank + 1) * rows)
        with torch.no_grad():
            room = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            room[mine].copy_(parameter[mine])
            parameter.data = room


def lies_in_files(model: nn.Module) -> bool:
    """Whether nearly all weights are still mapped files, as safetensors gives them where their dtype stays: such a
    model takes no memory yet, and what is not looked at is never read."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [row.split()[0].split("-") for row in maps if row.endswith(".safetensors")]
    areas = [(int(begin, 16), int(end, 16)) for begin, end in spans]
    sizes: dict[bool, int] = {True: 0, False: 0}
    for parameter in model.parameters():
        mapped = any(begin <= parameter.data_ptr() < end for begin, end in areas)
        sizes[mapped] += parameter.numel() * parameter.element_size()
    return sizes[False] * 20 < sizes[True]


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated layers of `model`: members of module lists that are, or contain, a module which transformers says
    must not be split over devices (`_no_split_modules`; Idefics3 names only the attention of its vision layers)."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    blocks: dict[nn.Module, None] = {}  # ordered, without doubles

    def visit(module: nn.Module, layer: nn.Module | None) -> None:
        if type(module).__name__ in names:
            if layer is not None:
                blocks[layer] = None
            return
        for child in module.children():
            visit(child, child if isinstance(module, nn.ModuleList) else layer)

    visit(model, None)
    return list(blocks)
