"""Saving in a thread: what is written, when it is waited for, and how an error comes out."""

from __future__ import annotations

import threading

import pytest
import torch
from safetensors.torch import load_file

from promptecho.errors import DataError
from promptecho.train.checkpoint import save_rolling
from promptecho.train.saving import Saver, on_host
from promptecho.train.state import FILES, TrainingState, load_state


def state(iteration: int) -> TrainingState:
    """Its weights are views of one tensor, as the engine has them."""
    flat = torch.arange(12.0) + iteration
    weights = {"b": flat[:8].view(2, 4), "a": flat[8:]}
    return TrainingState(iteration, 0, {kind: weights for kind in FILES}, {})


def test_training_goes_on_while_a_state_is_written_and_the_next_one_waits(tmp_path):
    go, done = threading.Event(), []

    def slow() -> None:
        go.wait(60)
        save_rolling(tmp_path, on_host(state(1))(), [], keep=2)
        done.append(1)

    with Saver() as saver:
        saver.begin(slow)
        saver.check()
        assert not done  # begin and check have not waited
        go.set()
        saver.begin(lambda: done.append(2))
        assert done[0] == 1  # the first was complete before the second began
    assert done == [1, 2]
    found = load_state(tmp_path / "states" / "000001", {})
    assert torch.equal(found.tensors["ema"]["b"], state(1).tensors["ema"]["b"])
    assert load_file(tmp_path / "states" / "000001" / "weights.safetensors").keys() == {"a", "b"}


def test_an_error_of_the_thread_is_raised_at_the_next_look_with_its_file(tmp_path):
    (tmp_path / "states").write_text("a file where the folder should be")
    saver = Saver()
    saver.begin(lambda: save_rolling(tmp_path, state(3), [], keep=2))
    saver._thread.join()
    with pytest.raises(DataError, match=r"states/000003: .*"):
        saver.check()
    saver.check()  # once is enough
    saver.wait()


def test_where_a_run_fails_its_state_is_still_written_and_its_error_comes_first(tmp_path, capsys):
    (tmp_path / "states").write_text("a file where the folder should be")
    written = []
    with pytest.raises(KeyError, match="the run"), Saver() as saver:
        saver.begin(lambda: written.append(1))
        saver.begin(lambda: save_rolling(tmp_path, state(3), [], keep=2))
        raise KeyError("the run")
    assert written == [1] and "states/000003" in capsys.readouterr().err
