"""Every switch of a training runs, counts its steps and does what it says; every error is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_vlm
import torch
from safetensors.torch import load_file
from tiny_experiment import Experiment, metrics_without_times

from promptecho.errors import ConfigError, DataError, PromptEchoError, RewardError, StateError
from promptecho.train import update as update_module
from promptecho.train.loop import train_segment
from promptecho.train.losses import loss_of
from promptecho.train.update import weighted_sums

ONE = {"iterations": 1, "checkpoints": [1]}


pytestmark = pytest.mark.usefixtures("train_in_process")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("switches"))


def train(experiment: Experiment, name: str, **training) -> tuple[Path, dict]:
    """One iteration under `training`; its checkpoint folder and its metrics."""
    job = experiment.segment(name, experiment.config(name, **{**ONE, **training}), 1)
    assert train_segment(job)
    return job.out, metrics_without_times(job.out)[-1]


@pytest.fixture(scope="module")
def usual(experiment) -> tuple[Path, dict]:
    return train(experiment, "usual")


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_zero_stages_agree(experiment, usual):
    folder, row = train(experiment, "zero2", zero_stage=2)
    for key, value in adapter(usual[0]).items():
        torch.testing.assert_close(adapter(folder)[key], value, rtol=1e-5, atol=1e-6)
    assert row["optimizer_steps"] == usual[1]["optimizer_steps"] == 4
    assert row["grad_norm"] == pytest.approx(usual[1]["grad_norm"], rel=1e-4)


class Unread(torch.Tensor):
    """A value that may not be read by itself: on a GPU that waits until all that is queued is computed."""

    def __float__(self) -> float:
        raise AssertionError("read in the middle of an iteration")


def test_metrics_are_summed_in_one_go_to_the_numbers_of_single_reads():
    generator = torch.Generator().manual_seed(0)
    rows = [
        (weight, {"a": torch.randn((), generator=generator), "b": torch.randn((), generator=generator).double() / 3})
        for weight in (1.0, 1 / 3, 0.0, 1.7)
    ]
    single = {"a": 0.0, "b": 0.0}
    for weight, values in rows:
        for key, value in values.items():
            single[key] += weight * float(value)
    assert weighted_sums(rows) == single and list(weighted_sums(rows)) == ["a", "b"] and weighted_sums([]) == {}


def test_micro_batches_change_nothing_but_rounding(experiment, usual, monkeypatch):
    def unread(*given):
        loss, metrics = loss_of(*given)
        return loss, {key: value.as_subclass(Unread) for key, value in metrics.items()}

    monkeypatch.setattr(update_module, "loss_of", unread)
    folder, row = train(experiment, "micro", micro_batch_size=4)
    for key, value in adapter(usual[0]).items():
        torch.testing.assert_close(adapter(folder)[key], value, rtol=1e-3, atol=1e-5)
    assert row["reward_mean"] == usual[1]["reward_mean"] and row["optimizer_steps"] == 4


@pytest.mark.parametrize(
    "name, training, steps",
    [
        ("passes", {"passes": 3, "batch_size": 8, "micro_batch_size": 8}, 3),
        ("per_sample", {"per_timestep": False}, 4),
        ("grid", {"timesteps": {"per_sample": 3, "distribution": "sampler_grid"}}, 4),
        ("uniform", {"timesteps": {"distribution": "uniform"}, "weighting": "uniform"}, 4),
        ("guided", {"train_guidance": True}, 4),
        ("redraw", {"timesteps": {"redraw": "pass"}}, 4),
        ("redraw_together", {"timesteps": {"redraw": "pass"}, "per_timestep": False}, 4),
        ("shared", {"timesteps": {"shared_by": "prompt"}}, 4),
        ("warmup", {"warmup_steps": 8}, 4),
        ("ema_sampling", {"sampling": {"policy": "ema"}}, 4),
        ("no_kl", {"kl_base": {"weight": 0}, "kl_ema": {"weight": 0}, "ema": {"decay": None}}, 4),
        (
            "published",  # what AWM's published settings switch on
            {
                "lora": {"init": "gaussian", "layers": "attention"},
                "timesteps": {"distribution": "stratified_grid", "grid_first": 1},
                "advantage": {"scale": "reward_std", "factor": 0.2},
                "kl_ema": {"decay": 0.3, "ramp": 1e-3},
                "ema": {"decay": 0.99, "warmup": True},
                "clip_range": 1.0,
                "adam_eps": 1e-10,
            },
            4,
        ),
        ("elbo", {"kl_base": {"weight": 0.1, "weighting": "elbo"}, "advantage": {"scale": "group_std"}}, 4),
    ],
)
def test_switches_run_count_their_steps_and_matter(experiment, usual, name, training, steps):
    folder, row = train(experiment, name, **training)
    assert row["optimizer_steps"] == steps
    assert all(value == value and abs(value) != float("inf") for value in row.values())
    assert ("kl_base" in row, "kl_ema" in row) == ((False, False) if name == "no_kl" else (True, True))
    found = adapter(folder)
    changed = any(not torch.equal(found.get(key, value[:0]), value) for key, value in adapter(usual[0]).items())
    assert changed or name == "ema_sampling"  # in the first iteration the average is the policy itself


def test_with_one_pass_redrawing_is_one_draw(experiment):
    """Drawing for each pass differs from drawing once only where there are several passes."""
    one = {"passes": 1, "batch_size": 8, "micro_batch_size": 8}
    once, _ = train(experiment, "once", **one)
    each, _ = train(experiment, "each", timesteps={"redraw": "pass"}, **one)
    for key, value in adapter(once).items():
        assert torch.equal(adapter(each)[key], value)


def test_the_learning_rate_rises_and_falls_and_resumes_where_it_was(experiment):
    """Four optimizer steps an iteration, eight of warm-up, four in which it falls: a row tells its last step's rate."""
    training = {
        "iterations": 3, "checkpoints": [1, 3], "warmup_steps": 8, "learning_rate": 8e-3, "lr_schedule": "cosine",
        "lr_floor": 0.5,
    }  # fmt: skip
    config = experiment.config("rising", **training)
    first = experiment.segment("rising", config, 1)
    second = experiment.segment("rising", config, 3, resume=first.out)
    assert train_segment(first) and train_segment(second)
    rows = [*metrics_without_times(first.out), *metrics_without_times(second.out)]
    assert [row["learning_rate"] for row in rows] == pytest.approx([4e-3, 8e-3, 4e-3 + 2e-3 * (1 - 0.5**0.5)])
    straight = experiment.segment("rising_straight", experiment.config("rising", **training), 3)
    assert train_segment(straight)
    for key, value in adapter(straight.out).items():
        assert torch.equal(adapter(second.out)[key], value)


