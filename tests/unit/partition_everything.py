"""ZeRO-3 as a large model meets it: no weight is so small that every rank keeps all of it. Run by torchrun.

DeepSpeed leaves weights below 100,000 elements whole once they were gathered, and what it would release it keeps if it
comes again soon; of a tiny model that is everything, and nothing would ever be gathered a second time.

    partition_everything.py train ...          the command line of `promptecho`
    partition_everything.py steps MODEL OUT    optimizer steps on given batches (test_train_precision.py)
"""

from __future__ import annotations

import sys

from deepspeed.runtime.zero.config import DeepSpeedZeroConfig


def main() -> None:
    for key in ("param_persistence_threshold", "max_reuse_distance"):
        DeepSpeedZeroConfig.model_fields[key].default = 0
    DeepSpeedZeroConfig.model_rebuild(force=True)
    assert DeepSpeedZeroConfig().param_persistence_threshold == 0
    if sys.argv[1] == "steps":
        from test_train_precision import partitioned_steps

        partitioned_steps(*sys.argv[2:])
    else:
        from promptecho.cli import main as command_line

        command_line()


if __name__ == "__main__":
    main()
