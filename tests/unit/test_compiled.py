"""Compiled blocks beside eager ones, with an adapter and activation checkpointing; `make test-compiled` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_t2i
import tiny_vlm
import torch
from PIL import Image
from tiny_experiment import Experiment
from tiny_policy import adapted
from torch.fx.experimental.symbolic_shapes import optimization_hint

from promptecho.compute.blocks import CompiledForward, compilations
from promptecho.files import read_json, read_jsonl
from promptecho.t2i.lora import trained_parameters
from promptecho.t2i.registry import load_family
from promptecho.train.loop import train_segment
from promptecho.vlm import load_vlm
from promptecho.vlm.compiled import compile_vlm
from promptecho.vlm.log_probs import label_log_probs

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("train_in_process")]

QUERY, LABELS = "Describe this image.", ["A red circle.", "Two blue squares and a ring.", "A star above a cross."]


@pytest.fixture(autouse=True, scope="module")
def from_nothing():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def pass_of(family, n: int, size: tuple[int, int] = (64, 64)) -> list[torch.Tensor]:
    """Velocity of `n` images, and its gradients by the adapter's weights."""
    generator = torch.Generator().manual_seed(n)
    x_t, t = torch.randn(n, *family.latent_shape(*size), generator=generator), torch.rand(n, generator=generator)
    velocity = family.velocity(x_t, t, family.encode_prompts(["A red circle."] * n))
    weights = [*trained_parameters(family.transformer).values()]
    gradients = torch.autograd.grad(velocity.square().mean(), weights, allow_unused=True)
    # The text stream of Qwen-Image's last block leads nowhere: no gradient, or one of zeros.
    return [velocity.detach(), *(gradient for gradient in gradients if gradient is not None and gradient.any())]


