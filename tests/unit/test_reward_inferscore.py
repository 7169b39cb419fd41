"""InferScore: replies of a real tiny model, how they are read, and training where some images have no reward."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from forked import ranks, run
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_experiment import Experiment
from tiny_vlm import build, image, shared_folder
from typer.testing import CliRunner

from promptecho import awm
from promptecho.cli import app
from promptecho.config import load_experiment, slice_digest
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_jsonl, write_jsonl
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.inferscore import REWARD, InferScoreSection
from promptecho.rewards.inferscore.reward import ScoredReply, mean_score, read_reply
from promptecho.train.data import Rollout
from promptecho.train.loop import train_segment
from promptecho.train.rollout import reply_metrics, reward_metrics
from promptecho.train.scoring import (
    RolloutScores,
    WeightedReward,
    combined_advantages,
    permuted,
    score_images,
    too_many_failures,
)
from promptecho.vlm import load_vlm

REPLIES = [json.dumps({"score": number / 40}) for number in range(401)]
nan = math.nan


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model that mostly writes scores, as single tokens of its vocabulary."""
    return build(tmp_path_factory.mktemp("vlm") / "vlm", context=2048, replies=REPLIES)


@pytest.fixture(scope="module")
def vlm(folder):
    return load_vlm(folder)


def inferscore(vlm, *, batch_size: int = 16, seed: int = 0, **options):
    section = InferScoreSection(**{"max_new_tokens": 1, "temperature": 3.0, "samples": 3, **options})
    return make_reward("inferscore", RewardContext(vlm=vlm, options=section, batch_size=batch_size, seed=seed)).function


# Replies.


def test_replies_depend_on_seed_prompt_and_image_but_not_on_the_batch(vlm):
    images = [image(index) for index in range(5)]
    for index, picture in enumerate(images):
        picture.info["path"] = f"image {index}"
    prompts, ids = [f"{number} red circles, of many." for number in range(5)], list("abcde")
    reward = inferscore(vlm)
    found = reward.replies(images, prompts, ids)
    assert reward.counts == {"images": 5, "replies": 15, "failed": sum(r.score is None for rs in found for r in rs)}
    assert len({reply.text for replies in found for reply in replies}) > 5
    for size in (1, 4):
        assert inferscore(vlm, batch_size=size).replies(images, prompts, ids) == found
    order = [3, 0, 4]
    some = inferscore(vlm, batch_size=2).replies(*([values[i] for i in order] for values in (images, prompts, ids)))
    assert some == [found[i] for i in order]
    assert inferscore(vlm, seed=1).replies(images, prompts, ids) != found
    assert inferscore(vlm).replies(images, prompts, list("fghij")) != found
    [greedy] = inferscore(vlm, temperature=0.0).replies(images[:1], prompts[:1], ["a"])
    assert greedy[0] == greedy[1] == greedy[2]
    assert reward(images, prompts, ids) == pytest.approx([mean_score(replies) for replies in found], nan_ok=True)


def test_a_reply_that_is_cut_off_says_so(vlm):
    ids = [f"p{index}" for index in range(12)]
    found = inferscore(vlm, samples=1).replies([image(0)] * 12, ["A"] * 12, ids)
    assert {reply.problem for [reply] in found if reply.score is None} == {"cut off after max_new_tokens 1"}


def test_a_context_that_is_too_short_is_named():
    with pytest.raises(DataError, match="exceed its context of 512 .*prompt p.*lower max_new_tokens or image size"):
        inferscore(load_vlm(shared_folder()))([image(0)], ["A star"], ["p"])


def test_a_prompt_with_control_tokens_is_refused(vlm):
    with pytest.raises(DataError, match=r"prompt p7: contains the control token '<\|im_end\|>'"):
        inferscore(vlm)([image(0)], ["A star<|im_end|>"], ["p7"])


AROUND = st.sampled_from(["%s", "```json\n%s\n```", "```\n%s\n```", " %s\n"])


@given(st.floats(0, 10) | st.integers(0, 10), st.text(max_size=30), AROUND)
def test_a_score_in_range_is_read(score, reasoning, around):
    text = around % json.dumps({"reasoning": reasoning, "score": score})
    assert read_reply(text) == ScoredReply(text, score)


@given(
    st.floats(max_value=-1e-9) | st.floats(min_value=10.001) | st.integers(11, 10**30) | st.text(max_size=5)
    | st.booleans() | st.none() | st.lists(st.integers(0, 10), max_size=2) | st.just(nan)
)  # fmt: skip
def test_anything_else_is_no_score(value):
    for text in (json.dumps({"score": value}), json.dumps({"points": 5, "why": value}), f"I give it {value} of 10."):
        found = read_reply(text)
        assert found.score is None and found.problem and "\n" not in found.problem


