"""Replies of judges read tolerantly: one unmistakable answer is taken, anything else is told."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptecho.benchmarks.densealign.reply import Comparison, read
from promptecho.benchmarks.densealign.reply import parse as official
from promptecho.benchmarks.dpg.judge import parse_yes_no
from promptecho.benchmarks.replies import read_object, read_yes_no, read_yes_no_list
from promptecho.benchmarks.textocr.judge import Verdict
from promptecho.benchmarks.tiif.answers import extract_yes_no
from promptecho.judges.errors import RefusedError

GOOD = '{"reasoning": "A is right.", "preference": "image_a"}'
VERDICT = '{"expected_text": "a", "found_text": "a", "reasoning": "", "score": 1}'
REFUSALS = [
    "I'm sorry, but I can't assist with that.", "I\u2019m sorry, I can\u2019t help with that request.",
    "As an AI, I am unable to evaluate images of real people.", "I cannot comply.", "I won't compare these pictures.",
    "抱歉，我无法评估这张图片。", "<think>Hm.</think>I must decline to answer.",
]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        f"```json\r\n{GOOD}\r\n```", f"```json {GOOD} ```", f"```JSON\n{GOOD}\n```", f"```\n{GOOD}\n```",
        f"~~~json\n{GOOD}\n~~~", f"<think>\nLet me see.\n</think>\n\n{GOOD}", f"Here is my answer:\n{GOOD}",
        f"{GOOD}\nI hope this helps.", f"```json\n{GOOD}", f"[{GOOD}]", f'{{"answer": {GOOD}}}', f"\ufeff{GOOD}",
        f"<think>Or {{\"preference\": \"image_b\"}}?</think>{GOOD}", f"I think {{so}}.</think>{GOOD}",
        f"<|channel|>analysis<|message|>{{\"preference\"<|end|><|channel|>final<|message|>{GOOD}",
        f"<seed:think>{GOOD}</seed:think>{GOOD}", f"<scratchpad>{{</scratchpad>{GOOD}",
        f"<|begin_of_box|>{GOOD}<|end_of_box|>", GOOD.replace("}", ",\n}"), GOOD.replace('"', "'"),
        GOOD.replace("image_a", "Image_A"), GOOD.replace("image_a", "image a "), GOOD.replace("image_a", "A"),
        GOOD.replace('"preference"', '"Preference"'), GOOD.replace(", ", ",\n\n"),
    ],
)  # fmt: skip
def test_one_object_is_read_whatever_stands_around_it(text):
    assert read(text) == Comparison(reasoning="A is right.", preference="image_a")


def test_what_decides_nothing_may_be_missing():
    assert read('{"preference": "tie"}').preference == "tie"
    assert read('{"reasoning": null, "preference": "tie"}').reasoning == ""


@pytest.mark.parametrize(
    "text",
    [
        "", "image_a", "null", "[]", f"{GOOD}{GOOD}", f"{GOOD}\nor rather\n{GOOD.replace('_a', '_b')}", GOOD[:-1],
        f"{GOOD} {GOOD[:30]}", f"{GOOD[:30]} {GOOD}", GOOD.replace("}", ', "preference": "image_b"}'),
        GOOD.replace("}", ', "Preference": "image_b"}'), GOOD.replace('"image_a"', "1"), f"<think>{GOOD}",
        GOOD.replace('"image_a"', "null"), GOOD.replace("image_a", "image_c"), '{"reasoning": "x"}',
        GOOD.replace("image_a", "image_a or image_b"), "{" * 5000, '{"a": ' * 5000, "'" * 3000 + "{'" * 3000,
    ],
)  # fmt: skip
def test_what_could_mean_two_things_or_nothing_is_not_read(text):
    with pytest.raises(ValueError) as error:
        read(text)
    assert "\n" not in str(error.value) and type(error.value) is ValueError


@pytest.mark.parametrize(
    ("score", "read_as"),
    [('"1"', 1), ("1.0", 1), ('" 0 "', 0), ("true", None), ('"2"', None), ('"1/1"', None), ("0.5", None),
     ("null", None), ("[1]", None)],
)  # fmt: skip
def test_numbers_may_be_text(score, read_as):
    text = f"Sure:\n{VERDICT.replace(': 1', f': {score}')}"
    if read_as is None:
        with pytest.raises(ValueError, match="score: "):
            read_object(text, Verdict)
    else:
        assert read_object(text, Verdict).score == read_as


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes, there is a dog.", "yes"), ("No - the dog is brown", "no"), ("Answer: yes", "yes"), ("No.", "no"),
        ("<think>x</think>yes", "yes"), ("<think>No. Or yes?</think>\nNo", "no"), ("**Yes**", "yes"), ('"NO"', "no"),
        ("_no_", "no"), ("Yes, there is no dog but a cat.", "yes"), ("Yes, the sign says no.", "yes"),
        ("No, it is not.", "no"), ("No there is none", "no"),
        ("The answer is: **No**.", "no"), ("```\nyes\n```", "yes"),
        ("The dog is brown.\nYes", "yes"), ("I see a dog. Final answer: yes.", "yes"), ('{"answer": "Yes"}', "yes"),
        ('{"answer": false}', "no"), ("Yes\r\n", "yes"), ("<|begin_of_box|>no<|end_of_box|>", "no"),
    ],
)  # fmt: skip
def test_yes_and_no_in_other_words(text, answer):
    assert read_yes_no(text) == answer


@pytest.mark.parametrize(
    "text",
    ["", "yes and no", "Yes/No", "yes or no?", "Yes. No.", "No, yes.", "Yes... wait, no.", "unknown", "nope", "No dog",
     "Yesterday", "There may be one.", "<think>yes", "Yes.\nAnswer: no", '{"a": "yes", "b": "no"}', "no one is there"],
)  # fmt: skip
def test_neither_and_both_are_no_answer(text):
    with pytest.raises(ValueError, match="expected yes or no") as error:
        read_yes_no(text)
    assert type(error.value) is ValueError


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("yes\nno", ["yes", "no"]), ("1. Yes\n2. No, none", ["yes", "no"]), ("- yes\n- **no**", ["yes", "no"]),
        ("<think>\nyes\nno\nyes\n</think>\nyes\nno", ["yes", "no"]), ("```\nyes\nno\n```", ["yes", "no"]),
        ("Q1: yes\nQ2: no", ["yes", "no"]), ("yes, no", ["yes", "no"]), ('["yes", "no"]', ["yes", "no"]),
        ("Answer 1: yes\r\nAnswer 2: no", ["yes", "no"]), ("No one is there\nyes。", ["no", "yes"]),
        ("Yes, the sign says no.\nNo, it says yes", ["yes", "no"]),
    ],
)  # fmt: skip
def test_answers_one_a_line(text, answers):
    assert read_yes_no_list(text, 2) == answers


@pytest.mark.parametrize(
    "text",
    ["yes", "yes\nno\nyes", "yes and no\nno", "yes/no\nno", "2. yes\n1. no", "", "- yes\nNo more", "yes/no"],
)
def test_lists_that_are_no_answer(text):
    with pytest.raises(ValueError) as error:
        read_yes_no_list(text, 2)
    assert type(error.value) is ValueError


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_in_prose_are_refusals(text):
    for parse in (read, read_yes_no, lambda text: read_yes_no_list(text, 2)):
        with pytest.raises(RefusedError):
            parse(text)


@given(st.text(alphabet="{}[]\"':, \n`yesnoimag_ab1", max_size=60))
def test_no_text_breaks_a_reader(text):
    """And what the official rules take is read as they read it."""
    lists = (lambda t: read_yes_no_list(t, 1), lambda t: extract_yes_no(t, 1))
    for tolerant, strict in ((read, official), (read_yes_no, parse_yes_no), lists):
        try:
            value = tolerant(text)
        except ValueError:
            continue
        with contextlib.suppress(ValueError):
            assert strict(text) == value


def test_a_thought_in_a_value_is_part_of_the_value():
    whole = {"expected_text": "<think>", "found_text": "</think> {}", "reasoning": "", "score": 0}
    assert read_object(json.dumps(whole), Verdict).found_text == "</think> {}"
