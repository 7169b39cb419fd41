"""What ranks tell each other: whose images are whose, and whether one of them failed."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist

from promptecho.errors import PromptEchoError
from promptecho.files import digest

FAILED = "promptecho/failed"  # key of the store: a rank has failed, and the launcher ends the others


@contextmanager
def named(rank: int, world_size: int, store: dist.Store | None = None) -> Iterator[None]:
    """Errors say which of several ranks they come from; all write into one log. If several ranks have the same
    message, only the first of them prints it, where they share a `store`.

    Raises:
        PromptEchoError: also for an exchange that broke off because another rank is gone.
    """
    name = f"rank {rank} of {world_size} ({socket.gethostname()})"
    try:
        yield
    except PromptEchoError as error:
        told = str(error)
        if world_size > 1 and not re.match(r"rank \d+", told):
            error.args = (f"{name}: {error}",)
        if not _is_first(told, store):
            error.args = ("",)
        raise
    except RuntimeError as error:
        _is_first(name, store)
        if world_size > 1 and re.search(r"(closed|reset) by peer|Broken pipe", str(error)):
            raise PromptEchoError(
                f"{name}: another rank is gone (its own message, or the launcher's, says why); the rolling state is "
                "good: start the same command again"
            ) from error
        error.add_note(f"promptecho: {name}")
        raise
    except Exception as error:
        _is_first(name, store)
        error.add_note(f"promptecho: {name}")
        raise


def _is_first(message: str, store: dist.Store | None) -> bool:
    """Whether no other rank has failed with this message before; from now on the others know that one has failed."""
    if store is None:
        return True
    with suppress(RuntimeError):  # the rank that keeps the store is gone
        store.set(FAILED, "")
        # What `agree` passes on ("rank 1: ...") is another text, so that the rank's own, with its host, is always said.
        return store.add(f"{FAILED}/{digest(message)}", 1) == 1
    return True


def agree(error: PromptEchoError | None) -> None:
    """Collective: raise the first rank's error on every rank, so that none waits for one that has left."""
    messages: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, None if error is None else str(error))
    failed = [(rank, message) for rank, message in enumerate(messages) if message is not None]
    if failed:
        raise error or PromptEchoError(f"rank {failed[0][0]}: {failed[0][1]}")


def any_rank(value: bool) -> bool:
    """Collective: whether `value` is true on at least one rank."""
    flag = torch.tensor(float(value))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def gather_by_index(local: torch.Tensor, indices: list[int], total: int) -> torch.Tensor:
    """[total, ...] from each rank's rows for its own `indices`; every index belongs to exactly one rank."""
    full = torch.zeros((total, *local.shape[1:]), dtype=local.dtype, device=local.device)
    full[indices] = local
    if dist.get_world_size() > 1:
        dist.all_reduce(full)  # sums with zeros, so values stay exact
    return full


def handed_over(local: torch.Tensor, mine: list[int], total: int, wanted: list[list[int]]) -> torch.Tensor:
    """Collective: rows for this rank's `wanted` indices, in their order, from the ranks that have them.

    No rank ever holds all rows; they travel between GPUs where they are on GPUs.

    Args:
        local: this rank's rows, [len(mine), ...], for the indices `mine`: its share of `total` (`share_of_rank`), in
            any order.
        wanted: for each rank, what it needs; an index may be needed by several.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    at = {index: position for position, index in enumerate(mine)}
    given = [[at[index] for index in indices if index in at] for indices in wanted]
    rows = local[sum(given, [])]
    if ranks == 1:
        return rows
    owned = [set(share_of_rank(total, each, ranks)) for each in range(ranks)]
    taken = [[index for index in wanted[rank] if index in indices] for indices in owned]
    found = local.new_empty((len(wanted[rank]), *local.shape[1:]))
    dist.all_to_all_single(found, rows, [len(part) for part in taken], [len(part) for part in given])
    place = {index: position for position, index in enumerate(sum(taken, []))}
    return found[[place[index] for index in wanted[rank]]]


def share_of_rank(total: int, rank: int, world_size: int) -> list[int]:
    """A contiguous share of `total` images; shares differ by at most one image."""
    return list(range(total * rank // world_size, total * (rank + 1) // world_size))


def rounds(total: int, world_size: int, size: int) -> int:
    """Batches of at most `size` that the rank with the largest share of `total` images has."""
    largest = -(-total // world_size)
    return -(-largest // size)