@given(st.text(max_size=60))
def test_no_text_is_an_error(text):
    assert (read_reply(text).score is None) == bool(read_reply(text).problem)


def test_the_mean_is_over_readable_replies():
    recorded = [
        '{"reasoning": "Two of three squares are there.", "score": 6}',
        '```json\n{"reasoning": "One is missing.", "score": 7.5}\n```',
        "The picture shows two squares. I would say 7/10.",
        '{"reasoning": "Two of three squares',
    ]
    replies = [read_reply(text) for text in recorded]
    assert [reply.score for reply in replies] == [6, 7.5, None, None]
    assert mean_score(replies) == pytest.approx(0.675)
    assert math.isnan(mean_score(replies[2:]))


# Images without a reward.


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 5), st.sampled_from(["none", "group_std", "global_std"]),
    st.floats(0, 1),
)  # fmt: skip
def test_missing_rewards_have_advantage_0_and_leave_the_others_theirs(seed, groups, size, scale, share):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand((groups, size), generator=generator, dtype=torch.float64)
    missing = torch.rand((groups, size), generator=generator) < share
    rewards[missing] = nan
    found = awm.group_advantages(rewards, scale=scale, clip=1e9, missing=missing)
    assert (found[missing] == 0).all()
    kept = [row[~gone] if int((~gone).sum()) > 1 else row[:0] for row, gone in zip(rewards, missing, strict=True)]
    spread = torch.cat([row - row.mean() for row in kept]).std(correction=0) if any(map(len, kept)) else None
    for row, gone, values in zip(found, missing, kept, strict=True):
        if not len(values):
            assert (row == 0).all()
            continue
        expected = values - values.mean()
        if scale == "group_std":
            expected = expected / (values.std(correction=0) + 1e-6)
        elif scale == "global_std":
            expected = expected / (spread + 1e-6)
        assert torch.allclose(row[~gone], expected, atol=1e-9)


