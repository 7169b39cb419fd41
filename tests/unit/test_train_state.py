"""Training state and adapter files: damaged, foreign and half-written ones are told apart without training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_t2i
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptecho.config.training import TrainingConfig
from promptecho.config.training_parts import LoraSection, TimestepsSection
from promptecho.errors import DataError, ModelError, StateError
from promptecho.files import read_json, write_json
from promptecho.t2i.lora import add_lora, load_adapter, merged, save_adapter, trained_parameters
from promptecho.t2i.registry import load_family
from promptecho.train.checkpoint import find_start, save_rolling
from promptecho.train.data import Rollout, TrainingPrompt, batches_of, normal, prompts_of
from promptecho.train.ranks import share_of_rank
from promptecho.train.state import FILES, TrainingState, load_state, save_state
from promptecho.train.update import draw_timesteps_and_noise

DIGESTS = {"training configuration": "abc", "captions file": "def"}


def state(value: float = 1.0, size: int = 6) -> TrainingState:
    tensors = {name: {"b.w": torch.full((size,), value), "a": torch.eye(2) * k} for k, name in enumerate(FILES)}
    return TrainingState(3, 12, tensors, dict(DIGESTS), {"world_size": 1, "torch_version": "2"})


def test_a_state_comes_back_as_it_was(tmp_path):
    save_state(state(), tmp_path / "s")
    found = load_state(tmp_path / "s", DIGESTS)
    assert (found.iteration, found.optimizer_steps, found.facts) == (3, 12, state().facts)
    for name in FILES:
        assert found.tensors[name].keys() == state().tensors[name].keys()
        assert all(torch.equal(value, state().tensors[name][key]) for key, value in found.tensors[name].items())
    save_state(found, tmp_path / "again")
    for path in (tmp_path / "s").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["state.json", *(f"{name}.safetensors" for name in FILES)]), st.floats(0, 0.9999),
       st.integers(0, 7))  # fmt: skip
def test_any_flipped_bit_is_noticed_and_its_file_named(tmp_path, name, where, bit):
    save_state(state(), tmp_path / "s")
    path = tmp_path / "s" / name
    content = bytearray(path.read_bytes())
    position = int(where * len(content))
    content[position] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        found = load_state(tmp_path / "s", DIGESTS)
    except StateError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:  # between JSON's tokens a blank may become another
        assert name == "state.json" and found == load_state(tmp_path / "s", DIGESTS)
        save_state(state(), tmp_path / "whole")
        assert read_json(path) == read_json(tmp_path / "whole" / "state.json")


@pytest.mark.parametrize("name", [f"{name}.safetensors" for name in FILES])
def test_missing_files_are_named(tmp_path, name):
    save_state(state(), tmp_path / "s")
    (tmp_path / "s" / name).unlink()
    with pytest.raises(StateError, match=f"{name}: damaged or missing"):
        load_state(tmp_path / "s", DIGESTS)
    with pytest.raises(StateError, match="no state.json; not a training state"):
        load_state(tmp_path / "other", DIGESTS)


@pytest.mark.parametrize("key", list(DIGESTS))
def test_a_foreign_state_is_refused_by_what_differs(tmp_path, key):
    save_state(state(), tmp_path / "s")
    with pytest.raises(StateError, match=f"belongs to another {key} .*this run has other") as caught:
        load_state(tmp_path / "s", {**DIGESTS, key: "other"})
    assert "\n" not in str(caught.value)


def test_a_state_of_other_layers_is_refused_by_name(tmp_path):
    from promptecho.train.start import check_layers

    check_layers(state(), ["a", "b.w"], tmp_path)
    with pytest.raises(StateError, match=r"such as c\.w, which it does not have; it was written by another version"):
        check_layers(state(), ["a", "b.w", "c.w"], tmp_path)
    with pytest.raises(StateError, match=r"such as b\.w, which this run does not train"):
        check_layers(state(), ["a"], tmp_path)


def test_a_state_of_another_schema_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("promptecho.train.state.SCHEMA_VERSION", 99)
    save_state(state(), tmp_path / "s")
    monkeypatch.undo()
    with pytest.raises(StateError, match="schema 99, this version reads 2"):
        load_state(tmp_path / "s", DIGESTS)


def test_an_adapter_on_a_full_disk_is_one_line(tmp_path):
    code = (  # a limit on file size stands for a full disk
        "import resource, sys, torch\nfrom pathlib import Path\nfrom peft import LoraConfig\n"
        "from promptecho.config.families import family_named\n"
        "from promptecho.t2i.adapter_files import write_adapter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "state = {'base_model.model.to_q.lora_A.weight': torch.ones(8, 512)}\n"
        "write_adapter(Path(sys.argv[1]), state, LoraConfig(target_modules=['to_q']), family_named('zimage'))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True)
    assert f"DataError: {tmp_path / 'a'}: cannot write" in done.stderr and os.listdir(tmp_path) == []


def test_a_full_disk_is_one_line_and_leaves_the_old_state(tmp_path):
    save_state(state(), tmp_path / "s")
    code = (  # a limit on file size stands for a full disk
        "import resource, sys\nsys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom promptecho.train.state import save_state\nfrom test_train_state import state\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\nsave_state(state(2.0, 5000), Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "s", os.path.dirname(__file__)], capture_output=True, text=True
    )
    assert f"DataError: {tmp_path / 's'}: cannot write" in done.stderr
    assert os.listdir(tmp_path) == ["s"] and load_state(tmp_path / "s", DIGESTS).iteration == 3


def test_kill_while_saving_leaves_the_old_or_the_new_state(tmp_path):
    code = (
        "import sys\nsys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom promptecho.train.checkpoint import save_rolling\n"
        "from test_train_state import state\n"
        "k = 0\nwhile True:\n    k += 1\n    s = state(float(k))\n    s.iteration = k\n"
        "    save_rolling(Path(sys.argv[1]), s, [{'iteration': k}], keep=2)\n    print(k, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path, os.path.dirname(__file__)],
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    time.sleep(torch.rand(()).item() * 0.2)
    process.send_signal(signal.SIGKILL)
    done = [1, *map(int, process.stdout.read().split())]
    process.wait()
    process.stdout.close()
    found, rows = find_start(tmp_path, None, DIGESTS, to=10**9)
    assert found.iteration in (done[-1], done[-1] + 1)
    assert found.tensors["ema"]["b.w"][0] == found.iteration and rows == [{"iteration": found.iteration}]


@pytest.fixture
def rolling(tmp_path):
    """A work folder with the states of iterations 3, 4 and 5."""
    for iteration in (3, 4, 5):
        one = state(float(iteration))
        one.iteration = iteration
        save_rolling(tmp_path / "work", one, [{"iteration": iteration}], keep=3)
    return tmp_path / "work"


def flip(path: Path, where: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    path.write_bytes(content)


def test_only_the_newest_states_are_kept_and_cut_short_writes_go(rolling):
    (rolling / "states" / ".000006.1a2b.tmp").mkdir()
    one = state()
    one.iteration = 6
    save_rolling(rolling, one, [], keep=2)
    assert sorted(path.name for path in (rolling / "states").iterdir()) == ["000005", "000006"]


def test_states_of_another_configuration_make_no_room_for_themselves(rolling):
    for iteration in (1, 2):
        one = state()
        one.iteration = iteration
        save_rolling(rolling, one, [], keep=1)
        names = sorted(path.name for path in (rolling / "states").iterdir())
        assert names == [f"{iteration:06d}", "000003", "000004", "000005"]


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_damaged_states_are_named_and_the_newest_good_one_is_used(rolling, capsys, damaged):
    for iteration in range(5, 5 - damaged, -1):
        flip(rolling / "states" / f"{iteration:06d}" / "exp_avg.safetensors")
    found, rows = find_start(rolling, None, DIGESTS, to=9)
    assert found.iteration == 5 - damaged and rows == [{"iteration": 5 - damaged}]
    stderr = capsys.readouterr().err
    assert stderr.count("exp_avg.safetensors: damaged or missing; trying the state before it") == damaged


def checkpoints(folder: Path, *iterations: int) -> list[Path]:
    for iteration in iterations:
        one = state(float(iteration))
        one.iteration = iteration
        save_state(one, folder / str(iteration) / "state")
    return [folder / str(iteration) for iteration in iterations]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(tmp_path, capsys):
    two, four, six = checkpoints(tmp_path / "run", 2, 4, 6)
    assert find_start(tmp_path / "none", six, DIGESTS, to=8)[0].iteration == 6
    flip(six / "state" / "weights.safetensors")
    assert find_start(tmp_path / "none", six, DIGESTS, to=8)[0].iteration == 4
    assert f"{six}/state/weights.safetensors: damaged or missing; going on from {four}" in capsys.readouterr().err
    for folder in (two, four):
        (folder / "state" / "state.json").unlink()
    with pytest.raises(StateError, match="6/state/weights.safetensors: damaged or missing"):
        find_start(tmp_path / "none", six, DIGESTS, to=8)


def test_without_anything_a_segment_starts_from_the_beginning(tmp_path):
    assert find_start(tmp_path / "none", None, DIGESTS, to=8) == (None, [])


# Adapters.


def adapted(seed: int = 1, **options):
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    lora = LoraSection(**{"rank": 4, "alpha": 8, **options})
    return family, add_lora(family.transformer, lora, seed, family.lora_targets)


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    _, a = adapted()
    torch.rand(17)
    _, b = adapted()
    _, other = adapted(seed=2)
    a, b, other = map(trained_parameters, (a, b, other))
    assert list(a) == sorted(a) and all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], other[name]) for name in a)
    assert all(p.dtype == torch.float32 for p in a.values())
    assert all((p == 0).all() for name, p in a.items() if "lora_B" in name)
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    before = torch.get_rng_state()
    add_lora(family.transformer, LoraSection(rank=4, alpha=8), 1, family.lora_targets)
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_float32_on_a_base_model_in_bfloat16_too():
    """PEFT draws them in the base model's type, so they agree to that type's precision only."""
    _, a = adapted()
    family = load_family("zimage", str(tiny_t2i.shared_folder()), dtype="bfloat16")
    b = add_lora(family.transformer, LoraSection(rank=4, alpha=8), 1, family.lora_targets)
    a, b = trained_parameters(a), trained_parameters(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-5)


def test_only_the_adapter_is_trained_on_every_target():
    _, model = adapted(target_modules=["to_q", "to_out.0"])
    names = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trained_parameters(model)}
    assert len(names) == 2 * 4 and {name.rsplit("attention.")[-1] for name in names} == {"to_q", "to_out.0"}
    with pytest.raises(ModelError, match="training.lora.target_modules: no linear layer .* ends in 'to_z'"):
        adapted(target_modules=["to_q", "to_z"])


def random_weights(model, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(p.shape, generator=generator) for name, p in trained_parameters(model).items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(adapter folder, its weights by name) at random values."""
    family, model = adapted()
    weights, folder = random_weights(model), tmp_path_factory.mktemp("adapter") / "adapter"
    before = {name: p.detach().clone() for name, p in trained_parameters(model).items()}
    save_adapter(model, weights, folder, family.descriptor)
    assert all(torch.equal(p, before[name]) for name, p in trained_parameters(model).items())
    return folder, weights


