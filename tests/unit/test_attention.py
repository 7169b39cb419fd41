"""`compute.attention`: the libraries' own switches, and one true line where it can't be had."""

from __future__ import annotations

import pytest
import tiny_qwenimage
import tiny_t2i
import tiny_vlm
import torch
import yaml
from tiny_experiment import Experiment

from promptecho.cluster.attention import check_attention, use_attention
from promptecho.config import load_experiment
from promptecho.config.slices import slice_digest
from promptecho.errors import ConfigError, ModelError
from promptecho.t2i.registry import load_configured, load_family
from promptecho.train.placement.layout import RankLayout
from promptecho.train.placement.local import load_reward_vlms
from promptecho.vlm import load_vlm


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("attention"))


def write(experiment, name: str, attention: str, half: bool = True, **training):
    path = experiment.config(name, sections={"compute": {"attention": attention}}, **training)
    content = yaml.safe_load(path.read_text())
    if half:
        for model in content["models"].values():
            model["dtype"] = "bfloat16"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("kind", ["cudnn", "flash3", "flash4"])
def test_what_the_configuration_rules_out_is_told_when_it_is_checked(experiment, kind):
    with pytest.raises(ConfigError) as caught:
        load_experiment(write(experiment, "full", kind, half=False))
    told = f"compute.attention: {kind} computes in bfloat16, and models.t2i.dtype and models.vlm.dtype say float32"
    assert told in str(caught.value) and "\n" not in str(caught.value)
    path = write(experiment, "partitioned", kind, zero_stage=3)
    if kind == "cudnn":
        load_experiment(path)
    else:
        with pytest.raises(ConfigError, match=f"{kind} takes no mask, which training.zero_stage: 3 needs .run r."):
            load_experiment(path)


@pytest.mark.parametrize("kind", ["cudnn", "flash3", "flash4"])
def test_without_its_gpu_it_is_refused_before_a_model_is_loaded(experiment, kind, monkeypatch):
    config = load_experiment(write(experiment, "cpu", kind))
    assert slice_digest(config, "train", "r") == slice_digest(
        load_experiment(write(experiment, "auto", "auto")), "train", "r"
    )
    told = f"compute.attention: {kind} needs .* GPU.*, and this is a cpu; set compute.attention: auto"
    nowhere = {"path": "/nowhere"}  # nothing of it is looked at
    models = config.models.model_copy(
        update={name: getattr(config.models, name).model_copy(update=nowhere) for name in ("t2i", "vlm")}
    )
    config = config.model_copy(update={"models": models})
    with pytest.raises(ModelError, match=told):
        load_configured(config, "cpu")
    with pytest.raises(ModelError, match=told):
        load_reward_vlms(config, "r", torch.device("cpu"), RankLayout(0, 1, 1))


def test_a_package_that_is_missing_is_named():
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    for kind, package in (
        ("flash3", ".*`kernels`"),
        ("flash4", "`kernels`"),
    ):
        with pytest.raises(ModelError, match=f"compute.attention: {kind} can't be had here: .*{package}"):
            use_attention(family.transformer, kind)
    with pytest.raises(ModelError, match="that what compute.attention: flash3 needs is installed"):
        load_vlm(tiny_vlm.shared_folder(), attention="flash3")
    check_attention("auto", "cpu")
    check_attention("sdpa", "cpu")


@pytest.mark.parametrize("name", ["zimage", "qwenimage"])
def test_torchs_own_by_name_is_what_auto_takes_on_a_cpu(name):
    family = load_family(name, str((tiny_t2i if name == "zimage" else tiny_qwenimage).shared_folder()))
    generator = torch.Generator().manual_seed(0)
    x, cond = torch.randn(2, *family.latent_shape(32, 32), generator=generator), [torch.randn(20, 32)] * 2
    with torch.no_grad():
        auto = family.velocity(x, torch.full((2,), 0.5), cond)
        use_attention(family.transformer, "sdpa")
        processors = {module.processor._attention_backend for module in family.transformer.modules()
                      if hasattr(getattr(module, "processor", None), "_attention_backend")}  # fmt: skip
        assert processors == {"native"}
        assert torch.equal(family.velocity(x, torch.full((2,), 0.5), cond), auto)
    assert load_vlm(tiny_vlm.shared_folder(), attention="sdpa").model.config._attn_implementation == "sdpa"
