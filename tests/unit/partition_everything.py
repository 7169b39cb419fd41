"""ZeRO-3 as a large model meets it: no weight is so small that every rank keeps all of it. Run as ranks.

DeepSpeed leaves weights below 100,000 elements whole once they were gathered, and what it would release it keeps if it
comes again soon; of a tiny model that is everything, and nothing would ever be gathered a second time.

    partition_everything.py train ...          the command line of `promptecho`
    partition_everything.py steps MODEL OUT    `take_steps`

In a process of its own also because DeepSpeed's ZeRO-3 replaces `torch.nn.functional.linear` for good.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tiny_policy import TRAINING, adapted, batch_of

from promptecho.config.training_parts import LoraSection
from promptecho.errors import PromptEchoError
from promptecho.train.data import NotFiniteError
from promptecho.train.engine import Engine
from promptecho.train.failures import find_not_finite, report_not_finite
from promptecho.train.launch import init_distributed
from promptecho.train.losses import loss_of, velocity

FEW = LoraSection(rank=3, alpha=6, target_modules=["to_q", "feed_forward.w2"])
STEPS = TRAINING.model_copy(update={"lora": FEW, "learning_rate": 1e-3, "max_grad_norm": 1e9, "adam_eps": 1e-4})


def take_steps(stage: int, folder: str, work: Path, *, checkpointing: str) -> dict[str, torch.Tensor]:
    """Two optimizer steps on four images each, dealt to the ranks; then the second again, from the state before it.

    Weights after the second ("weights.NAME") and after it was repeated ("again.NAME"), the norms of the gradients, and
    velocities of three policies in between ("passes.NAME").
    The adapter's rank of 3 makes weights that two ranks can't share evenly. At last a step on an image of the last rank
    that is not finite.
    """
    training, device = STEPS.model_copy(update={"zero_stage": stage}), torch.device("cpu")
    init_distributed(training, device)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    family = adapted("zimage", "float32", checkpointing=checkpointing, lora=training.lora, folder=folder)
    batch = batch_of(family, n=4)
    engine = Engine(family.transformer, training, device, accumulation=4 // world_size)
    norms = []
    # The gradient of the first step by torch alone: how many of its elements are not 0, and how many of them are small.
    losses = [loss_of(family, batch.take([image]), training)[0] for image in range(4)] if world_size == 1 else []
    plain = torch.autograd.grad(sum(losses) / 4, list(engine.parameters.values())) if losses else []
    plain = torch.cat([gradient.flatten() for gradient in plain] or [torch.zeros(0)])
    expected = [int(((plain != 0) & (plain.abs() < training.adam_eps)).sum()), int((plain != 0).sum())]

    @torch.no_grad()
    def pass_without_gradient() -> torch.Tensor:
        return velocity(family, batch.x0[:1], torch.ones(1), batch.cond[:1], training)

    def step() -> None:
        pass_without_gradient()  # passes of both kinds take turns, as in an iteration
        for image in range(rank, 4, world_size):
            loss, _ = loss_of(family, batch.take([image]), training)
            engine.backward(loss)
        norms.append(engine.grad_norm)

    step()
    counts = torch.tensor(engine.small_gradients())
    dist.all_reduce(counts)
    assert not losses or torch.equal(counts, torch.tensor(expected)) and 0 < expected[0] < expected[1]
    assert engine.small_gradients() == (0, 0)
    weights, moments, steps = engine.weights(), engine.moments(), engine.optimizer_steps
    step()
    after = engine.weights()
    found = {f"weights.{key}": value for key, value in after.items()}
    found["passes.policy"] = pass_without_gradient()
    engine.use_weights({key: 2 * value for key, value in after.items()})
    found["passes.others"] = pass_without_gradient()
    assert all(torch.equal(value, after[key]) for key, value in engine.weights().items())
    engine.use_weights(after)
    assert torch.equal(pass_without_gradient(), found["passes.policy"])
    with engine.model.disable_adapter():
        found["passes.base"] = pass_without_gradient()
    engine.set_state(weights, moments, steps)
    back, kinds = engine.weights(), engine.moments()
    assert steps == engine.optimizer_steps == 1 and all(torch.equal(back[key], weights[key]) for key in weights)
    assert all(torch.equal(kinds[kind][key], moments[kind][key]) for kind in moments for key in weights)
    if stage == 3:
        frozen = [p for p in family.transformer.parameters() if not p.requires_grad]
        assert all(p.numel() == 0 and p.ds_tensor.numel() == -(-p.ds_numel // world_size) for p in frozen)
    step()
    found |= {f"again.{key}": value for key, value in engine.weights().items()}
    found["norms"], found["counts"] = torch.tensor(norms), counts
    batch.x0[3] = float("nan")
    step()
    assert engine.overflow
    assert all(torch.equal(value, found[f"again.{key}"]) for key, value in engine.weights().items())
    own = list(range(rank, 4, world_size))
    units = [(image, [0]) for image in own]
    what, guilty = find_not_finite(lambda chunk: loss_of(family, chunk, training)[0], engine, batch, units, len(own))
    assert (what, guilty) == (("loss", [3]) if 3 in own else ("", []))
    error = NotFiniteError(what, batch.take(guilty), 0)
    with pytest.raises(PromptEchoError, match=r"the loss is not finite on prompt d;"):
        report_not_finite(error, work, "r", 1, engine)
    return found


def main() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    for key in ("param_persistence_threshold", "max_reuse_distance"):
        DeepSpeedZeroConfig.model_fields[key].default = 0
    DeepSpeedZeroConfig.model_rebuild(force=True)
    assert DeepSpeedZeroConfig().param_persistence_threshold == 0
    if sys.argv[1] == "steps":
        torch.set_num_threads(1)
        folder, out = sys.argv[2:]
        found = take_steps(3, folder, Path(out).parent, checkpointing="full")
        if dist.get_rank() == 0:
            save_file(found, out)
    else:
        from promptecho.cli import main as command_line

        command_line()


if __name__ == "__main__":
    main()
