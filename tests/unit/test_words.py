"""Words of a label: which tokens they have, where they stand, and what the image changes about them."""

from __future__ import annotations

import math

import pytest
from PIL import Image
from tiny_vlm import image, shared_folder

from promptecho.errors import ConfigError
from promptecho.rewards.echo.blanks import MEAN, blank_colors
from promptecho.rewards.echo.reward import EchoReward
from promptecho.rewards.echo.words import read_words
from promptecho.vlm import load_vlm
from promptecho.vlm.words import group_tokens, label_words, text_words

LABELS = [
    "A red circle above a blue square.",
    "x",
    'Don\'t say "left-hand", say 3.5 km!',
    "e\u0301te\u0301 👩‍🎨 红色的圆 нет\n\n  two   spaces ",
    "  begins with space",
    "A sign ``<script>alert('x')</script>'' & more…",
    "한국어 문장, สวัสดี ครับ; नमस्ते",
]


@pytest.fixture(scope="module")
def vlm():
    return load_vlm(shared_folder())


@pytest.mark.parametrize(
    "text, words",
    [
        ("A red circle.", ["A", "red", "circle", "."]),
        ("don't left-hand 3.5 1,000 12:30", ["don't", "left-hand", "3.5", "1,000", "12:30"]),
        ("end- 'quoted' a.b", ["end", "-", "'", "quoted", "'", "a", ".", "b"]),
        ("e\u0301te\u0301 नमस्ते", ["e\u0301te\u0301", "नमस्ते"]),
        ("红圆 カナ 한국어", ["红", "圆", "カ", "ナ", "한국어"]),
        (" \n", []),
    ],
)
def test_text_is_cut_into_words(text, words):
    assert [text[start:end] for start, end in text_words(text)] == words


def test_words_that_share_a_token_become_one_and_white_space_goes_to_the_word_behind():
    text = ' a b." c  '
    offsets = [(0, 1), (1, 2), (2, 4), (4, 6), (6, 7), (7, 8), (8, 10)]
    found = [(text[word.start : word.end], word.first, word.last) for word in group_tokens(text, offsets)]
    assert found == [("a", 0, 2), ("b", 2, 3), ('."', 3, 4), ("c", 4, 7)]


@pytest.mark.parametrize("include_eos", [False, True])
def test_each_token_is_in_one_word_whose_text_stands_where_it_says(vlm, include_eos):
    echo = EchoReward(vlm, include_eos=include_eos)
    for label in LABELS:
        words = label_words(vlm, echo.query, label, name="p", include_eos=include_eos)
        [detail] = echo.score_details([image(0)], [label], ["p"])
        assert [place for word in words for place in range(word.first, word.last)] == list(range(len(detail.tokens)))
        edges = [edge for word in words for edge in (word.start, word.end)]
        assert edges == sorted(edges)
        assert "".join(label[word.start : word.end] for word in words) == "".join(label.split())
        for word in words[: len(words) - include_eos]:
            ids = detail.token_ids[word.first : word.last]
            normal = label[word.start : word.end].replace("e\u0301", "é")
            assert vlm.tokenizer.decode(ids).strip() == normal


def test_sums_are_those_of_the_reward(vlm):
    echo = EchoReward(vlm)
    images, names = [image(i) for i in range(len(LABELS))], [str(i) for i in range(len(LABELS))]
    details = echo.score_details(images, LABELS, names)
    for reading, detail in zip(read_words(echo, images, LABELS, names), details, strict=True):
        assert reading.log_prob == pytest.approx(detail.log_probs.double().sum().item(), abs=1e-4)
        assert reading.reward == pytest.approx(detail.mean, abs=1e-6)
        for word in reading.words:
            assert reading.label[word.start : word.end] == word.text


def test_change_is_from_a_blank_image_of_the_same_size(vlm):
    echo = EchoReward(vlm)
    label = "A red circle above a blue square."
    pictures = [image(0), image(1, (48, 32)), image(2)]
    readings = read_words(echo, pictures, [label] * 3, ["a", "b", "c"], blank="#808080")
    for picture, reading in zip(pictures, readings, strict=True):
        [blank] = read_words(echo, [Image.new("RGB", picture.size, (128,) * 3)], [label], ["x"], blank=None)
        assert blank.change is None
        for word, prior in zip(reading.words, blank.words, strict=True):
            assert word.blank_log_prob == pytest.approx(prior.log_prob, abs=1e-4)
            assert word.change == pytest.approx(word.log_prob - prior.log_prob, abs=1e-4)
    assert any(abs(word.change) > 0.01 for word in readings[0].words)
    assert readings[0].change == pytest.approx(sum(word.change for word in readings[0].words))
    # Two images of one size have one prior, so that their changes differ as their log-probabilities do.
    assert [word.blank_log_probs for word in readings[0].words] == [word.blank_log_probs for word in readings[2].words]
    other = read_words(echo, pictures[:1], [label], ["a"], blank="white")[0]
    assert other.change != readings[0].change and other.log_prob == pytest.approx(readings[0].log_prob, abs=1e-4)


def test_prior_of_several_blank_images_is_the_mean_probability(vlm):
    echo, label, picture = EchoReward(vlm), "A red circle.", image(5)
    both, black, white = (
        read_words(echo, [picture], [label], ["p"], blank=blank)[0] for blank in ("black, white", "black", "white")
    )
    for word, one, other in zip(both.words, black.words, white.words, strict=True):
        pairs = zip(one.blank_log_probs, other.blank_log_probs, strict=True)
        expected = [math.log((math.exp(a) + math.exp(b)) / 2) for a, b in pairs]
        assert word.blank_log_probs == pytest.approx(expected, abs=1e-4)


def test_blank_is_a_colour_or_the_mean_grey():
    picture = image(3)
    [grey] = blank_colors(MEAN, picture)
    assert len(set(grey)) == 1 and [grey] != blank_colors(MEAN, image(4))
    assert blank_colors("white, rgb(1, 2, 3),#fff", picture) == [(255, 255, 255), (1, 2, 3)]
    with pytest.raises(ConfigError, match="blank 'gray-ish': give mean, or a colour"):
        blank_colors("white,gray-ish", picture)
