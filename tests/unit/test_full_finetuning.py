"""All weights of the transformer trained: its checkpoints as models, stops that change no bit, ranks that agree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny_t2i
import torch
from diffusers import ZImageTransformer2DModel
from forked import ranks, run
from safetensors.torch import load_file
from tiny_experiment import Experiment, metrics_without_times

from promptecho.config import parse_experiment
from promptecho.config.models import T2iSection
from promptecho.config.slices import slice_digest, slice_value
from promptecho.config.training import TrainingConfig
from promptecho.errors import ConfigError, DataError
from promptecho.generate import ADAPTER_FILES, MODEL_FILES, checkpoint_files
from promptecho.models.inventory import ModelStatus
from promptecho.models.required import RequiredModel
from promptecho.phases import Phase
from promptecho.plan.costs import T2iCosts
from promptecho.plan.gpus import known
from promptecho.plan.memory import GpuMemory
from promptecho.plan.remedies import candidates
from promptecho.plan.result import Cluster
from promptecho.t2i.registry import load_family
from promptecho.t2i.trained import CONFIG_FILE, WEIGHTS_FILE, load_trained
from promptecho.train.loop import train_segment

pytestmark = pytest.mark.usefixtures("train_in_process")
torch.set_num_threads(1)
STATE = [f"state/{name}.safetensors" for name in ("weights", "exp_avg", "exp_avg_sq", "kl_ema", "ema")]
FULL = {"finetuning": "full", "passes": 1, "batch_size": 8, "learning_rate": 1e-3}  # a step an iteration


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Experiment(tmp_path_factory.mktemp("full"))


def test_stops_change_no_bit_and_a_checkpoint_is_a_model_of_diffusers(tiny):
    config = tiny.config("parts", iterations=2, checkpoints=[1, 2], **FULL)
    first = tiny.segment("parts", config, 1)
    second, whole = tiny.segment("parts", config, 2, resume=first.out), tiny.segment("whole", config, 2)
    assert train_segment(first) and train_segment(second) and train_segment(whole)
    for name in [*STATE, f"adapter/{WEIGHTS_FILE}", f"adapter/{CONFIG_FILE}"]:
        assert (second.out / name).read_bytes() == (whole.out / name).read_bytes(), name
    (row,) = metrics_without_times(first.out)
    assert row["kl_base"] < 1e-9 and row["update_norm"] > 1e-3  # its first step begins at the base model's weights
    (row,) = metrics_without_times(second.out)
    assert row["kl_base"] > 1e-6
    base = load_family("zimage", str(tiny_t2i.shared_folder())).transformer
    ema = load_file(second.out / "state/ema.safetensors")
    assert ema.keys() == dict(base.named_parameters()).keys()
    folder = second.out / "adapter"
    theirs = ZImageTransformer2DModel.from_pretrained(folder).state_dict()
    ours = load_trained(base, folder).state_dict()
    assert all(torch.equal(ours[name], value) and torch.equal(theirs[name], value) for name, value in ema.items())
    assert checkpoint_files(folder) == MODEL_FILES and checkpoint_files(tiny.folder) == ADAPTER_FILES
    wide = load_family("zimage", str(tiny_t2i.build(tiny.folder / "one", layers=1))).transformer
    with pytest.raises(DataError, match="the weights do not fit this text-to-image model: .* such as layers"):
        load_trained(wide, folder)


@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_that_share_all_of_it_come_to_the_same(tiny, stage):
    once = {"iterations": 1, "checkpoints": [1], **FULL, "ema": {"decay": None}}
    once |= {"adam_eps": 1e-4}  # without it Adam makes the first step of a rounding error as long as any other
    alone = tiny.segment("alone", tiny.config("alone", **once), 1)
    if not alone.out.exists():
        assert train_segment(alone)
    name = f"stage{stage}"
    run(tiny.train(tiny.config(name, zero_stage=stage, **once), 1, name), ranks(2))
    found, expected = (
        load_file(tiny.folder / which / "1" / "adapter" / WEIGHTS_FILE) for which in (name, "alone")
    )  # fmt: skip
    assert found.keys() == expected.keys()
    start = dict(load_family("zimage", str(tiny_t2i.shared_folder())).transformer.named_parameters())
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=2e-5)
    assert max(float((value - start[key]).abs().max()) for key, value in expected.items() if key in start) > 1e-4


RAW = {
    "experiment": "e",
    "models": {"t2i": {"family": "zimage", "path": "org/t2i", "dtype": "float32"}, "vlm": {"path": "org/vlm"}},
    "captions": {"prompts": "prompts.txt", "heldout": 0},
    "runs": {"a": {"finetuning": "full"}, "b": {}},
}


def test_what_does_not_go_with_it_is_refused():
    half = {**RAW["models"], "t2i": {"family": "zimage", "path": "org/t2i"}}
    for raw, told in (
        ({"models": half}, "runs.a.finetuning: full trains the transformer's weights in float32"),
        ({"runs": {"a": {"finetuning": "full", "init_adapter": "b@300"}, "b": {}}}, "is for finetuning: lora"),
        ({"runs": {"a": {"finetuning": "full"}, "b": {"init_adapter": "a@300"}}}, "run a trains the whole model"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_experiment({**RAW, **raw})
        assert told in str(caught.value)


def test_keys_of_the_adapter_do_not_count():
    plain = slice_value(parse_experiment(RAW), "train", "b")["training"]
    assert "finetuning" not in plain and plain["lora"]
    other = parse_experiment({**RAW, "training": {"lora": {"rank": 8}}})
    assert slice_digest(other, "train", "a") == slice_digest(parse_experiment(RAW), "train", "a")
    assert slice_digest(other, "train", "b") != slice_digest(parse_experiment(RAW), "train", "b")


def test_the_plan_counts_the_weights_once():
    folder, training = tiny_t2i.shared_folder(), TrainingConfig(finetuning="full")
    section = T2iSection(family="zimage", path=str(folder), height=32, width=32, dtype="float32")
    status = ModelStatus(RequiredModel(str(folder), "pipeline", None, ("models.t2i",)), "folder", str(folder))
    costs = T2iCosts(status, section, training, prompt_tokens=12)
    count = sum(p.numel() for p in load_family("zimage", str(folder)).transformer.parameters())
    assert costs.trained_params == costs.transformer_params == count
    assert (costs.adapter_bytes, costs.folded_bytes, costs.transformer_bytes) == (0, 0, 4 * count)
    assert costs.loss(1, training).peak > 0


def test_an_adapter_is_the_last_remedy_for_memory():
    """What the plan says of a model that is too large is a trial of each change."""
    plan: Any = SimpleNamespace(memory=[GpuMemory("trainer", {"state": 1}, {Phase.UPDATE: {"activations": 1}})])
    cluster = Cluster(known()["h100"], 1, 2)
    config, last = parse_experiment(RAW), "set training.finetuning: lora"
    *_, (text, change) = candidates(config, cluster, "a", plan)
    assert text == last and change(config, cluster)[0].runs["a"].finetuning == "lora"
    assert last not in [text for text, _ in candidates(config, cluster, "b", plan)]
