"""The expected score: numbers of a real tiny model in one pass, and what training and plans make of them."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_experiment import Experiment
from tiny_vlm import build, image
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import parse_experiment, slice_digest
from promptecho.errors import ConfigError, DataError, ModelError, RewardError
from promptecho.files import read_jsonl
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.expected_score.options import ExpectedScoreSection
from promptecho.rewards.expected_score.reward import expected_score
from promptecho.train.data import TrainingPrompt
from promptecho.train.loop import train_segment
from promptecho.train.rollout import measure_metrics
from promptecho.train.scoring import RolloutScores, WeightedReward, score_images
from promptecho.vlm import label_log_probs, load_vlm
from promptecho.vlm.first_number import first_number_log_probs, number_tokens

SHORT = "How well is it shown? {prompt}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("vlm") / "vlm", context=2048)


@pytest.fixture(scope="module")
def vlm(folder):
    return load_vlm(folder)


def built(vlm, *, batch_size: int = 16, **options):
    context = RewardContext(vlm=vlm, options=ExpectedScoreSection(**options), batch_size=batch_size)
    return make_reward("expected_score", context)


@pytest.mark.parametrize("opening", ["", '{"score": '])
@pytest.mark.parametrize("on_host", [True, False])
def test_numbers_are_as_likely_as_when_each_is_scored_by_itself(vlm, opening, on_host, monkeypatch):
    if not on_host:  # the pass of models of other families
        monkeypatch.setattr("promptecho.vlm.log_probs.can_stay_on_host", lambda model: False)
    images, queries = [image(i, (32 + 16 * (i % 2), 32)) for i in range(5)], [f"Score {'it ' * i}" for i in range(5)]
    numbers = partial(first_number_log_probs, vlm, images, queries, opening=opening, names=list("abcde"))
    found = numbers(batch_size=5)
    assert torch.allclose(found, numbers(batch_size=2), atol=1e-5)
    tokens = number_tokens(vlm, "Score", opening)
    assert tokens.ten_is_two  # as Qwen's tokenizer has it
    for row, picture, query in zip(found, images, queries, strict=True):
        alone = [
            label_log_probs(vlm, [picture], [f"{opening}{n}"], query, batch_size=1)[0].log_probs.double()
            for n in range(11)
        ]
        begins = [one[tokens.opening].item() for one in alone]
        ten = begins[10] + alone[10][tokens.opening + 1].item()
        assert row.tolist() == pytest.approx(
            [*begins[:1], math.log(math.exp(begins[1]) - math.exp(ten)), *begins[2:10], ten], abs=1e-4
        )
        assert 0 < row.exp().sum() < 1


@given(st.lists(st.floats(-60, 0), min_size=2, max_size=11), st.floats(-20, 0))
def test_the_mean_does_not_depend_on_the_mass(log_probs, shift):
    values = torch.tensor(log_probs, dtype=torch.float64)
    found, less = expected_score(values), expected_score(values + shift)
    assert 0 <= found.reward <= 1 and less.reward == pytest.approx(found.reward, abs=1e-9)
    assert less.mass == pytest.approx(found.mass * math.exp(shift)) and sum(found.shares) == pytest.approx(1)


def test_the_range_is_brought_to_0_and_1():
    odds = torch.tensor([0.1, 0.1, 0.3, 0.0, 0.0], dtype=torch.float64).log()  # scores 1 to 5; half is on other tokens
    found = expected_score(odds)
    assert found.reward == pytest.approx((0.1 * 1 + 0.1 * 2 + 0.3 * 3) / 0.5 / 4 - 1 / 4)
    assert found.mass == pytest.approx(0.5)


def test_what_is_not_finite_is_named(folder):
    broken = load_vlm(folder)
    torch.nn.init.constant_(broken.model.model.language_model.norm.weight, math.nan)
    picture = image(0)
    picture.info["path"] = "0.png"
    with pytest.raises(RewardError, match=r"prompt p7, image 0.png: the reward is not finite \(nan, ") as caught:
        built(broken)([picture], ["A star."], ["p7"])
    assert caught.value.index == 0


def test_settings_are_checked(vlm, tmp_path):
    (tmp_path / "q.txt").write_text(SHORT)
    asked = {"template": str(tmp_path / "q.txt")}

    def config(**options):
        return parse_experiment(
            {
                "experiment": "e", "models": {"t2i": {"path": "shapes"}, "vlm": {"path": "shapes"}},
                "captions": {"prompts": "p.txt"}, "runs": {"a": {}},
                "rewards": [{"name": "expected_score", "expected_score": options}],
            }
        )  # fmt: skip

    for options, said in (
        ({"lowest": 5, "highest": 5}, "lowest 5 must be below highest 5"), ({"highest": 11}, "highest: "),
        ({"lowest": 0.5}, "lowest: "), ({"digits": 3}, "digits"),
        ({"highest": 5}, "lowest 0 and highest 5 need a template that asks for such scores"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            config(**options)
    with pytest.raises(ConfigError, match=r"rewards.0.query: expected_score has none"):
        parse_experiment(
            {**json.loads(config().model_dump_json()), "rewards": [{"name": "expected_score", "query": "Q"}]}
        )
    digests = [
        slice_digest(config(**options), "train", run="a")
        for options in (asked, asked | {"lowest": 0}, asked | {"lowest": 1})
    ]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(DataError, match=r"prompt p7: contains the control token '<\|im_end\|>'"):
        built(vlm)([image(0)], ["A star<|im_end|>"], ["p7"])
    with pytest.raises(DataError, match=r"expected_score.opening: contains the control token '<\|im_end\|>'"):
        built(vlm, opening="<|im_end|>")
    with pytest.raises(
        DataError, match=r"^prompt p7: the answer's 2 tokens and .* shorten the prompt, or the template"
    ):
        built(vlm)([image(0)], ["A star. " * 1000], ["p7"])


def test_a_tokenizer_that_joins_digits_to_what_stands_before_is_named(tmp_path):
    joined = load_vlm(build(tmp_path / "vlm", replies=["=7"]))
    with pytest.raises(ModelError, match="does not write each digit as one token of its own behind the opening '='"):
        number_tokens(joined, "Score", "=")


def test_digits_that_share_a_token_are_refused(folder, monkeypatch):
    unknown = load_vlm(folder)
    ids = {unknown.tokenizer.convert_tokens_to_ids(str(digit)) for digit in (7, 8)}
    encode = type(unknown.tokenizer).__call__

    def joined(tokenizer, *args, **kwargs):
        found = encode(tokenizer, *args, **kwargs)
        found["input_ids"] = [3 if one in ids else one for one in found.input_ids]
        return found

    monkeypatch.setattr(type(unknown.tokenizer), "__call__", joined)
    with pytest.raises(ModelError, match="does not write each digit as one token of its own"):
        number_tokens(unknown, "Score")


def test_scores_with_their_mass_travel_as_json_and_join(vlm):
    entries = [
        WeightedReward("echo", 1.0, "", reward=make_reward("echo", RewardContext(vlm=vlm))),
        WeightedReward("expected_score", 1.0, "", reward=built(vlm), measures=("number_mass",)),
    ]
    images, names = [image(index) for index in range(5)], [f"image {index}" for index in range(5)]
    prompts = [TrainingPrompt(f"p{index}", f"{index} stars.") for index in range(5)]
    whole = score_images(entries, images, prompts, names, lambda n: None)
    cuts = (slice(0, 2), slice(2, 2), slice(2, 5))
    parts = [score_images(entries, images[cut], prompts[cut], names[cut], lambda n: None) for cut in cuts]
    sent = [RolloutScores.from_json(json.loads(json.dumps(part.to_json()))) for part in parts]
    joined = RolloutScores.joined([RolloutScores.none(entries), *sent])
    assert torch.allclose(joined.rewards, whole.rewards, atol=1e-5)
    assert joined.measures.shape == (1, 5) and torch.allclose(joined.measures, whole.measures, atol=1e-5)
    found = measure_metrics(entries, whole)
    assert found == {"number_mass_1_expected_score": pytest.approx(float(whole.measures.mean()))}
    assert measure_metrics(entries, RolloutScores.none(entries)) == {}


def test_training_with_echo_beside_it_logs_the_mass(tmp_path, folder, train_in_process):
    (tmp_path / "q.txt").write_text(SHORT)
    asked = {"template": str(tmp_path / "q.txt")}
    rewards = [{"name": "echo"}, {"name": "expected_score", "weight": 0.5, "expected_score": asked}]
    experiment = Experiment(tmp_path, vlm=folder)
    config = experiment.config(sections={"rewards": rewards}, iterations=1, checkpoints=[1], kl_base={"weight": 0.0})
    train_segment(experiment.segment("mass", config, 1))
    [row] = read_jsonl(next(tmp_path.rglob("metrics.jsonl")))
    assert 0 < row["number_mass_1_expected_score"] < 1 and 0 < row["reward_1_expected_score"] < 1
    assert not any(key.endswith("_echo") and "mass" in key for key in row)


def test_the_command_shows_shares_and_mass(folder, tmp_path):
    image(1).save(tmp_path / "a.png")
    (tmp_path / "q.txt").write_text(SHORT)
    command = [
        "reward",
        str(tmp_path / "a.png"),
        "--vlm",
        str(folder),
        "--name",
        "expected_score",
        "--label",
        "A star.",
    ]
    result = CliRunner().invoke(app, [*command, "--set", "highest=3", "--template", str(tmp_path / "q.txt"), "--json"])
    assert result.exit_code == 0, result.output
    [row] = json.loads(result.stdout)
    assert list(row["shares"]) == ["0", "1", "2", "3"] and 0 < row["number_mass"] < 1
    assert row["reward"] == pytest.approx(sum(int(n) * share for n, share in row["shares"].items()) / 3)
    result = CliRunner().invoke(app, [*command, "--set", "highest=3"])
    assert result.exception is not None and str(result.exception).startswith("--set: lowest 0 and highest 3 need")
    result = CliRunner().invoke(app, command)
    assert "share of each score" in result.stdout and result.exit_code == 0


@pytest.mark.parametrize("opening", ["", '{"score": ', '{"score":'])
def test_a_plan_has_tokens_of_numbers_for_a_model_that_is_not_here(opening):
    from promptecho.plan.stand_ins import counting_processor

    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    processor = counting_processor({}, {name: 90 + index for index, name in enumerate(names)})
    counting = SimpleNamespace(path="x", processor=processor, tokenizer=processor.tokenizer)
    assert len({*number_tokens(counting, "From 0 to 10?", opening).digits}) == 10


def test_a_plan_counts_one_pass(tmp_path):
    from promptecho.config.models import VlmSection
    from promptecho.config.rewards import RewardSection
    from promptecho.models.inventory import model_status
    from promptecho.models.required import RequiredModel
    from promptecho.plan.costs import VlmCosts

    (tmp_path / "q.txt").write_text(SHORT)
    found = model_status(RequiredModel("shapes", "transformers", None, ("--vlm",)), None)
    costs = VlmCosts(found, VlmSection(path="shapes", dtype="float32"), size=(64, 64), prompt_tokens=16)
    asked = ExpectedScoreSection(template=str(tmp_path / "q.txt"))
    entry = RewardSection.model_validate({"name": "expected_score", "expected_score": asked.model_dump()})
    echo = RewardSection(name="echo", query=SHORT)
    flops = costs.reward(2, entry, "").total
    assert 0.5 * costs.reward(2, echo, "").total < flops < 1.5 * costs.reward(2, echo, "").total