def test_the_adapter_is_the_average_where_one_is_asked_for(experiment, usual):
    average, live = (load_file(usual[0] / "state" / f"{name}.safetensors") for name in ("ema", "weights"))
    assert any(not torch.equal(average[key], live[key]) for key in live)
    for key, value in average.items():
        assert torch.equal(adapter(usual[0])[key.replace(".default", "")], value)
    folder, _ = train(experiment, "no_ema", ema={"decay": None})
    for key, value in live.items():
        assert torch.equal(adapter(folder)[key.replace(".default", "")], value)


def test_the_weights_that_sample_give_the_old_log_probabilities(experiment):
    """One optimizer step an iteration: at its start the trained weights are the sampler's, or the average's others."""
    once = {"iterations": 2, "checkpoints": [2], "passes": 1, "batch_size": 8, "micro_batch_size": 8}
    ratios = {}
    for policy in ("on_policy", "ema"):
        config = experiment.config(policy, **once, sampling={"policy": policy}, kl_ema={"decay": 0.9})
        job = experiment.segment(policy, config, 2)
        assert train_segment(job)
        first, second = metrics_without_times(job.out)
        assert first["ratio_mean"] == pytest.approx(1, abs=1e-6) and first["kl_ema"] == pytest.approx(0, abs=1e-9)
        ratios[policy] = second["ratio_mean"]
        assert second["kl_ema"] > 0
    assert ratios["on_policy"] == pytest.approx(1, abs=1e-6) and abs(ratios["ema"] - 1) > 1e-5


