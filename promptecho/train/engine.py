"""DeepSpeed around the trained parameters: gradients, ZeRO, clipping, and state by name in plain tensors.

State goes into files of our own instead of DeepSpeed's checkpoints: those are pickles that want the same world size
again. It is read from the flat tensors that ZeRO keeps, in one exchange at most, and stays on the device.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from promptecho.config.training import TrainingConfig
from promptecho.t2i.lora import compute_apart, trained_parameters

MOMENTS = ("exp_avg", "exp_avg_sq")
FUSED = ("cuda",)  # where AdamW is one kernel in place of a dozen; it rounds in another way, so on CPUs it is not


def import_deepspeed():
    """DeepSpeed, but for what it compiles when it looks at an optimizer: its own Muon, which nothing here uses.

    That alone would load all of torch's compiler: two seconds in every process.
    """
    compile_ = torch.compile
    stand_in: Any = lambda model=None, **_: model or (lambda function: function)  # noqa: E731
    torch.compile = stand_in
    try:
        import deepspeed
        import deepspeed.runtime.zero.muon.muon_optimizer
    finally:
        torch.compile = compile_
    return deepspeed


class Engine:
    """The trained module with its optimizer.

    `backward` is called `accumulation` times for each `step`; every call's loss is a mean over its own share of
    the batch, and DeepSpeed divides by `accumulation`.
    """

    def __init__(self, model: torch.nn.Module, training: TrainingConfig, device: torch.device, *, accumulation: int):
        deepspeed = import_deepspeed()
        deepspeed.utils.logger.setLevel("WARNING")
        # On CPUs DeepSpeed would compile its own shared-memory all-reduce first: a minute, and g++. Gloo does.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.model = model
        self.parameters = trained_parameters(model)
        self.shapes = {name: p.shape for name, p in self.parameters.items()}  # ZeRO-3 leaves empty parameters behind
        self.partitioned = training.zero_stage == 3
        self._rate_at = training.learning_rate_at
        optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=training.learning_rate,
            betas=(training.adam_beta1, training.adam_beta2),
            eps=training.adam_eps,
            weight_decay=training.weight_decay,
            fused=device.type in FUSED,
        )
        self._small, self._counted = 0, 0
        optimizer.register_step_pre_hook(lambda inner, *_: self._count_small(inner, training.adam_eps))
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": training.max_grad_norm,
            "zero_optimization": {"stage": training.zero_stage, "overlap_comm": False},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 10**9,
        }
        if self.partitioned:
            compute_apart(model)
            # From where it was loaded, weight by weight: the whole model is never on the device.
            deepspeed.zero.Init(module=model, config_dict_or_path=config, dtype=torch.float32)
        self.accumulation = accumulation
        self.engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, dist_init_required=False, config=config
        )
        # A gradient that is not finite skips the step on all ranks, instead of turning the weights into NaN.
        self.engine.optimizer.check_grad_overflow = True
        self.device = device
        self._weights: dict[str, torch.Tensor] | None = None  # what `weights` has found
        self.set_state(self.weights(), zero_moments(self.weights()), 0)

    @property
    def current_learning_rate(self) -> float:
        """That of the next optimizer step."""
        return self._rate_at(self.optimizer_steps)

    def backward(self, loss: torch.Tensor) -> None:
        steps = self.engine.is_gradient_accumulation_boundary()
        if steps:
            for group in self._inner_optimizer().param_groups:
                group["lr"] = self.current_learning_rate
        if self.partitioned:
            # DeepSpeed counts backward passes in its own forward, which we don't use; uncounted, each would overwrite
            # the gradients of the one before.
            self.engine.optimizer.clear_backward_seen_flag()
        self.engine.backward(loss)
        self.engine.step()  # acts at accumulation boundaries only
        if steps and not self.overflow:
            self._weights = None

    @property
    def overflow(self) -> bool:
        """Whether the last step was skipped because of a gradient that is not finite; the same on all ranks."""
        return bool(self.engine.optimizer.overflow)

    @property
    def grad_norm(self) -> float:
        """Global norm of the last step's gradient, before clipping."""
        norm = self.engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def small_gradients(self) -> tuple[int, int]:
        """Since the last call: elements of this rank's gradients below Adam's epsilon, of how many that are not 0.

        Zeros are left out: at the first step they are all of A, because B is 0.
        """
        found, self._small, self._counted = (self._small, self._counted), 0, 0
        return found

    @torch.no_grad()
    def _count_small(self, optimizer: torch.optim.Optimizer, eps: float) -> None:
        """Before an optimizer's step: look at the gradients as it gets them, averaged and clipped."""
        for group in optimizer.param_groups:
            for gradient in (p.grad for p in group["params"] if p.grad is not None):
                found = torch.count_nonzero(gradient)
                self._counted += int(found)
                self._small += int(found - torch.count_nonzero(gradient.abs() >= eps))

    def weights(self) -> dict[str, torch.Tensor]:
        """The float32 weights, as views of one tensor on the device; the same ones until the next step, so not to be
        changed. Collective under ZeRO-3 (one exchange, if there was a step since the last call)."""
        if self._weights is None:
            if self.partitioned:
                self._weights = self._named(_gathered(self._local_parts(None)))
            else:  # behind a step every rank's module has the new weights
                self._weights = self._flat({name: p.detach() for name, p in self.parameters.items()})
        return dict(self._weights)

    def _flat(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A copy on the device, as one tensor."""
        parts = [weights[name].to(self.device, torch.float32).flatten() for name in self.shapes]
        views = torch.cat(parts).split([part.numel() for part in parts])
        return {name: view.view(shape) for (name, shape), view in zip(self.shapes.items(), views, strict=True)}

    def moment_parts(self) -> torch.Tensor:
        """A copy of this rank's parts of Adam's moments, [2, n] on the device; `moments_of` makes them whole."""
        return torch.stack([self._local_parts(kind) for kind in MOMENTS])

    def moments_of(self, parts: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
        """Collective, one exchange: moments by kind and parameter, from all ranks' `moment_parts`."""
        whole = _gathered(parts)
        return {kind: self._named(whole[:, index]) for index, kind in enumerate(MOMENTS)}

    def moments(self) -> dict[str, dict[str, torch.Tensor]]:
        """Collective: copies of Adam's moments by kind and parameter, on the device."""
        return self.moments_of(self.moment_parts())

    def _local_parts(self, kind: str | None) -> torch.Tensor:
        """A copy of this rank's part [n] of all weights, or of the moments of one kind."""
        if not self.partitioned:
            (flat,) = self._flat_partitions()
            return (flat if kind is None else self._inner_optimizer().state[flat][kind]).detach().clone()
        from deepspeed.utils import safe_get_local_fp32_param, safe_get_local_optimizer_state

        parts = [
            safe_get_local_fp32_param(p) if kind is None else safe_get_local_optimizer_state(p, kind)
            for p in self.parameters.values()
        ]
        return torch.cat([part.detach().flatten() for part in parts])

    def _named(self, parts: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weights by name from all ranks' parts [ranks, n]."""
        found, start, flat = {}, 0, parts.reshape(-1)
        zero = self.engine.optimizer
        if not self.partitioned:  # one after the other in one flat tensor, of which a rank has a slice
            flats = zip(zero.round_robin_bit16_groups[0], zero.round_robin_bit16_offsets[0], strict=True)
            offsets = {id(p): offset for p, offset in flats}
        parameters: dict[str, Any] = dict(self.parameters)
        for name, p in parameters.items():
            if self.partitioned:  # of every single one each rank has a slice
                size = p.ds_tensor.ds_numel
                whole, start = parts[:, start : start + size].reshape(-1), start + size
            else:
                whole = flat[offsets[id(p)] :]
            found[name] = whole[: self.shapes[name].numel()].view(self.shapes[name])
        return found

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
        optimizer = self._inner_optimizer()
        for flat in self._flat_partitions():
            if "exp_avg" not in optimizer.state[flat]:
                optimizer.state[flat] = {kind: torch.zeros_like(flat) for kind in MOMENTS}
        if self.partitioned:
            self._set_partitions(weights, moments)
        else:
            self._set_full(weights, moments)
        self._weights = self._flat(weights)
        self.use_weights(weights)
        fused = optimizer.defaults["fused"]  # its kernel reads the count where the weights are
        for flat, state in optimizer.state.items():
            state["step"] = torch.tensor(float(steps), device=flat.device if fused else "cpu")

    def _set_full(self, weights: dict, moments: dict[str, dict]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self.engine.optimizer._lazy_init_hp_params_optimizer_state()
        for name, p in self.parameters.items():
            safe_set_full_fp32_param(p, weights[name].to(p.device))
            for kind in MOMENTS:
                safe_set_full_optimizer_state(p, moments[kind][name].to(p.device), kind)

    def _set_partitions(self, weights: dict, moments: dict[str, dict]) -> None:
        """ZeRO-3: this rank's parts. DeepSpeed's calls for whole tensors fail where sizes don't divide evenly."""
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        rank = dist.get_rank()

        def part(value: torch.Tensor, p: Any) -> torch.Tensor:
            size = p.ds_tensor.ds_numel
            flat = torch.zeros(size * dist.get_world_size(), device=value.device)
            flat[: value.numel()] = value.flatten()
            return flat[size * rank : size * (rank + 1)].to(self.device)

        for name, p in self.parameters.items():
            safe_set_local_fp32_param(p, part(weights[name], p))
            for kind in MOMENTS:
                safe_set_local_optimizer_state(p, part(moments[kind][name], p), kind)

    def use_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Put other weights into the module for passes without gradient; `set_state`'s own copies stay as they are.

        Collective under ZeRO-3.
        """
        self.weights()  # while the module has them
        with torch.no_grad():
            if self.partitioned:
                from deepspeed.runtime.zero import GatheredParameters

                with GatheredParameters(list(self.parameters.values()), modifier_rank=0):
                    for name, p in self.parameters.items():
                        p.data.copy_(weights[name])
                return
            torch._foreach_copy_(list(self.parameters.values()), [weights[name] for name in self.parameters])

    def _flat_partitions(self) -> list[torch.Tensor]:
        """What AdamW works on: this rank's parts of all weights, end to end."""
        if self.partitioned:  # there the optimizer's groups are filled while it steps only
            return list(self.engine.optimizer.fp32_partitioned_groups_flat)
        return [p for group in self._inner_optimizer().param_groups for p in group["params"]]

    def _inner_optimizer(self) -> torch.optim.Optimizer:
        """The AdamW inside ZeRO's wrapper."""
        return self.engine.optimizer.optimizer


def zero_moments(weights: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    return {kind: {name: torch.zeros_like(value) for name, value in weights.items()} for kind in MOMENTS}


def _gathered(parts: torch.Tensor) -> torch.Tensor:
    """Collective: the same of all ranks, [ranks, ...]."""
    ranks = dist.get_world_size()
    if ranks == 1:
        return parts[None]
    found = parts.new_empty((ranks * len(parts), *parts.shape[1:]))
    dist.all_gather_into_tensor(found, parts)
    return found.view(ranks, *parts.shape)