def test_with_nothing_missing_all_bits_are_as_without(seed=3):
    rewards = torch.rand((4, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for scale in ("none", "group_std", "global_std"):
        plain = awm.group_advantages(rewards, scale=scale)
        assert torch.equal(plain, awm.group_advantages(rewards, scale=scale, missing=rewards.isnan()))
    with pytest.raises(ValueError, match=r"not finite at \(prompt, image\) \[\[0, 1\]\]"):
        awm.group_advantages(torch.tensor([[0.0, nan]]))


def test_metrics_and_advantages_leave_missing_rewards_out():
    from promptecho.config import TrainingConfig

    rewards = torch.tensor([[[0.2, nan, 0.4], [nan, 0.9, nan]], [[-1.0, -2.0, -3.0], [-1.0, -1.0, -4.0]]]).double()
    entries = [WeightedReward("inferscore", 1.0, ""), WeightedReward("echo", 0.5, "")]
    advantages = combined_advantages(rewards, [1.0, 0.5], TrainingConfig())
    assert advantages.flatten().tolist() == pytest.approx([-0.1 + 0.5, 0.0, 0.1 - 0.5, 0.5, 0.5, -1.0])
    replies = {"failed_replies_0_x": 3}
    rollout = Rollout([None] * 2, [], list(range(6)), torch.zeros(6, 2), rewards, advantages.flatten(), 0.0, replies)
    found = reward_metrics(rollout, entries)
    assert found["reward_mean"] == pytest.approx((-0.3 - 1.1 + 0.4) / 3)
    assert found["reward_0_inferscore"] == pytest.approx(0.5) and found["reward_1_echo"] == pytest.approx(-2.0)
    assert found["reward_group_std"] == pytest.approx(0.4 / 2) and found["zero_std_groups"] == 0.5
    assert found["failed_replies_0_x"] == 3
    dealt = permuted(rewards, 1, 0)
    for before, after in zip(rewards.unbind(1), dealt.unbind(1), strict=True):
        assert sorted(map(str, before.T.tolist())) == sorted(map(str, after.T.tolist()))


def test_scores_travel_as_json_and_join(vlm):
    from promptecho.train.data import TrainingPrompt

    entries = [
        WeightedReward("echo", 1.0, "", reward=make_reward("echo", RewardContext(vlm=vlm))),
        WeightedReward("inferscore", 1.0, "", max_failure_share=0.5, reward=inferscore(vlm, samples=1)),
    ]
    images = [image(index) for index in range(12)]
    prompts = [TrainingPrompt(f"p{index}", "A star.") for index in range(12)]
    names = [f"image {index} of iteration 3" for index in range(12)]
    whole = score_images(entries, images, prompts, names, lambda n: None)
    parts = [score_images(entries, images[cut], prompts[cut], names[cut], lambda n: None)
             for cut in (slice(0, 5), slice(5, 5), slice(5, 12))]  # fmt: skip
    joined = RolloutScores.joined([RolloutScores.from_json(json.loads(json.dumps(part.to_json()))) for part in parts])
    for key in ("rewards", "replies", "failed"):
        assert torch.allclose(getattr(joined, key), getattr(whole, key), atol=1e-5, equal_nan=True)
    assert joined.examples == whole.examples and whole.examples[0] == ""
    failed = int(whole.failed[1].sum())
    assert 0 < failed < 6 and whole.rewards[1].isnan().sum() == failed and not whole.rewards[0].isnan().any()
    assert whole.examples[1].startswith("prompt p") and " of iteration 3: the reply '" in whole.examples[1]
    assert reply_metrics(entries, whole) == {
        "failed_replies_1_inferscore": failed, "failed_share_1_inferscore": failed / 12,
        "missing_rewards_1_inferscore": failed,
    }  # fmt: skip
    assert too_many_failures(entries, whole) is None
    entries[1].max_failure_share = 0.05
    index, message = too_many_failures(entries, whole)
    assert index == 1 and message.startswith(f"{failed} of 12 replies (") and "rewards.1 (inferscore)" in message


def test_without_any_reward_training_stops_whatever_the_share():
    entries = [WeightedReward("inferscore", 1.0, "", max_failure_share=1.0) for _ in range(2)]
    ones, failed = torch.ones((2, 2)).double(), torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    scores = RolloutScores.of(torch.stack([torch.tensor([[nan, 0.5], [0.5, nan]]).double(), ones, failed]), ["a", "b"])
    assert "no image has all of its rewards" in too_many_failures(entries, scores)[1]
    scores = RolloutScores.of(torch.stack([torch.tensor([[nan, nan], [0.5, 0.5]]).double(), ones, ones]), ["a", "b"])
    assert "not one reply to rewards.0" in too_many_failures(entries, scores)[1]


# Configuration.


def configured(tmp_path: Path, *, rewards=None, training=None, run=None, name: str = "exp"):
    content = {
        "models": {"t2i": {"family": "zimage", "path": "t2i"}, "vlm": {"path": "vlm"}},
        "captions": {"prompts": "prompts.txt"},
        "training": training or {},
        "runs": {"r": run or {}},
        **({"rewards": rewards} if rewards else {}),
    }
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_experiment(path)


def test_settings_of_the_other_reward_are_refused_with_their_path(tmp_path):
    echo, infer = {"name": "echo", "inferscore": {}}, {"name": "inferscore", "query": "Q", "label": "L"}
    greedy = {"name": "inferscore", "inferscore": {"temperature": 0, "samples": 4}}
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, rewards=[echo, infer, greedy])
    lines = str(caught.value).splitlines()
    for path in ("rewards.0.inferscore", "rewards.1.query", "rewards.1.label", "rewards.2.inferscore.samples"):
        assert any(f"exp.yaml: {path}: " in line for line in lines), path
    with pytest.raises(ConfigError, match=r"exp.yaml: training.rewards.0.inferscore: echo has no such settings"):
        configured(tmp_path, training={"rewards": [echo]})
    with pytest.raises(ConfigError, match=r"exp.yaml: runs.r.rewards.0.query: inferscore has none"):
        configured(tmp_path, run={"rewards": [{"name": "inferscore", "query": "Q"}]})


def test_the_question_counts_and_a_bad_one_is_named(tmp_path):
    own = tmp_path / "own.txt"

    def train_digest(**inferscore) -> str:
        rewards = [{"name": "inferscore", "inferscore": inferscore, "batch_size": inferscore.pop("batch", 16)}]
        return slice_digest(configured(tmp_path, run={"rewards": rewards}), "train", run="r")

    own.write_text(REWARD.template.read_text())
    first = train_digest()
    assert train_digest(template=str(own), max_failure_share=0.5, batch=4) == first
    assert train_digest(samples=2) != first
    own.write_text("How well does it show {prompt}?")
    assert train_digest(template=str(own)) != first
    own.write_text("How good is it?")
    with pytest.raises(ConfigError, match=r"runs.r.rewards.0.inferscore.template: .*own.txt: lacks \{prompt\}"):
        train_digest(template=str(own))
    with pytest.raises(ConfigError, match=r"runs.r.rewards.0.inferscore.template: .*none.txt: no such file"):
        train_digest(template=str(tmp_path / "none.txt"))
    for where in ("training", "rewards"):
        rewards = [{"name": "inferscore", "inferscore": {"template": str(own)}}]
        options = {"rewards": rewards} if where == "rewards" else {"training": {"rewards": rewards}}
        path = "rewards.0" if where == "rewards" else "training.rewards.0"
        with pytest.raises(ConfigError, match=rf"exp: {path}.inferscore.template: "):
            slice_digest(configured(tmp_path, **options), "train", run="r")


# The command, and training.


def test_the_command_prints_replies(folder, vlm, tmp_path):
    picture = tmp_path / "a.png"
    image(0).save(picture)
    options = ["reward", "--name", "inferscore", "--vlm", str(folder), "--image", str(picture)]
    options += ["--label", "A red circle."]
    options += ["--device", "cpu", "--max-new-tokens", "1", "--samples", "4", "--temperature", "3"]
    done = CliRunner().invoke(app, [*options, "--json"])
    assert done.exit_code == 0, done.output
    [row] = json.loads(done.stdout)
    assert len(row["replies"]) == 4
    assert row["reward"] == mean_score([ScoredReply(**reply) for reply in row["replies"]])
    table = CliRunner().invoke(app, options)
    assert table.exit_code == 0 and f"{row['reward']:.4f}" in table.stdout
    for wrong in (["--query", "Q"], ["--name", "echo"]):
        assert CliRunner().invoke(app, [*options, *wrong]).exit_code == 2


def rewards(**inferscore) -> dict:
    settings = {"max_new_tokens": 1, "temperature": 3.0, "samples": 2, **inferscore}
    return {"rewards": [{"name": "inferscore", "inferscore": settings}, {"name": "echo", "weight": 0.1}]}


@pytest.mark.usefixtures("train_in_process")
def test_training_goes_on_with_what_was_readable_wherever_the_vlm_sits(folder, tmp_path):
    """In one process, and in two of which one serves rewards; with held-out prompts."""
    experiment = Experiment(tmp_path, vlm=folder)
    watched = tmp_path / "watched.jsonl"
    write_jsonl(watched, [{"data_id": f"h{i}", "caption": f"A {name}."} for i, name in enumerate(("star", "ring"))])
    options = {"iterations": 1, "checkpoints": [1], "images_per_prompt": 8, "batch_size": 8, "passes": 1}
    options["heldout"] = {"prompts": 2, "images_per_prompt": 4, "every": 1}
    sections = rewards(max_failure_share=0.9) | {"captions": {"prompts": "unused.txt", "heldout": 2}}
    config = experiment.config("one", sections=sections, **options)
    assert train_segment(experiment.segment("one", config, 1, heldout=watched))
    config = experiment.config("two", sections=sections, reward_placement={"mode": "dedicated"}, **options)
    run(experiment.train(config, 1, "two", "--heldout", watched), ranks(2))
    one, two = (read_jsonl(tmp_path / name / "1" / "metrics.jsonl") for name in ("one", "two"))
    assert [row["iteration"] for row in one] == [row["iteration"] for row in two] == [0, 1]
    row = one[1]
    failed = row["failed_replies_0_inferscore"]
    assert 0 < failed < 32 and row["failed_share_0_inferscore"] == failed / 32
    assert 0 < row["missing_rewards_0_inferscore"] <= failed / 2
    assert 0 < row["reward_0_inferscore"] < 1 and row["advantage_abs_mean"] > 0
    assert 0 < row["heldout_reward_0_inferscore"] < 1
    for before, after in zip(one, two, strict=True):
        for key, value in before.items():
            if "inferscore" in key or key.startswith("reward"):
                assert after[key] == pytest.approx(value, rel=1e-3), key


def test_training_stops_when_replies_cannot_be_read(tmp_path):
    experiment = Experiment(tmp_path, vlm=build(tmp_path / "vlm", context=2048))
    config = experiment.config("stop", sections=rewards(max_new_tokens=4), iterations=1, checkpoints=[1])
    stderr = run(experiment.train(config, 1, "stop"), ranks(2, each=True), code=1)
    lines = [line for line in stderr.splitlines() if line.startswith("promptecho: rank")]
    assert len(lines) == 2, stderr[-3000:]
    for line in lines:
        assert "iteration 1: 16 of 16 replies (100.0%) to rewards.0 (inferscore) are unreadable" in line
        assert "its max_failure_share of 5.0%; prompt " in line and ", image 0 of iteration 1: the reply '" in line
    assert not (tmp_path / "stop" / "1").exists()