def test_the_sampler_takes_the_schedulers_own_times(experiment, usual):
    _, row = train(experiment, "schedule", sampling={"schedule": "scheduler"})
    assert row["reward_mean"] != usual[1]["reward_mean"]


def test_two_rewards_of_unequal_size_are_told(experiment, capsys):
    """The same reward twice, once a thousand times larger: told at the start, and visible in every row."""
    rewards = [{"name": "echo", "weight": 1000.0}, {"name": "echo", "weight": 1.0, "query": "What is it?"}]
    _, row = train(experiment, "two", rewards=rewards)
    assert row["advantage_size_0_echo"] > 100 * row["advantage_size_1_echo"] > 0
    told = capsys.readouterr().err
    assert "2 rewards (echo) with training.advantage.scale: none keep their own sizes" in told
    level = [{**rewards[0], "weight": 1.0}, rewards[1]]
    _, row = train(experiment, "level", rewards=level, advantage={"scale": "global_std"})
    assert 0.2 < row["advantage_size_0_echo"] / row["advantage_size_1_echo"] < 5
    assert "keep their own sizes" not in capsys.readouterr().err


def test_gradients_below_adams_epsilon_are_told_at_once_and_the_update_is_measured(experiment, usual, capsys):
    """With an epsilon that no gradient reaches, steps are lr g / eps, far smaller than Adam's."""
    moved = usual[1]["update_norm"]
    assert 0 <= usual[1]["grad_below_eps"] < 0.2 and moved > 0
    capsys.readouterr()
    folder, row = train(experiment, "eps", adam_eps=10.0)
    assert row["grad_below_eps"] == 1 and 0 < row["update_norm"] < 0.01 * moved
    told = capsys.readouterr().err
    assert "iteration 1: 100% of the gradient's elements lie below Adam's epsilon" in told
    assert "lower training.adam_eps" in told
    # What the state holds lies at that distance from what a run begins with: B from 0, A from where it was.
    b = [v for name, v in load_file(usual[0] / "state" / "weights.safetensors").items() if "lora_B" in name]
    assert sum(float(v.double().square().sum()) for v in b) ** 0.5 < moved


def test_errors_are_one_line_and_leave_nothing(experiment, usual, tmp_path):
    config = experiment.config("errors", **ONE)
    cases = [
        ({"to": 3}, DataError, "--to 3: run r has no such checkpoint .it has 1."),
        ({"run": "q"}, ConfigError, "runs.q: no such run .known: r;"),
        ({"captions": tmp_path / "none.h5"}, DataError, "none.h5: no such caption file"),
        ({"resume": tmp_path / "none"}, StateError, "none/state: no state.json"),
        ({"resume": usual[0]}, StateError, "is at iteration 1, not before --to 1"),
    ]
    for changes, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            train_segment(experiment.segment("errors", config, **{"to": 1, **changes}))
        assert "\n" not in str(caught.value)
    other = experiment.config("foreign", iterations=2, checkpoints=[1, 2], learning_rate=1e-3)
    with pytest.raises(StateError, match="belongs to another training configuration"):
        train_segment(experiment.segment("foreign", other, 2, resume=usual[0]))
    assert not (experiment.folder / "errors" / "1").exists()


def test_a_reward_that_is_not_finite_names_prompt_and_image(tmp_path):
    from transformers import Qwen3VLForConditionalGeneration

    folder = tiny_vlm.build(tmp_path / "vlm")
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        model.model.language_model.norm.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    experiment = Experiment(tmp_path / "e", vlm=folder)
    with pytest.raises(RewardError, match=r"prompt 00000\d, image image 0 of iteration 1: the reward is not finite"):
        train(experiment, "nan")
    assert not (experiment.folder / "nan" / "1").exists()


def test_a_diverging_run_is_told_with_its_iteration(experiment):
    with pytest.raises(PromptEchoError, match=r"iteration \d, optimizer step \d: the (loss|gradient) is not finite"):
        train(experiment, "diverge", learning_rate=1e30, max_grad_norm=1e30)
