"""The section `compute`: how the same mathematics is computed on the GPU. None of its keys is part of a digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from promptecho.config.fields import Flag, Section, Switch

AttentionKind = Literal["auto", "sdpa", "cudnn", "flash3", "flash4"]
HALF_ONLY = ("cudnn", "flash3", "flash4")  # they have no float32
WITHOUT_MASKS = ("flash3", "flash4")


class ComputeSection(Section):
    """How models compute, not what: changing it makes nothing again. A training that goes on in another way than its
    state was made in says so in its log and in metrics.jsonl, because the bits from there on are others."""

    compile: Switch = Field(
        "auto",
        description="Whether the repeated blocks of the text-to-image model and the layers of the VLM are compiled "
        "(torch.compile), for sampling, the passes without gradient and the update. auto: on a GPU, where what the "
        "compiler needs is there, unless `deterministic` is set; never on a CPU, and never where the "
        "text-to-image model is an embedded one, which is through before it pays.",
    )
    attention: AttentionKind = Field(
        "auto",
        description="Whose attention the text-to-image model and, in training, the reward's VLM take. auto: as the "
        "libraries have it, torch's own with the kernel that torch chooses, on an H200 cuDNN's; sdpa: torch's own, "
        "asked for by name; cudnn: torch's kernel of cuDNN (for the VLM as sdpa); flash3 and flash4: FlashAttention 3 "
        "and 4, packages of their own. The last three are for GPUs and for models in bfloat16, and none but auto has "
        "been measured here.",
    )
    deterministic: Flag = Field(
        False,
        description="Take only kernels that give the same bits each time (torch.use_deterministic_algorithms); an "
        "operation that has none ends the command with its name. Slower where attention's backward pass has to add "
        "up in a fixed order.",
    )
    overlap: Switch = Field(
        "auto",
        description="Whether a training scores the images of one batch, in a thread, while the next batch is sampled. "
        "auto: on a GPU that holds the whole VLM, with rewards of ours, as long as the memory of both fits and "
        "`deterministic` is false; on: on a CPU and with rewards from outside too. Images are then scored by batches "
        "of `training.sampling.batch_size`. A VLM that is spread over several GPUs scores behind sampling, one on "
        "GPUs of its own beside it in any case.",
    )
    mfu: Switch = Field(
        "auto",
        description="Whether metrics.jsonl has each phase's TFLOP/s and, where the GPU's datasheet is known, its MFU "
        "(docs/performance.md). The work is counted once, before the models are loaded, by one process. auto: on a "
        "GPU.",
    )
    fold_adapter: Flag = Field(
        False,
        description="Fold the adapter into bfloat16 weights, too, while images are made, so that sampling costs what "
        "it does without one; the sums are rounded up or down by chance, which changes images by no more than bfloat16 "
        "itself does. Needs room for a second copy of the transformer's linear layers. float32 weights are always "
        "folded; those that are partitioned (zero_stage 3) never are.",
    )


def compute_problems(sections: Mapping[str, Any]) -> dict[str, str]:
    """What the models and runs of an experiment can't do in this way: dotted path -> what is wrong."""
    compute, models, runs = (sections.get(key) for key in ("compute", "models", "runs"))
    if compute is None:
        return {}
    sharded = [name for name, training in (runs or {}).items() if training.zero_stage == 3]
    problems = {}
    if compute.compile == "on" and sharded:
        problems["compute.compile"] = (
            f"weights that training.zero_stage: 3 keeps in pieces can't be compiled (run {', '.join(sharded)}); set it "
            "to auto, or change that"
        )
    if compute.attention not in HALF_ONLY:
        return problems
    kind, found = compute.attention, []
    named = {"models.t2i": models and models.t2i, "models.vlm": models and models.vlm}
    named |= {f"models.vlms.{name}": model for name, model in (models.vlms if models else {}).items()}
    named |= {f"runs.{name}.reward_vlm": training.reward_vlm for name, training in (runs or {}).items()}
    full = [f"{path}.dtype" for path, model in named.items() if model is not None and model.dtype == "float32"]
    if full:
        found.append(f"{kind} computes in bfloat16, and {' and '.join(full)} say float32")
    if kind in WITHOUT_MASKS:
        if models and models.t2i.pad_prompts == "masked":
            found.append(f"{kind} takes no mask, which models.t2i.pad_prompts: masked asks for")
        if sharded:
            found.append(f"{kind} takes no mask, which training.zero_stage: 3 needs (run {', '.join(sharded)})")
        if compute.deterministic:
            found.append(f"{kind} adds up its gradients in any order, which compute.deterministic forbids")
    if found:
        problems["compute.attention"] = f"{'; '.join(found)}; set it to auto, or change that"
    return problems
