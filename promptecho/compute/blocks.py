"""Compiled blocks (regional compilation): a model's repeated block is compiled once and serves all of them.

Each block's `forward` is replaced, so that hooks on the block (sharding, checks for a request to stop) stay outside of
what is compiled. Sizes are dynamic: other lengths and batches are not compiled again, and which ones come first decides
nothing (fixed_sizes.py). What is compiled again: another grad mode, a mask or none, a batch of one, an adapter or none.
`compilations()` counts them for metrics.jsonl; beyond `LIMIT` for one kind of block the run ends, because compiling for
ever would look like a slow run.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from promptecho.compute import fixed_sizes
from promptecho.errors import ModelError

LIMIT = 64  # for each kind of block
MANY = 24  # more than the ways in which a training calls a block; from here on a line says so
OFF = "set compute.compile: off"
_COMPILED: set[str] = set()  # kinds of blocks that this process compiles
_TOLD: set[str] = set()
_UNFIT: set[str] = set()


class CompiledForward:
    """A block's `forward`, compiled at its first call for each kind of input."""

    def __init__(self, kind: str, forward: Callable[..., Any], backend: str):
        self.kind, self.eager = kind, forward
        self.compiled = torch.compile(forward, backend=fixed_sizes.backend(backend), dynamic=True, fullgraph=True)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        # A cache of keys and values grows with every token of a text that is written: that is not worth compiling.
        if options.get("past_key_values") is not None:
            return self.eager(*inputs, **options)
        inputs, options = fixed_sizes.no_views((inputs, options))
        before = compilations()
        try:
            output = self._known(inputs, options)
            if isinstance(output, fixed_sizes.SizesMetError):
                self._prepare(output, inputs, options)
                output = self.compiled(*inputs, **options)
        except torch._dynamo.exc.FailOnRecompileLimitHit:
            raise ModelError(
                f"compute.compile: {self.kind} was compiled {LIMIT} times and would be again; {OFF}"
            ) from None
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            if isinstance(error.__cause__, torch.OutOfMemoryError):
                raise error.__cause__ from None
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"compute.compile: {self.kind} cannot be compiled here ({reason}); {OFF}") from error
        if before < MANY <= compilations() and self.kind not in _TOLD:
            _TOLD.add(self.kind)
            print(
                f"compute.compile: blocks were compiled {MANY} times, last {self.kind}; if `compilations` in "
                f"metrics.jsonl does not become 0, {OFF}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        return output

    def _known(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The result by code that is there, or else what has to be compiled."""
        try:
            with fixed_sizes.asking():
                return self.compiled(*inputs, **options)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            if not isinstance(error.inner_exception, fixed_sizes.SizesMetError):
                raise
            return error.inner_exception.with_traceback(None)  # which would keep tensors

    def _prepare(self, met: fixed_sizes.SizesMetError, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Compile what a call needs by a stand-in for its inputs."""
        try:
            inputs, options = fixed_sizes.stand_in(met, (inputs, options))
            # Checkpointing counts what a pass keeps for its gradient; it is not to count this.
            with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept):
                self.compiled(*inputs, **options)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self.kind not in _UNFIT:
                _UNFIT.add(self.kind)
                reason = " ".join(str(error).split())[:300]
                print(
                    f"compute.compile: {self.kind} takes no fixed sizes ({reason}); what it meets first decides about "
                    "its last bits",
                    file=sys.stderr, flush=True,
                )  # fmt: skip


def compile_blocks(blocks: Iterable[torch.nn.Module], backend: str = "inductor") -> int:
    """Compile the `forward` of each of `blocks`, in place and at its first call; returns how many there are.

    Blocks of one class share what is compiled for one of them. `backend` is torch.compile's.
    """
    import torch._dynamo
    import torch._inductor.exc
    import torch.fx.experimental._config

    # Sizes that are equal by chance (a batch of 2, and pairs of 2) are not taken for one size.
    torch.fx.experimental._config.use_duck_shape = False
    torch._dynamo.config.recompile_limit = LIMIT
    torch._dynamo.config.accumulated_recompile_limit = max(256, 4 * LIMIT)
    number = 0
    for block in blocks:
        if not isinstance(block.forward, CompiledForward):
            kind = type(block).__name__
            block.forward = CompiledForward(kind, block.forward, backend)
            _COMPILED.add(kind)
        number += 1
    return number


def compiling() -> bool:
    """Whether blocks are compiled in this process."""
    return bool(_COMPILED)


def compilations() -> int:
    """How many graphs this process has compiled so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"] if _COMPILED else 0


def repeated_blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The blocks that diffusers says are repeated in `model`, without those that are not called."""
    names = set(getattr(model, "_repeated_blocks", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def missing(device: torch.device | str) -> str | None:
    """What the compiler lacks on this machine for that device; None if nothing."""
    if torch.device(device).type == "cuda":
        from torch.utils._triton import has_triton

        if torch.cuda.get_device_capability(device) < (7, 0):
            return "a GPU of compute capability 7.0 or more"
        if not has_triton():
            return "triton"
        if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():  # Triton compiles against it
            return "Python's headers (Python.h, which Debian has in python3-dev)"
        names = [os.environ.get("CC"), "cc", "gcc", "clang"]  # what Triton looks for
    else:
        names = [os.environ.get("CXX"), "g++", "clang++"]
    return None if any(shutil.which(name) for name in names if name) else f"a compiler ({names[-2]} or {names[-1]})"
