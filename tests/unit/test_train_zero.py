"""ZeRO-3 against a single process in float32, where tolerances are tight; whole runs: test_train_precision.py."""

from __future__ import annotations

import pytest
import tiny_t2i
import torch
from partition_everything import take_steps
from safetensors.torch import load_file
from tiny_policy import two_ranks

from promptecho.train.dump import load_batch

pytestmark = pytest.mark.usefixtures("train_in_process")


def test_partitioned_gradients_are_those_of_one_process_and_a_state_put_back_gives_the_same_bits(tmp_path):
    folder = str(tiny_t2i.build(tmp_path / "t2i", layers=1))
    expected = take_steps(1, folder, tmp_path / "alone", checkpointing="off")
    two_ranks(["steps", folder, str(tmp_path / "found.safetensors")])
    found = load_file(tmp_path / "found.safetensors")
    assert found.keys() == expected.keys()
    for values in (found, expected):
        names = [key.removeprefix("weights.") for key in values if key.startswith("weights.")]
        assert len(names) == 12 and all(torch.equal(values[f"weights.{key}"], values[f"again.{key}"]) for key in names)
        assert values["norms"][1] == values["norms"][2]
    kinds = [key for key in found if key.startswith("passes.")]
    assert len(kinds) == len({tuple(found[key].flatten().tolist()) for key in kinds}) == 3
    for key in kinds:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-4)
    # What a failed step leaves holds whole weights, though no rank has them.
    (left,) = (load_batch(path)[0] for path in tmp_path.glob("not-finite-*"))
    assert all(torch.equal(left[f"weights.{key}"], found[f"again.{key}"]) for key in names)
    torch.testing.assert_close(found["norms"], expected["norms"], rtol=1e-4, atol=0)
    torch.testing.assert_close(found["counts"], expected["counts"], rtol=1e-2, atol=0)
    for key in names:
        torch.testing.assert_close(found[f"weights.{key}"], expected[f"weights.{key}"], rtol=1e-4, atol=2e-5)
