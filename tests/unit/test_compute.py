"""How models compute: what is compiled, how often, kernels that are deterministic, and what a state records."""

from __future__ import annotations

import os

import pytest
import tiny_qwenimage
import tiny_t2i
import torch
from diffusers.models.normalization import RMSNorm

from promptecho.compute import blocks, mode
from promptecho.config import parse_experiment
from promptecho.errors import ConfigError, ModelError
from promptecho.t2i.fused import FusedRMSNorm, rotate
from promptecho.t2i.registry import load_family

CPU = torch.device("cpu")


def config(staging: str | None = None, zero_stage: int = 1, t2i: str = "shapes", **compute):
    models = {"t2i": {"path": t2i, "dtype": "float32"}, "vlm": {"path": "shapes"}}
    raw = {
        "experiment": "e", "models": models, "captions": {"shapes": {"count": 9, "seed": 1}, "heldout": 1},
        "compute": compute, "runs": {"r": {"zero_stage": zero_stage}}, "models_staging": staging,
    }  # fmt: skip
    return parse_experiment(raw)


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The process computes as it did when the test began."""
    for name in ("TORCHINDUCTOR_CACHE_DIR", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    yield
    mode.set_up(config(), CPU)


def test_on_a_cpu_nothing_is_compiled_unless_asked_for():
    assert mode.set_up(config(), CPU) == mode.ComputeMode(False, "auto", False)
    assert not blocks.compiling()
    assert mode.set_up(config(compile="on"), CPU).compile
    with pytest.raises(ConfigError, match=r"compute.compile: .*zero_stage: 3 .*run r"):
        config(compile="on", zero_stage=3)


def test_what_cannot_be_compiled_is_told(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"compute.compile: on, but this machine lacks a compiler"):
        mode.set_up(config(compile="on"), CPU)
    assert not mode.set_up(config(compile="off"), CPU).compile
    assert capsys.readouterr().err == ""


def test_on_a_gpu_models_that_ship_with_the_project_are_not_compiled_by_themselves(capsys):
    """Where compiling is wanted, the card is asked what it can do; a torch without CUDA has no answer."""
    for embedded in ("shapes", "gallery"):
        assert not mode.set_up(config(t2i=embedded), "cuda").compile
    real = config(t2i="models/z-image")
    if torch.cuda.is_available():
        assert mode.set_up(real, "cuda").compile
    else:
        with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
            mode.set_up(real, "cuda")


def test_what_was_compiled_is_kept_on_the_node(tmp_path, capsys):
    mode.set_up(config(str(tmp_path), compile="on"), CPU)
    folder = tmp_path / f"promptecho-{os.geteuid()}" / "compiled"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder) and folder.is_dir()
    mode.set_up(config("relative/folder", compile="on"), CPU)
    assert "models.staging relative/folder is no absolute path" in capsys.readouterr().err


def test_a_state_records_how_it_was_computed():
    """One that records nothing is older than these choices, and was made as the defaults have it."""
    mode.set_up(config(), CPU)
    assert mode.changes(None) == mode.changes(mode.recorded()) == []
    eager = mode.recorded()
    mode.set_up(config(compile="on", deterministic=True), CPU)
    assert mode.changes(eager) == mode.changes(None) == ["compile: on, was off", "deterministic: on, was off"]
    assert mode.changes(mode.recorded()) == []


def test_deterministic_kernels_alone():
    places, values = torch.tensor([0]), torch.ones(1)
    mode.set_up(config(deterministic=True), CPU)
    assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"]
    refused = pytest.raises(ModelError, match=r"^compute.deterministic: put_ has no deterministic kernel")
    with refused, mode.only_deterministic():
        torch.zeros(4).put_(places, values)
    with pytest.raises(RuntimeError, match="^another$"), mode.only_deterministic():
        raise RuntimeError("another")
    mode.set_up(config(), CPU)
    with mode.only_deterministic():
        torch.zeros(4).put_(places, values)


class Named(torch.nn.Module):
    """A block that is compiled anew for every name, and for nothing else."""

    def forward(self, x: torch.Tensor, name: str = "", past_key_values: object = None) -> torch.Tensor:
        return x + len(name)


@pytest.fixture
def named(monkeypatch):
    monkeypatch.setattr(blocks, "LIMIT", 8)
    monkeypatch.setattr(blocks, "MANY", 4)
    monkeypatch.setattr(blocks, "_COMPILED", set())
    monkeypatch.setattr(blocks, "_TOLD", set())
    monkeypatch.setattr(blocks, "_UNFIT", set())
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    found = [Named(), Named()]
    assert blocks.compile_blocks(found, "eager") == blocks.compile_blocks(found, "eager") == 2
    return found


def test_blocks_of_one_kind_share_what_is_compiled_for_all_lengths(named):
    one, two = named
    for block, n, length in ((one, 2, 8), (two, 2, 8), (one, 3, 16), (two, 5, 7)):
        assert torch.equal(block(torch.zeros(n, length)), torch.zeros(n, length))
    assert blocks.compiling() and blocks.compilations() == 1
    one(torch.zeros(2, 8), name="a text that is written token by token", past_key_values=object())
    assert blocks.compilations() == 1


class Sum(torch.nn.Module):
    """Takes inputs in a tuple, one of them twice."""

    def forward(self, x: torch.Tensor, others: tuple[torch.Tensor, torch.Tensor], again: torch.Tensor) -> torch.Tensor:
        return x * 2 + others[0] + others[1][..., None] + again


def test_inputs_that_are_parts_of_others_share_what_is_compiled(named):
    """With gaps, repeated, not at the beginning: whatever the batch, the fixed sizes stand in for it."""
    block = Sum()
    blocks.compile_blocks([block], "eager")
    for n, length in ((2, 8), (3, 16), (5, 7)):
        x = torch.arange((n + 2) * (length + 3) * 4.0).view(n + 2, length + 3, 4)[1:-1, 2:-1]
        row = torch.arange(float(length)).expand(n, length)
        other = torch.ones(n, 4, length).mT
        assert torch.equal(block(x, (other, row), x), 3 * x + 1 + row[..., None])
    assert blocks.compilations() == 1


class Short(torch.nn.Module):
    """Takes no more than so many tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 512:
            raise ValueError("too long")
        return x + 1


