"""The names of training's phases, once: for the watchdog, metrics, advice when memory runs out, the plan and docs.

docs/training.md lists them for users; `tests/unit/test_train_phases.py` compares.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What a process that trains is doing, in the order in which it does it."""

    START = "start"
    LOAD_T2I = "load_t2i"
    LOAD_VLM = "load_vlm"
    OPTIMIZER = "optimizer"
    RESUME = "resume"
    ENCODE = "encode"
    SAMPLE = "sample"
    DECODE = "decode"
    REWARD = "reward"
    EXCHANGE = "exchange"
    PRECOMPUTE = "precompute"
    UPDATE = "update"
    HELDOUT = "heldout"
    SAVE = "save"
    END = "end"


LOADING = (Phase.START, Phase.LOAD_T2I, Phase.LOAD_VLM, Phase.OPTIMIZER, Phase.RESUME)
# Those of an iteration that metrics tell apart; of memory and of a plan's seconds, these are parts of them.
MEASURED = (Phase.SAMPLE, Phase.REWARD, Phase.PRECOMPUTE, Phase.UPDATE)
PART_OF = {Phase.ENCODE: Phase.SAMPLE, Phase.DECODE: Phase.SAMPLE}
