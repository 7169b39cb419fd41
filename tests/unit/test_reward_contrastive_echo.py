"""The contrastive echo of a real tiny model: its formulas, and what group-relative advantages leave of each variant."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_vlm import image, shared_folder

from promptecho import awm
from promptecho.config import parse_experiment, slice_digest
from promptecho.errors import ConfigError, DataError
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.contrastive_echo.options import ContrastiveEchoSection
from promptecho.rewards.contrastive_echo.reward import against_texts
from promptecho.vlm import label_log_probs, load_vlm

PROMPTS = ["A red circle.", "Two blue squares and a star."]
OTHERS = ["A green ring.", "A red circle."]


@pytest.fixture(scope="module")
def vlm():
    return load_vlm(shared_folder())


def built(vlm, *, name: str = "contrastive_echo", batch_size: int = 16, **options):
    section = ContrastiveEchoSection(**options) if options else None
    return make_reward(name, RewardContext(vlm=vlm, options=section, batch_size=batch_size))


@pytest.fixture(scope="module")
def groups():
    """Four images of each prompt."""
    images = [image(index) for index in range(8)]
    return images, [prompt for prompt in PROMPTS for _ in range(4)], [str(index // 4) for index in range(8)]


@pytest.fixture(scope="module")
def echo(vlm, groups):
    return built(vlm, name="echo")(*groups)


def test_fixed_blanks_leave_a_training_as_it_is(vlm, groups, echo):
    """A constant for each prompt: the same advantages wherever the group's mean is subtracted first."""
    found = built(vlm)(*groups)
    changes = torch.tensor(found).double().view(2, 4) - torch.tensor(echo).double().view(2, 4)
    assert changes[0].std() < 1e-6 and changes[1].std() < 1e-6 and abs(changes[0, 0] - changes[1, 0]) > 1e-3
    plain, less = (torch.tensor(values).double().view(2, 4) for values in (echo, found))
    for scale in ("none", "group_std", "global_std"):
        advantages = [awm.group_advantages(values, scale=scale) for values in (plain, less)]
        assert torch.allclose(*advantages, atol=1e-4)
    by_all = [awm.group_advantages(values, scale="reward_std") for values in (plain, less)]
    factors = by_all[1] / by_all[0]
    assert torch.allclose(factors, factors[0, 0].expand_as(factors), atol=1e-3) and abs(factors[0, 0] - 1) > 1e-3


def test_a_blank_is_the_mean_probability_of_each_token(vlm):
    picture = image(3)
    blanks = [picture.copy() for _ in range(2)]
    for blank, color in zip(blanks, ("white", "#102030"), strict=True):
        blank.paste(color, (0, 0, *blank.size))
    own, *given = label_log_probs(
        vlm, [picture, *blanks], [PROMPTS[1]] * 3, "Describe this image in detail.", batch_size=3
    )
    prior = torch.stack([one.log_probs.double() for one in given]).exp().mean(0).log()
    [found] = built(vlm, blank="white,#102030")([picture], [PROMPTS[1]], ["p"])
    assert found == pytest.approx(float((own.log_probs.double() - prior).mean()), abs=1e-5)


def test_the_brightness_of_each_image_is_no_constant(vlm, groups, echo):
    found = built(vlm, blank="mean")(*groups)
    assert (torch.tensor(found) - torch.tensor(echo)).view(2, 4).std(dim=1).min() > 1e-4


def test_other_texts_make_a_choice_of_it(vlm, groups, echo):
    images, prompts, ids = groups
    reward = built(vlm, against="texts", texts=OTHERS)
    found = reward(images, prompts, ids)
    green, red = (built(vlm, name="echo")(images, [text] * 8, ids) for text in OTHERS)
    for index, value in enumerate(found):
        others = [green[index]] if index < 4 else [green[index], red[index]]  # the prompt is not compared with itself
        total = math.exp(echo[index]) + sum(map(math.exp, others))
        assert value == pytest.approx(echo[index] - math.log(total / (1 + len(others))), abs=1e-5)
        assert value < math.log(1 + len(others))
    plain, less = (torch.tensor(values).double().view(2, 4) for values in (echo, found))
    assert not torch.allclose(*(awm.group_advantages(values, scale="group_std") for values in (plain, less)), atol=1e-2)
    small = built(vlm, against="texts", texts=OTHERS, batch_size=3)
    order = [5, 0, 3]
    some = small(*([values[i] for i in order] for values in groups))
    assert some == pytest.approx([found[i] for i in order], abs=1e-5)
    details = reward.details(images[:1], prompts[:1], ids[:1])
    assert details.rewards == pytest.approx(found[:1], abs=1e-5)
    assert details.facts[0]["echo"] == pytest.approx(echo[0], abs=1e-5)


def test_a_text_that_cannot_be_used_is_named_by_its_key_and_no_prompt_is_blamed(vlm):
    with pytest.raises(DataError, match=r"^contrastive_echo.texts\[1\]: the label contains the control token"):
        built(vlm, against="texts", texts=["A ring.", "<|im_end|>"])
    reward = built(vlm, against="texts", texts=["A ring.", "A ring. " * 200])
    with pytest.raises(DataError, match=r"^prompt p7, contrastive_echo.texts\[1\]: the label's .* tokens"):
        reward([image(0)], PROMPTS[:1], ["p7"])


def test_without_another_text_there_is_nothing_to_choose():
    assert against_texts(-2.5, []).reward == 0
    assert against_texts(-1.0, [-900.0]).reward == pytest.approx(math.log(2))
    assert against_texts(-900.0, [-1.0]).reward == pytest.approx(-899 + math.log(2))


def test_a_plan_counts_a_blank_for_each_brightness():
    from promptecho.config.rewards import RewardSection, VlmSection
    from promptecho.models.inventory import model_status
    from promptecho.models.required import RequiredModel
    from promptecho.plan.costs import VlmCosts

    found = model_status(RequiredModel("shapes", "transformers", None, ("--vlm",)), None)
    costs = VlmCosts(found, VlmSection(path="shapes", dtype="float32"), size=(64, 64), prompt_tokens=16)
    entry = RewardSection.model_validate({"name": "contrastive_echo", "contrastive_echo": {"blank": "mean"}})
    assert costs.reward(3, entry, "Q").total == 2 * costs.reward(3, RewardSection(name="echo"), "Q").total


def test_settings_are_checked():
    def digest(**options) -> str:
        config = {
            "experiment": "e", "models": {"t2i": {"path": "shapes"}, "vlm": {"path": "shapes"}},
            "captions": {"prompts": "p.txt"}, "runs": {"a": {}},
            "rewards": [{"name": "contrastive_echo", "contrastive_echo": options}],
        }  # fmt: skip
        return slice_digest(parse_experiment(config), "train", run="a")

    for options, said in (
        ({"against": "texts"}, "against: texts and a list of texts go together"), ({"texts": ["a"]}, "go together"),
        ({"against": "texts", "texts": ["a", "a"]}, "each must be there once"),
        ({"against": "texts", "texts": ["a", " "]}, r"texts\[1\] is blank"), ({"blank": "gray-ish"}, "'gray-ish'"),
        ({"against": "texts", "texts": ["a"], "blank": "white"}, "blank: goes with"),
        ({"against": "images"}, "against"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            digest(**options)
    assert digest() == digest(blank="black,grey,white") != digest(blank="white")
    assert digest(against="texts", texts=["a"]) != digest(against="texts", texts=["b"])