def test_a_block_that_takes_no_fixed_sizes_is_compiled_for_those_it_meets(named, capsys):
    block = Short()
    blocks.compile_blocks([block], "eager")
    for length in (8, 9):
        assert torch.equal(block(torch.zeros(2, length)), torch.ones(2, length))
    [told] = capsys.readouterr().err.splitlines()
    assert told.startswith("compute.compile: Short takes no fixed sizes (") and blocks.compilations() == 1


def test_compiling_for_ever_is_told_and_ends(named, capsys):
    block = named[0]
    for number in range(blocks.LIMIT):
        block(torch.zeros(2, 8), name="n" * number)
    assert blocks.compilations() == blocks.LIMIT
    [told] = capsys.readouterr().err.splitlines()
    assert "last Named" in told and "set compute.compile: off" in told
    with pytest.raises(ModelError, match=r"^compute.compile: Named was compiled 8 times .*; set compute.compile: off$"):
        block(torch.zeros(2, 8), name="n" * blocks.LIMIT)


class Choosing(torch.nn.Module):
    """Its way depends on numbers, which no graph holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x


def test_a_block_that_cannot_be_compiled_is_named(named):
    block = Choosing()
    blocks.compile_blocks([block], "eager")
    with pytest.raises(
        ModelError, match=r"^compute.compile: Choosing cannot be compiled here \(.*set compute.compile: off$"
    ):
        block(torch.ones(3, 2))


def test_norms_by_torch_are_the_same_bits():
    torch.manual_seed(0)
    plain = RMSNorm(40, eps=1e-5)
    plain.weight.data.normal_()
    fused = RMSNorm(40, eps=1e-5)
    fused.load_state_dict(plain.state_dict())
    fused.__class__ = FusedRMSNorm
    x, gradient = torch.randn(3, 17, 40), torch.randn(3, 17, 40)
    found = []
    for norm in (plain, fused):
        leaf = x.clone().requires_grad_()
        norm(leaf).backward(gradient)
        found.append((norm(x), leaf.grad, norm.weight.grad))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    for norm in (plain, fused):
        norm.bfloat16()
    assert torch.equal(plain(x), fused(x))  # float32 meets bfloat16 as in diffusers
    torch.testing.assert_close(plain(x.bfloat16()), fused(x.bfloat16()), rtol=0.02, atol=0.02)


def test_rotations_in_real_numbers_are_those_in_complex_ones():
    torch.manual_seed(0)
    x, angles = torch.randn(2, 9, 3, 8), torch.randn(2, 9, 4)
    freqs = torch.polar(torch.ones_like(angles), angles)
    wanted = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * freqs.unsqueeze(2)).flatten(3)
    torch.testing.assert_close(rotate(x, torch.view_as_real(freqs)), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rotate(x[:1], torch.view_as_real(freqs[0])), wanted[:1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["zimage", "qwenimage"])
def test_a_model_in_real_numbers_predicts_the_same(name):
    folder = {"zimage": tiny_t2i, "qwenimage": tiny_qwenimage}[name].shared_folder()
    family = load_family(name, str(folder))
    assert not [module for module in family.pipeline.transformer.modules() if type(module) is RMSNorm]
    torch.manual_seed(0)
    x_t, cond = torch.randn(2, *family.latent_shape(64, 64)), family.encode_prompts(["A red circle.", "Three rings."])
    with torch.no_grad():
        before = family.velocity(x_t, torch.tensor([0.3, 0.9]), cond)
        family.use_real_rope()
        after = family.velocity(x_t, torch.tensor([0.3, 0.9]), cond)
    rotary = [m for m in family.pipeline.transformer.modules() if "Real" in type(getattr(m, "processor", m)).__name__]
    assert rotary or name == "qwenimage"
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_two_backward_passes_at_real_size_are_the_same_bits():
    """Z-Image's length at 1024 x 1024 pixels with a prompt of 288 tokens, 30 heads of 128, in bfloat16."""
    mode.set_up(config(deterministic=True), "cuda")
    torch.manual_seed(0)
    inputs = [torch.randn(1, 30, 4384, 128, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    found = []
    for _ in range(3):
        leaves = [x.clone().requires_grad_() for x in inputs[:3]]
        torch.nn.functional.scaled_dot_product_attention(*leaves).backward(inputs[3])
        found.append([leaf.grad for leaf in leaves])
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))
