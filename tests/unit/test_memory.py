"""A shortage of memory ends in one line: phase, device, how much, and keys that still can be lowered."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path

import pytest
from forked import ranks, run
from PIL import Image
from starved import starved
from tiny_experiment import Experiment

from promptecho.cli import main
from promptecho.config import load_experiment, slice_digest
from promptecho.config.memory import CACHE, caption_keys, generation_keys, reward_keys, score_keys, training_keys
from promptecho.errors import DataError, ModelError, OutOfMemoryError
from promptecho.memory import MemoryAdvice, in_phase, shortage, sizes
from promptecho.train.loop import train_segment

STARVED = Path(__file__).with_name("starved.py")
PHASES = ("load_t2i", "load_vlm", "optimizer", "encode", "sample", "decode", "reward", "precompute", "update")
CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 79.11 GiB of which 512.00 MiB is "
    "free. Process 4711 has 8.00 GiB memory in use. Including non-PyTorch memory, this process has 70.61 GiB memory in "
    "use. Of the allocated memory 69.50 GiB is allocated by PyTorch, and 310.21 MiB is reserved by PyTorch but "
    "unallocated. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True "
    "to avoid fragmentation.  See documentation for Memory Management"
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("memory"))


# What the library says.


def test_sizes_of_a_gpu_are_those_of_the_librarys_message():
    assert sizes(CUDA) == (
        "2.50 GiB more wanted, 512.00 MiB of 79.11 GiB free, 69.50 GiB in use by this process, 8.00 GiB held by other "
        "processes"
    )


def test_a_real_refusal_of_the_cpus_allocator_is_understood():
    import numpy as np
    import torch

    advice = MemoryAdvice("cuda:0", lambda phase, device: [f"lower {phase} on {device}", "b", "c"], lambda: " of X")
    message = r"^out of memory on cpu in phase update of X: \d+\.00 GiB more wanted, .*; lower update on cpu, b, or c$"
    with pytest.raises(OutOfMemoryError, match=message) as caught, advice("update"):
        torch.empty(2**58, dtype=torch.uint8)
    assert re.search(r"268435456.00 GiB more wanted, \d+\.\d\d [GM]iB in use by this process, \d+", str(caught.value))
    with pytest.raises(OutOfMemoryError, match="phase update of X: 67108864.00 GiB more wanted"), advice("update"):
        np.empty((2**56,), dtype=np.uint8)
    with pytest.raises(OutOfMemoryError, match="in phase update"), advice("update"):
        bytearray(2**62)


def test_the_inner_phase_counts_and_what_was_raised_from_a_shortage():
    import torch

    advice = MemoryAdvice("cuda:1", lambda phase, device: [])
    expected = pytest.raises(OutOfMemoryError, match="on cuda:1 in phase decode: 2.50 GiB .* at its best: take")
    with expected, advice("outer"), advice("sample"), in_phase("inner"), in_phase("decode"):
        try:
            raise torch.OutOfMemoryError(CUDA)
        except RuntimeError as error:
            raise ModelError("cannot load the model") from error


def test_other_errors_pass_as_they_are():
    advice = MemoryAdvice("cpu", lambda phase, device: pytest.fail("asked for advice"))
    for error in (DataError("the VLM wrote: out of memory"), RuntimeError("size mismatch"), KeyError("x")):
        with pytest.raises(type(error)) as caught, advice("sample"), in_phase("decode"):
            raise error
        assert caught.value is error and shortage(error) is None


# Which keys.


def _config(experiment: Experiment, name: str, *, sections: dict | None = None, **training):
    return load_experiment(experiment.config(name, sections=sections, **training))


SETS = {"image_sets": {"own": {"benchmark": "captions", "prompts": "p.jsonl", "batch_size": 4}}}


def test_only_keys_that_are_not_at_their_best_are_named_and_all_of_them_exist(experiment):
    own = [{"name": "echo", "batch_size": 1}, {"name": "inferscore", "batch_size": 6}]
    configs = {
        "plain": _config(experiment, "plain", sections=SETS),
        "own": _config(
            experiment, "own", rewards=own, reward_vlm={"path": "x", "dtype": "float32"}, per_timestep=False,
            reward_placement={"mode": "dedicated"}, zero_stage=3, activation_checkpointing=True,
        ),
        "best": _config(
            experiment, "best", micro_batch_size=1, sampling={"batch_size": 1}, activation_checkpointing=True,
            zero_stage=3, reward_placement={"mode": "offloaded"}, rewards=own[:1],
        ),
    }  # fmt: skip
    configs["whole"] = _config(experiment, "whole", reward_placement={"gather": "phase"})
    sizes = [{"height": 32, "width": side} for side in (24, 32)]
    configs["mixed"] = _config(experiment, "mixed", sizes=sizes)
    configs["best"] = configs["best"].model_copy(update={"models_prompt_cache": "results/prompts"})
    for config in configs.values():
        values = config.model_dump(mode="json")
        values["training"] = values["runs"]["r"]
        for phase in PHASES:
            for device in ("cpu", "cuda:0"):
                for change in training_keys(config, "r", 4, phase, device):
                    if change == CACHE:
                        assert config.models_prompt_cache is None and device != "cpu" and phase != "encode"
                        continue
                    verb, key = change.replace(":", " ").split()[:2]
                    found = values
                    for part in key.split("."):
                        found = found[int(part) if part.isdigit() else part]
                    if "(" in change and verb in ("lower", "raise"):
                        assert change == f"{verb} {key} ({found})" and (verb == "raise" or found > 1)
                    else:
                        assert verb == "set" and str(found).lower() != change.split(": ")[1].split(" (")[0], change

    def keys(name: str, phase: str, device: str = "cuda:0", processes: int = 4) -> str:
        return ", ".join(training_keys(configs[name], "r", processes, phase, device))

    assert keys("plain", "update").startswith(
        "set training.activation_checkpointing: full, lower training.micro_batch_size (2), "
        f"set training.reward_placement.mode: offloaded, {CACHE}, set training.zero_stage: 3"
    )
    assert generation_keys(configs["plain"], "own", "sample", "cuda:0")[1] == CACHE
    assert "zero_stage" not in keys("plain", "update", processes=1) + keys("mixed", "update")
    assert keys("plain", "sample").startswith("lower training.sampling.batch_size (4), ")
    assert "compute.overlap: off" in keys("plain", "sample", processes=1)
    assert not any(
        "overlap" in keys(*at) for at in (("plain", "sample"), ("plain", "sample", "cpu"), ("own", "sample"))
    )
    assert keys("plain", "decode").startswith("set models.t2i.vae_slicing: true, set models.t2i.vae_tiling: true")
    assert keys("plain", "reward").startswith("lower rewards.0.batch_size (16), set training.reward_placement.mode")
    assert keys("plain", "update", "cpu", 1) == (
        "set training.activation_checkpointing: full, lower training.micro_batch_size (2), set models.t2i.dtype: "
        "bfloat16 (other results: begins anew)"
    )
    assert "gather: layer, set training.reward_placement.mode" in keys("whole", "reward")
    assert "gather" not in keys("whole", "reward", processes=1)
    assert keys("own", "reward").startswith(
        "lower training.rewards.1.batch_size (6), raise training.reward_placement.per_node (1), set training.reward_vlm"
    )
    assert keys("own", "update").startswith("set training.per_timestep: true (other results: begins anew), lower")
    assert keys("best", "update") == "set models.t2i.dtype: bfloat16 (other results: begins anew)"
    assert keys("best", "reward") == "set models.vlm.dtype: bfloat16 (other results: begins anew)"
    assert generation_keys(configs["plain"], "own", "sample", "cpu")[0] == "lower image_sets.own.batch_size (4)"
    assert generation_keys(configs["plain"], "own", "decode", "cpu")[0] == "set models.t2i.vae_slicing: true"
    assert caption_keys(None, 3, "float32", "caption", "cpu") == ["lower --batch-size (3)", "give --dtype bfloat16"]
    vlm = configs["plain"].models.vlm
    assert caption_keys(vlm, 3, "bfloat16", "caption", "cpu") == ["lower captions.batch_size (3)"]
    assert reward_keys(1, "bfloat16", "reward", "cpu") == []
    assert score_keys(None, None, "score", "cuda:0") == ["end other processes on it", "use --device cpu"]


def test_keys_that_are_advised_do_not_begin_a_run_anew(experiment):
    """But those that say so."""
    plain = _config(experiment, "same", sections=SETS)
    values = plain.model_dump(mode="json")
    for training in (values["training"], values["runs"]["r"]):
        training |= {"micro_batch_size": 1, "activation_checkpointing": True, "zero_stage": 3}
        training["sampling"]["batch_size"], training["reward_placement"]["mode"] = 1, "offloaded"
    values["models"]["t2i"]["vae_slicing"] = True
    for section in (values["rewards"][0], values["image_sets"]["own"], values["captions"]):
        section["batch_size"] = 1

    def digests() -> list[str]:
        config = type(plain).model_validate(values)
        assert config != plain
        return [slice_digest(config, "train", run="r"), slice_digest(config, "generate", image_set="own")]

    same = [slice_digest(plain, "train", run="r"), slice_digest(plain, "generate", image_set="own")]
    assert digests() == same
    values["models"]["t2i"]["vae_tiling"] = True
    assert all(own != other for own, other in zip(digests(), same, strict=True))


# Real commands, real shortages.

pytestmark = pytest.mark.usefixtures("train_in_process")


@pytest.mark.parametrize(
    ("phase", "advice"),
    [
        ("sample", "lower training.sampling.batch_size (8)"),
        ("decode", "set models.t2i.vae_slicing: true"),
        ("reward", "lower rewards.0.batch_size (16)"),
        ("precompute", "lower training.micro_batch_size (4)"),
        ("update", "set training.activation_checkpointing: full, lower training.micro_batch_size (4)"),
    ],
)
def test_training_says_in_which_phase_memory_ran_out_and_what_to_change(experiment, phase, advice):
    config = experiment.config(
        f"big_{phase}", iterations=1, checkpoints=[1], micro_batch_size=4, batch_size=8,
        sampling={"batch_size": 8, "num_inference_steps": 2, "guidance_scale": 1.0},
    )  # fmt: skip
    with pytest.raises(OutOfMemoryError) as caught, starved(phase):
        train_segment(experiment.segment(f"big_{phase}", config, 1))
    message = str(caught.value)
    assert re.match(
        rf"out of memory on cpu in phase {phase} of iteration 1: .+, \d+\.\d\d [GM]iB in use by this process, "
        rf"\d+\.\d\d [GM]iB free; {re.escape(advice)}",
        message,
    ), message
    assert "\n" not in message


@pytest.mark.parametrize("phase", ["update", "reward"])
def test_one_of_two_ranks_without_memory_ends_both(experiment, phase):
    config = experiment.config(f"two_{phase}", iterations=1, checkpoints=[1], reward_placement={"mode": "replicated"})
    arguments = experiment.train(config, 1, f"two_{phase}")
    stderr = run([phase, "1", *arguments], ranks(2, each=True), script=STARVED, code=1)
    said = [line for line in stderr.splitlines() if "out of memory on cpu in phase" in line]
    own = rf"promptecho: rank 1 of 2 \(.*\): out of memory on cpu in phase {phase} of iteration 1: .*; "
    assert any(re.match(own, line) for line in said), stderr[-3000:]


def _told(phase: str, arguments: list[str], capsys, monkeypatch) -> str:
    monkeypatch.setattr(sys, "argv", ["promptecho", *arguments])
    with pytest.raises(SystemExit) as caught, starved(phase):
        main()
    assert caught.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("promptecho: ")]
    return line


def test_captioning_says_what_to_change(experiment, tmp_path, capsys, monkeypatch):
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (256, 256), "red").save(tmp_path / "images" / f"{name}.png")
    arguments = [
        "caption", "shard", "--vlm", str(experiment.vlm), "--images", str(tmp_path / "images"), "--out",
        str(tmp_path / "0.h5"), "--work", str(tmp_path), "--batch-size", "2", "--max-new-tokens", "4", "--threads", "1",
    ]  # fmt: skip
    line = _told("caption", arguments, capsys, monkeypatch)
    assert re.search(r"out of memory on cpu in phase caption: .*; lower --batch-size \(2\), or give --dtype", line)


def test_the_reward_command_says_what_to_change(experiment, tmp_path, capsys, monkeypatch):
    Image.new("RGB", (256, 256), "red").save(tmp_path / "a.png")
    arguments = [
        "reward", "--vlm", str(experiment.vlm), "--image", str(tmp_path / "a.png"), "--label", "A red circle.",
        "--dtype", "bfloat16",
    ]  # fmt: skip
    line = _told("reward", arguments, capsys, monkeypatch)
    assert re.search(r"out of memory on cpu in phase reward: .*; lower --batch-size \(8\)$", line)


def test_generating_says_what_to_change(experiment, tmp_path, capsys, monkeypatch):
    (tmp_path / "p.jsonl").write_text('{"data_id": "a", "caption": "A red circle."}\n')
    own = {"benchmark": "captions", "prompts": str(tmp_path / "p.jsonl"), "batch_size": 4, "num_inference_steps": 2}
    config = experiment.config("generate", sections={"image_sets": {"own": own}})
    arguments = [
        "generate", "--config", str(config), "--run", "base", "--step", "0", "--image-set", "own", "--prompts",
        str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "w"), "--threads", "1",
    ]  # fmt: skip
    line = _told("decode", arguments, capsys, monkeypatch)
    assert re.search(r"out of memory on cpu in phase decode: .*; set models.t2i.vae_slicing: true, set", line)


def test_score_says_what_to_change():
    import torch

    advice = MemoryAdvice("cuda:0", partial(score_keys, None, None))
    expected = pytest.raises(OutOfMemoryError, match="on cuda:0 in phase score: .*; end other processes on it, or use")
    with expected, advice("score"):
        raise torch.OutOfMemoryError(CUDA)
