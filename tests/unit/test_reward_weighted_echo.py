"""The echo of content words: weights of real tokens, and the mean by them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_vlm import image, shared_folder

from promptecho.config import parse_experiment, slice_digest
from promptecho.errors import ConfigError
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.weighted_echo.options import WeightedEchoSection
from promptecho.rewards.weighted_echo.reward import weighted_mean
from promptecho.rewards.weighted_echo.stop_words import STOP_WORDS, is_stop_word
from promptecho.vlm import load_vlm

PROMPT = "The image shows a red circle, and a purple star to the left of it."


@pytest.fixture(scope="module")
def vlm():
    return load_vlm(shared_folder())


def built(vlm, *, batch_size: int = 16, **options):
    context = RewardContext(vlm=vlm, options=WeightedEchoSection(**options), batch_size=batch_size)
    return make_reward("weighted_echo", context)


@given(st.lists(st.tuples(st.floats(-50, 0), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=9))
def test_the_mean_is_normalised_by_the_weights(rows):
    values, weights = [x for x, _ in rows], [w for _, w in rows]
    found = weighted_mean(values, weights)
    assert min(values) - 1e-9 <= found <= max(values) + 1e-9
    assert weighted_mean(values, [2 * w for w in weights]) == pytest.approx(found)
    assert weighted_mean(values, [0.0] * len(rows)) == pytest.approx(sum(values) / len(values))
    if any(weights):
        assert found == pytest.approx(weighted_mean(*zip(*(row for row in rows if row[1]), strict=True)))


def test_only_content_words_count(vlm):
    picture = image(1)
    details = built(vlm).details([picture], [PROMPT], ["p"])
    [facts] = details.facts
    counted = "".join(token for token, weight in zip(facts["tokens"], facts["weights"], strict=True) if weight)
    assert counted.split() == ["red", "circle", "purple", "star", "left"]
    assert "".join(facts["tokens"]) == PROMPT and set(facts["weights"]) == {0.0, 1.0}
    kept = [x for x, weight in zip(facts["log_probs"], facts["weights"], strict=True) if weight]
    assert details.rewards == [pytest.approx(sum(kept) / len(kept))]
    assert details.rewards == built(vlm)([picture], [PROMPT], ["p"])


def test_with_weight_1_it_is_the_echo_and_batches_change_nothing(vlm):
    images, prompts = [image(i) for i in range(4)], [PROMPT, "A star.", "It is.", "A red ring."]
    ids = list("abcd")
    echo = make_reward("echo", RewardContext(vlm=vlm))(images, prompts, ids)
    assert built(vlm, stop_weight=1.0)(images, prompts, ids) == pytest.approx(echo, abs=1e-6)
    found = built(vlm)(images, prompts, ids)
    assert found[2] == pytest.approx(echo[2], abs=1e-6)  # nothing but stop words: all of them count
    assert found[0] != pytest.approx(echo[0], abs=1e-3)
    assert built(vlm, batch_size=1)(images, prompts, ids) == pytest.approx(found, abs=1e-5)
    own = built(vlm, stop_words=["red", "a"])(images[3:], prompts[3:], ids[3:])
    assert torch.tensor(own).isfinite().all() and own != pytest.approx(found[3:], abs=1e-4)


def test_signs_are_stop_words_and_negations_are_not():
    assert all(is_stop_word(word) for word in ("The", "of", ",", "\u2014"))
    assert not any(is_stop_word(word) for word in ("no", "not", "without", "left", "two", "3"))
    assert is_stop_word("Rot", ["rot"]) and not is_stop_word("the", ["rot"]) and "no" not in STOP_WORDS


def test_settings_are_checked_and_decide_what_is_trained_again():
    def digest(name: str = "weighted_echo", **options) -> str:
        config = {
            "experiment": "e", "models": {"t2i": {"path": "shapes"}, "vlm": {"path": "shapes"}},
            "captions": {"prompts": "p.txt"}, "runs": {"a": {}}, "rewards": [{"name": name, name: options}],
        }  # fmt: skip
        return slice_digest(parse_experiment(config), "train", run="a")

    for options in ({"stop_weight": -0.1}, {"stop_weight": 2}, {"stop_words": "the"}, {"stop_words": [""]}):
        with pytest.raises(ConfigError, match=f"weighted_echo.{next(iter(options))}"):
            digest(**options)
    for word in ("The", "to the", " of"):
        with pytest.raises(ConfigError, match=f"weighted_echo.stop_words.1: '{word}' is never met"):
            digest(stop_words=["a", word])
    found = [digest(), digest(stop_weight=0.5), digest(stop_words=["the"]), digest("echo")]
    assert digest(stop_weight=0) == found[0] and len(set(found)) == 4
