"""The PromptEcho reward, its registry and its command."""

from __future__ import annotations

import json
import math

import pytest
import torch
from forked import ended
from tiny_vlm import image, shared_folder

from promptecho.config import parse_experiment
from promptecho.config.slices import slice_digest, slice_value
from promptecho.errors import ConfigError, DataError, RewardError
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.echo.options import EchoSection
from promptecho.train.scoring import WeightedReward
from promptecho.vlm import load_vlm

RAW = {
    "experiment": "e",
    "models": {"t2i": {"path": "shapes", "dtype": "float32"}, "vlm": {"path": "shapes", "dtype": "float32"}},
    "captions": {"shapes": {"count": 40, "seed": 1}, "heldout": 8},
    "training": {"iterations": 4},
    "runs": {"a": {"seed": 1}},
}


@pytest.fixture(scope="module")
def vlm():
    return load_vlm(shared_folder())


def test_reward_is_the_mean_of_the_details(vlm):
    echo = make_reward("echo", RewardContext(vlm=vlm, batch_size=2))
    images, prompts, ids = [image(i) for i in range(3)], ["A star", "A red circle.", "x"], ["0", "1", "2"]
    rewards = echo(images, prompts, ids)
    details = echo.function.score_details(images, prompts, ids)
    assert rewards == [pytest.approx(d.log_probs.mean().item(), abs=1e-6) for d in details]
    assert all(math.isfinite(r) and r < 0 for r in rewards)


def test_sum_and_end_token_are_chosen_by_the_settings(vlm):
    images, prompts, ids = [image(i) for i in range(2)], ["A star", "A red circle."], ["0", "1"]

    def echo(**settings):
        return make_reward("echo", RewardContext(vlm=vlm, options=EchoSection(**settings))).function

    plain, summed, ended_too = echo(), echo(reduction="sum"), echo(include_eos=True)
    details = plain.score_details(images, prompts, ids)
    assert plain(images, prompts, ids) == make_reward("echo", RewardContext(vlm=vlm))(images, prompts, ids)
    assert summed(images, prompts, ids) == [pytest.approx(d.mean * len(d.tokens), abs=1e-6) for d in details]
    longer = ended_too.score_details(images, prompts, ids)
    assert [len(d.tokens) for d in longer] == [len(d.tokens) + 1 for d in details]
    assert "is their sum" in summed.details(images, prompts, ids).caption


def test_settings_at_their_defaults_leave_the_digest_of_a_training_as_it_was():
    """Results of the version before these keys are not made again; other values are other trainings."""

    def trained(**entry) -> str:
        return slice_digest(parse_experiment(RAW | {"rewards": [{"name": "echo", **entry}]}), "train", "a")

    before = slice_value(parse_experiment(RAW), "train", "a")["rewards"]
    assert "echo" not in before[0]
    defaults = {"reduction": "mean", "include_eos": False}
    found = [trained(), trained(echo=defaults), trained(echo=None)]
    changed = [trained(echo={"reduction": "sum"}), trained(echo={"include_eos": True})]
    assert len({*found, *changed}) == 3 and len(set(found)) == 1


def test_metrics_of_a_sum_have_a_name_of_their_own():
    names = [WeightedReward("echo", 1.0, "", context=RewardContext(options=EchoSection(reduction=way))).metric
             for way in ("mean", "sum")]  # fmt: skip
    assert [*names, WeightedReward("echo", 1.0, "").metric] == ["echo", "echo_sum", "echo"]


def test_query_is_part_of_the_question(vlm):
    contexts = [RewardContext(vlm=vlm, query=query) for query in ("What is it?", "Describe.")]
    a, b = (make_reward("echo", context)([image(0)], ["A star"], ["0"]) for context in contexts)
    assert a != b


def test_non_finite_reward_names_prompt_and_image():
    vlm = load_vlm(shared_folder())
    with torch.no_grad():
        vlm.model.model.language_model.norm.weight.fill_(float("nan"))
    picture = image(0)
    with pytest.raises(RewardError, match="prompt p17, image 0: the reward is not finite"):
        make_reward("echo", RewardContext(vlm=vlm))([picture], ["A star"], ["p17"])
    picture.info["path"] = "/data/a.png"
    with pytest.raises(RewardError, match="prompt p17, image /data/a.png"):
        make_reward("echo", RewardContext(vlm=vlm))([picture], ["A star"], ["p17"])


def test_empty_prompt_is_named(vlm):
    with pytest.raises(DataError, match="prompt p3: the label is empty"):
        make_reward("echo", RewardContext(vlm=vlm))([image(0)], [" "], ["p3"])


def test_unknown_reward_lists_the_known(vlm):
    with pytest.raises(ConfigError, match="unknown reward 'clip'; known: echo"):
        make_reward("clip", RewardContext(vlm=vlm))


def test_command_prints_what_the_library_computes(vlm, tmp_path):
    files = []
    for index in range(2):
        files.append(tmp_path / f"{index}.png")
        image(index).save(files[-1])
    shown = [part for file in files for part in ("--image", str(file))]
    asked = ["reward", "--vlm", str(shared_folder()), *shown, "--label", "A red circle."]
    rows = json.loads(ended([*asked, "--json"])[0])
    echo = make_reward("echo", RewardContext(vlm=vlm)).function
    expected = echo.score_details([image(0), image(1)], ["A red circle."] * 2, ["0", "1"])
    assert [row["image"] for row in rows] == [str(file) for file in files]
    for row, detail in zip(rows, expected, strict=True):
        assert row["reward"] == pytest.approx(detail.mean, abs=1e-5)
        assert row["tokens"] == detail.tokens
        assert row["log_probs"] == pytest.approx(detail.log_probs.tolist(), abs=1e-5)
    assert f"{rows[0]['reward']:.4f}" in ended(asked)[0]


def test_command_tells_bad_input_in_one_line(tmp_path):
    good = tmp_path / "good.png"
    image(0).save(good)
    torn = tmp_path / "torn.png"
    torn.write_bytes(good.read_bytes()[:200])
    vlm = str(shared_folder())
    for arguments, culprit in [
        (("--vlm", vlm, "--image", str(torn), "--label", "a"), "torn.png: not a readable image"),
        (("--vlm", vlm, "--image", str(tmp_path / "no.png"), "--label", "a"), "no.png: no such file or folder"),
        (("--vlm", "/nowhere/vlm", "--image", str(good), "--label", "a"), "/nowhere/vlm: no such VLM folder"),
        (("--vlm", vlm, "--image", str(good), "--label", ""), "the label is empty"),
    ]:
        stdout, stderr = ended(["reward", *arguments, "--json"], code=1)
        assert stdout == ""
        [line] = [line for line in stderr.splitlines() if line.startswith("promptecho: ")]
        assert culprit in line and "Traceback" not in stderr
