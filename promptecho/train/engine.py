"""DeepSpeed around the LoRA parameters: gradients, ZeRO, clipping, and state by name in plain tensors.

State goes through DeepSpeed's safe_get/set_full_* calls instead of its checkpoints: those are pickles that want
the same world size again.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import torch
import torch.distributed as dist

from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError
from promptecho.train.lora import lora_parameters
from promptecho.train.slurm_env import ranks_of_step

MOMENTS = ("exp_avg", "exp_avg_sq")
JOIN_TIMEOUT_S = 300  # for the slowest node to start Python and import torch


def init_distributed(device: torch.device, timeout_s: int = 1800) -> tuple[int, int]:
    """Join the process group that the launcher describes (RANK, WORLD_SIZE, ...; srun: the step's variables), or make
    one of a single process.

    Returns (rank, world_size).

    Raises:
        ConfigError: the ranks do not find each other; names this rank and the address.
    """
    if not dist.is_initialized():
        # Flags and rewards travel between CPUs, gradients between GPUs.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        options = {"backend": backend, "timeout": timedelta(seconds=timeout_s)}
        step = ranks_of_step(os.environ)
        os.environ.update(step)
        if step:
            rank, world_size = int(step["RANK"]), int(step["WORLD_SIZE"])
            store = _meet(step["MASTER_ADDR"], int(step["MASTER_PORT"]), rank, world_size)
            store.set_timeout(options["timeout"])
            dist.init_process_group(**options, store=store, rank=rank, world_size=world_size)
        elif "RANK" in os.environ:
            dist.init_process_group(**options)
        else:
            os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on it, as launchers set it
            dist.init_process_group(**options, store=dist.HashStore(), rank=0, world_size=1)
        if device.type == "cuda":
            os.environ["LOCAL_RANK"] = str(device.index or 0)  # by which DeepSpeed chooses the GPU
            torch.cuda.set_device(device)
    return dist.get_rank(), dist.get_world_size()


def _meet(host: str, port: int, rank: int, world_size: int) -> dist.Store:
    """The store at which all ranks meet; rank 0 keeps it."""
    try:
        return dist.TCPStore(host, port, world_size, rank == 0, timeout=timedelta(seconds=JOIN_TIMEOUT_S))
    except dist.DistError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"rank {rank} of {world_size} ({socket.gethostname()}): the ranks do not meet at {host}:{port} within "
            f"{JOIN_TIMEOUT_S} s ({reason}); a rank failed before, the nodes do not reach each other, or the port is "
            "taken: start the same command again, as a new step takes another port"
        ) from error


class Engine:
    """The trained module with its optimizer.

    `backward` is called `accumulation` times for each `step`; every call's loss is a mean over its own share of
    the batch, and DeepSpeed divides by `accumulation`.
    """

    def __init__(self, model: torch.nn.Module, training: TrainingConfig, *, accumulation: int):
        import deepspeed

        deepspeed.utils.logger.setLevel("WARNING")
        # On CPUs DeepSpeed would compile its own shared-memory all-reduce first: a minute, and g++. Gloo does.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.model = model
        self.parameters = lora_parameters(model)
        self.learning_rate, self.warmup_steps = training.learning_rate, training.warmup_steps
        optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=training.learning_rate,
            betas=(training.adam_beta1, training.adam_beta2),
            weight_decay=training.weight_decay,
        )
        self.engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            dist_init_required=False,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": accumulation,
                "gradient_clipping": training.max_grad_norm,
                "zero_optimization": {"stage": training.zero_stage, "overlap_comm": False},
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                "steps_per_print": 10**9,
            },
        )
        # A gradient that is not finite skips the step on all ranks, instead of turning the weights into NaN.
        self.engine.optimizer.check_grad_overflow = True
        self.set_state(self.weights(), zero_moments(self.weights()), 0)

    @property
    def current_learning_rate(self) -> float:
        """That of the next optimizer step: a function of the steps done, so resuming needs no schedule's state."""
        return self.learning_rate * min(1.0, (self.optimizer_steps + 1) / max(self.warmup_steps, 1))

    def backward(self, loss: torch.Tensor) -> None:
        if self.engine.is_gradient_accumulation_boundary():
            for group in self._inner_optimizer().param_groups:
                group["lr"] = self.current_learning_rate
        self.engine.backward(loss)
        self.engine.step()  # acts at accumulation boundaries only

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @property
    def overflow(self) -> bool:
        """Whether the last step was skipped because of a gradient that is not finite; the same on all ranks."""
        return bool(self.engine.optimizer.overflow)

    @property
    def grad_norm(self) -> float:
        """Global norm of the last step's gradient, before clipping."""
        norm = self.engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of the float32 weights, on the CPU."""
        from deepspeed.utils import safe_get_full_fp32_param

        full = {name: safe_get_full_fp32_param(p) for name, p in self.parameters.items()}
        return {name: value.detach().float().cpu().clone() for name, value in full.items()}

    def moments(self) -> dict[str, dict[str, torch.Tensor]]:
        """Copies of Adam's moments by kind and parameter, on the CPU."""
        from deepspeed.utils import safe_get_full_optimizer_state

        return {
            kind: {
                name: safe_get_full_optimizer_state(p, kind).detach().float().cpu().clone().reshape(p.shape)
                for name, p in self.parameters.items()
            }
            for kind in MOMENTS
        }

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps done, as Adam's bias correction counts them."""
        for state in self._inner_optimizer().state.values():
            if "step" in state:
                return int(state["step"])
        return 0

    def set_state(self, weights: dict, moments: dict[str, dict], steps: int) -> None:
        """Set weights, moments and step count: after this, training goes on as if it had never stopped.

        Adam's state is made here, because DeepSpeed would make and link it at the first step only.
        """
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        optimizer = self._inner_optimizer()
        for flat in (p for group in optimizer.param_groups for p in group["params"]):  # this rank's partitions
            if "exp_avg" not in optimizer.state[flat]:
                optimizer.state[flat] = {kind: torch.zeros_like(flat) for kind in MOMENTS}
        self.engine.optimizer._lazy_init_hp_params_optimizer_state()
        for name, p in self.parameters.items():
            safe_set_full_fp32_param(p, weights[name].to(p.device))
            for kind in MOMENTS:
                safe_set_full_optimizer_state(p, moments[kind][name].to(p.device), kind)
        self.use_weights(weights)
        for state in optimizer.state.values():
            state["step"] = torch.tensor(float(steps))

    def use_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Put other weights into the module for passes without gradient; `set_state`'s own copies stay as they are."""
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(weights[name])

    def _inner_optimizer(self) -> torch.optim.Optimizer:
        """The AdamW inside ZeRO's wrapper."""
        return self.engine.optimizer.optimizer


def zero_moments(weights: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    return {kind: {name: torch.zeros_like(value) for name, value in weights.items()} for kind in MOMENTS}