def test_training_ends_in_the_same_bits_wherever_it_was_cut(tmp_path, monkeypatch, capsys):
    """In bfloat16, with the compiler's own kernels; what one process has compiled, the next one finds on the node."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "elsewhere"))
    experiment = Experiment(tmp_path, t2i=tiny_t2i.shallow_folder())

    def trained(compiled: str, name: str, to: int, resume: str | None = None) -> Path:
        models = {
            "t2i": {"path": str(experiment.t2i), "dtype": "bfloat16", "height": 32, "width": 32},
            "vlm": {"path": str(experiment.vlm), "dtype": "float32"},
        }
        path = experiment.config(
            compiled, sections={"compute": {"compile": compiled}, "models": models}, iterations=2, checkpoints=[1, 2],
            activation_checkpointing=True, kl_base={"weight": 0.0},
        )  # fmt: skip
        segment = experiment.segment(name, path, to, resume=resume and tmp_path / resume)
        segment.config = segment.config.model_copy(update={"models_staging": str(tmp_path / "node")})
        assert train_segment(segment)
        return segment.out

    first = read_jsonl(trained("on", "cut", 1) / "metrics.jsonl")[0]
    assert first["compilations"] > 0 and "compute_changed" not in first
    torch._dynamo.reset()  # what another process has in memory: nothing
    torch._dynamo.utils.counters.clear()
    cut = trained("on", "cut", 2, "cut/1")
    found = torch._dynamo.utils.counters["inductor"]
    assert found["fxgraph_cache_hit"] > 0 and found["fxgraph_cache_miss"] == 0, dict(found)
    assert list((tmp_path / "node").glob("promptecho-*/compiled/fxgraph"))
    straight = trained("on", "straight", 2)
    adapter = "adapter/adapter_model.safetensors"
    assert (cut / adapter).read_bytes() == (straight / adapter).read_bytes()
    assert read_json(cut / "state/state.json")["facts"]["compute"]["compile"] is True
    rows = read_jsonl(straight / "metrics.jsonl")
    assert rows[1]["compilations"] == 0 and not any("compute_changed" in row for row in rows)

    capsys.readouterr()
    eager = read_jsonl(trained("off", "cut-off", 2, "cut/1") / "metrics.jsonl")[-1]
    assert eager["compute_changed"] == 1 and "(compile: off, was on)" in capsys.readouterr().err
    assert eager["reward_mean"] == pytest.approx(rows[1]["reward_mean"], abs=0.1)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("zimage", "float32"), ("qwenimage", "float32"), ("zimage", "bfloat16"), ("qwenimage", "bfloat16")],
)
def test_blocks_compile_in_one_piece_and_once_for_all_batches(name, dtype):
    """`fullgraph`: whatever breaks a graph is an error. The operations stay those of the eager model."""
    folder = tiny_t2i.shallow_folder() if name == "zimage" else None
    eager, compiled = (adapted(name, dtype, checkpointing=True, folder=folder) for _ in range(2))
    assert compiled.compile_blocks("aot_eager") == compiled.compile_blocks("aot_eager") > 0
    graphs = []
    for n in (2, 3):
        before = compilations()
        for wanted, found in zip(pass_of(eager, n), pass_of(compiled, n), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        graphs.append(compilations() - before)
    assert 0 < graphs[0] <= 3 and graphs[1] == 0, graphs


def test_code_does_not_depend_on_the_sizes_that_a_process_meets_first(monkeypatch):
    """What the compiler is told of a block, by processes that begin with other batches and lengths."""
    told = []

    def recorded(graph, inputs):
        values = [node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder")]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        told.append([(str(one.dtype), *(int(optimization_hint(n)) for n in one.shape)) for one in tensors])
        return graph

    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda name: recorded)
    family, vlm = load_family("zimage", str(tiny_t2i.shallow_folder())), load_vlm(tiny_vlm.shared_folder())
    assert family.compile_blocks("recorded") + compile_vlm(vlm, "recorded") > 2

    @torch.no_grad()
    def process(n: int, words: int, *later: tuple[int, int]) -> list:
        torch._dynamo.reset()
        told.clear()
        for count, length in [(n, words), *later]:
            family.velocity(
                torch.zeros(count, *family.latent_shape(64, 64)), torch.full((count,), 0.5),
                family.encode_prompts(["A red circle. " * length] * count),
            )  # fmt: skip
            images = [Image.new("RGB", (64, 64))] * count
            label_log_probs(vlm, images, [LABELS[0] * length] * count, QUERY, batch_size=count)
        return list(told)

    random = torch.get_rng_state()
    assert process(2, 1, (5, 9)) == process(5, 9, (2, 1))
    assert torch.equal(torch.get_rng_state(), random)
    monkeypatch.setattr(CompiledForward, "_prepare", lambda *_: None)
    assert process(2, 1) != process(5, 9)


def test_a_vlm_gives_the_same_rewards_and_texts():
    eager, compiled = (load_vlm(tiny_vlm.shared_folder()) for _ in range(2))
    assert compile_vlm(compiled, "aot_eager") > 0
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (3, 64, 64, 3), generator=generator, dtype=torch.uint8).numpy()
    images, before = [Image.fromarray(one) for one in pixels], compilations()
    for n in (2, 3):
        wanted, found = (label_log_probs(vlm, images[:n], LABELS[:n], QUERY, batch_size=n) for vlm in (eager, compiled))
        for pair in zip(wanted, found, strict=True):
            torch.testing.assert_close(pair[1].log_probs, pair[0].log_probs, rtol=1e-5, atol=1e-5)
    assert compilations() == before + 1


def test_images_of_other_sizes_are_not_compiled_again():
    """What is compiled for images of one size serves those of all others (training.sizes)."""
    family = adapted("zimage", "float32", checkpointing=True, folder=tiny_t2i.shallow_folder())
    assert family.compile_blocks("eager") > 0
    before = compilations()
    pass_of(family, 2, (32, 48))
    first = compilations()
    for size in ((64, 64), (48, 32), (16, 64)):
        pass_of(family, 2, size)
    assert compilations() == first > before
