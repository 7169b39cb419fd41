"""The section `compute`: how the same mathematics is computed on the GPU. None of its keys is part of a digest."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from promptecho.config.fields import Flag, Section

CompileMode = Literal["auto", "on", "off"]


class ComputeSection(Section):
    """How models compute, not what: changing it makes nothing again. A training that goes on in another way than its
    state was made in says so in its log and in metrics.jsonl, because the bits from there on are others."""

    compile: CompileMode = Field(
        "auto",
        description="Whether the repeated blocks of the text-to-image model and the layers of the VLM are compiled "
        "(torch.compile), for sampling, the passes without gradient and the update. auto: on a GPU, where what the "
        "compiler needs is there; never on a CPU.",
    )
    deterministic: Flag = Field(
        False,
        description="Take only kernels that give the same bits each time (torch.use_deterministic_algorithms); an "
        "operation that has none ends the command with its name. Slower where attention's backward pass has to add "
        "up in a fixed order.",
    )
    mfu: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether metrics.jsonl tells each phase's TFLOP/s and, where the GPU's datasheet is known, its MFU "
        "(docs/performance.md). The work is counted once, before the models are loaded, by one process. auto: on a "
        "GPU.",
    )