def test_a_merged_adapter_gives_the_same_velocities_and_leaves_the_base_weights_alone():
    family, model = adapted()
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.normal_(std=0.2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    family.transformer = model
    x, t = torch.randn(2, *family.latent_shape(32, 32)), torch.tensor([0.3, 0.9])
    cond = family.encode_prompts(["A red circle.", "Two stars."])
    with torch.no_grad():
        expected = family.velocity(x, t, cond)
        with merged(model):
            found = family.velocity(x, t, cond)
            assert not all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        with model.disable_adapter():
            base = family.velocity(x, t, cond)
        again = family.velocity(x, t, cond)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (expected - base).abs().max() > 1e-2 and torch.equal(again, expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_saving_is_deterministic_and_names_no_path(saved, tmp_path):
    family, model = adapted()
    save_adapter(model, saved[1], tmp_path / "again", family.descriptor)
    for path in saved[0].iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    assert str(tiny_t2i.shared_folder()) not in (saved[0] / "adapter_config.json").read_text()


def sample(family, transformer=None) -> torch.Tensor:
    family.transformer = family.transformer if transformer is None else transformer
    noise = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    cond = family.encode_prompts(["A red circle.", "a photo of a star"])
    return family.sample(noise, cond, num_inference_steps=3, guidance_scale=1.0)


def test_plain_peft_and_diffusers_load_the_adapter_at_full_strength(saved):
    from diffusers import ZImagePipeline, ZImageTransformer2DModel
    from peft import PeftModel

    family, model = adapted()
    base = sample(load_family("zimage", str(tiny_t2i.shared_folder())))
    assert torch.equal(sample(family, model), base)  # a fresh adapter changes nothing
    with torch.no_grad():
        for name, p in trained_parameters(model).items():
            p.copy_(saved[1][name])
    trained = sample(family, model)
    assert (trained - base).abs().max() > 0.1

    plain = ZImageTransformer2DModel.from_pretrained(tiny_t2i.shared_folder() / "transformer")
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    torch.testing.assert_close(sample(family, PeftModel.from_pretrained(plain, str(saved[0]))), trained)

    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    torch.testing.assert_close(sample(family, load_adapter(family.transformer, saved[0])), trained)

    pipeline = ZImagePipeline.from_pretrained(tiny_t2i.shared_folder())
    pipeline.load_lora_weights(saved[0], weight_name="pytorch_lora_weights.safetensors")
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    torch.testing.assert_close(sample(family, pipeline.transformer), trained, rtol=1e-4, atol=1e-5)
    images = pipeline(
        prompt=["A red circle.", "a photo of a star"], height=32, width=32, num_inference_steps=3, guidance_scale=1.0,
        latents=torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0)), output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(images, trained, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("change", [{"layers": 3}, {"layers": 1}, {"dim": 64}])
def test_an_adapter_of_another_model_is_one_line(saved, tmp_path, change):
    family = load_family("zimage", str(tiny_t2i.build(tmp_path / "other", **change)))
    with pytest.raises(DataError, match="the adapter does not fit this text-to-image model") as caught:
        load_adapter(family.transformer, saved[0])
    assert str(saved[0]) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name, content", [
    ("adapter_model.safetensors", None), ("adapter_config.json", None), ("adapter_model.safetensors", b"x" * 40),
    ("adapter_config.json", b"{"), ("adapter_config.json", b"{}"), ("adapter_config.json", b"[]"),
])  # fmt: skip
def test_a_damaged_adapter_is_one_line(saved, tmp_path, name, content):
    for path in saved[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    family = load_family("zimage", str(tiny_t2i.shared_folder()))
    with pytest.raises(DataError) as caught:
        load_adapter(family.transformer, tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


# Data order.


@given(st.integers(1, 30), st.integers(0, 2**31), st.data())
def test_prompts_come_round_without_repeating_within_an_epoch(n, seed, data):
    k = data.draw(st.integers(1, n))
    prompts = list(range(n))
    epoch = [p for i in range(n // k) for p in prompts_of(prompts, seed, i, k)]
    assert len(epoch) == len(set(epoch)) == n // k * k
    assert prompts_of(prompts, seed, 7, k) == prompts_of(prompts, seed, 7, k)


def test_too_few_prompts_are_named():
    with pytest.raises(DataError, match="3 training captions are fewer than training.prompts_per_iteration = 4"):
        prompts_of([1, 2, 3], 0, 0, 4)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99), st.integers(0, 9))
def test_each_pass_uses_every_image_once(batches, size, seed, pass_index):
    found = batches_of(batches * size, TrainingConfig(batch_size=size, seed=seed), 0, pass_index)
    assert [len(batch) for batch in found] == [size] * batches
    assert sorted(sum(found, [])) == list(range(batches * size))


@given(st.integers(1, 8), st.integers(1, 4), st.integers(2, 8), st.integers(0, 99), st.integers(0, 9))
def test_with_shared_noise_an_optimizer_step_takes_whole_prompts(batches, prompts, k, seed, pass_index):
    training = TrainingConfig(
        batch_size=prompts * k, images_per_prompt=k, seed=seed, timesteps=TimestepsSection(shared_by="prompt")
    )
    found = batches_of(batches * prompts * k, training, 0, pass_index)
    assert sorted(sum(found, [])) == list(range(batches * prompts * k))
    for batch in found:
        groups = {image // k for image in batch}
        assert len(groups) == prompts and sorted(batch) == [g * k + i for g in sorted(groups) for i in range(k)]


@given(st.sampled_from(["none", "prompt"]), st.sampled_from(["iteration", "pass"]), st.sets(st.integers(0, 11)))
def test_images_of_a_prompt_share_their_loss_noise_where_asked_to(shared_by, redraw, others):
    k, images = 4, sorted(others | {0, 1, 4})
    training = TrainingConfig(
        images_per_prompt=k, passes=2, timesteps=TimestepsSection(shared_by=shared_by, redraw=redraw, per_sample=3)
    )
    prompts = [TrainingPrompt(f"p{i}", "") for i in range(3)]
    rollout = Rollout(prompts, [], [], torch.zeros(0, 2, 5), torch.zeros(1, 3, k), torch.zeros(12))
    t, noise = draw_timesteps_and_noise(rollout, images, training, 0, torch.linspace(1, 0.1, 4))
    draws = 3 if redraw == "iteration" else 6
    assert t.shape == (draws, len(images)) and noise.shape == (draws, len(images), 2, 5)
    for a, first in enumerate(images):
        for b, second in enumerate(images):
            same = first == second or (shared_by == "prompt" and first // k == second // k)
            assert torch.equal(noise[:, a], noise[:, b]) == torch.equal(t[:, a], t[:, b]) == same


@given(st.integers(1, 100), st.integers(1, 9))
def test_ranks_share_all_images(total, world_size):
    shares = [share_of_rank(total, rank, world_size) for rank in range(world_size)]
    assert sum(shares, []) == list(range(total)) and max(map(len, shares)) - min(map(len, shares)) <= 1


def test_noise_is_a_function_of_its_key():
    assert torch.equal(normal((2, 3), 1, "a", 2), normal((2, 3), 1, "a", 2))
    assert not torch.equal(normal((2, 3), 1, "a", 2), normal((2, 3), 1, "a", 3))


def test_a_state_json_that_is_not_ours_is_damaged(tmp_path):
    for content in ([], {}, {"iteration": 1}):
        write_json(tmp_path / "state.json", content)
        with pytest.raises(StateError, match="state.json: damaged"):
            load_state(tmp_path, DIGESTS)
