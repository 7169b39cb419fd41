"""Rules of pairwise comparison: order, outcomes, rates, position bias, facts of a claim, the judge's reply."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptecho.benchmarks.captions.rules import claim_of
from promptecho.benchmarks.densealign.bias import analyse_position, position_bias
from promptecho.benchmarks.densealign.facts import compare, fulfilment
from promptecho.benchmarks.densealign.reply import Comparison, parse
from promptecho.benchmarks.densealign.rules import PREFERENCES, is_swapped, outcome_of, rates
from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.shapes.grammar import Claim, Group, corrupt, random_claim, scene_of
from promptecho.shapes.oracle import DetectedShape, detect, judge
from promptecho.shapes.render import render
from promptecho.shapes.world import COLORS, SHAPES

# --- order, outcome, rates -----------------------------------------------------------------------------------------


def test_the_seed_swaps_about_half():
    swaps = [is_swapped(0, f"prompt {p}", i) for p in range(2000) for i in range(2)]
    assert 0.47 < sum(swaps) / len(swaps) < 0.53  # 3.8 standard deviations
    again = [is_swapped(0, f"prompt {p}", i) for p in range(2000) for i in range(2)]
    other = [is_swapped(1, f"prompt {p}", i) for p in range(2000) for i in range(2)]
    assert swaps == again
    assert 0.47 < sum(a == b for a, b in zip(swaps, other, strict=True)) / len(swaps) < 0.53
    assert 0.45 < sum(a == b for a, b in zip(swaps[::2], swaps[1::2], strict=True)) / 2000 < 0.55  # images of a prompt


def test_outcomes_are_the_candidates():
    expected = {"image_a": (1, -1), "image_b": (-1, 1), "tie": (0, 0)}
    assert {p: (outcome_of(p, False), outcome_of(p, True)) for p in PREFERENCES} == expected
    for odd in ("Image_A", "", "a", None):
        with pytest.raises(DataError, match="expected image_a, image_b, tie"):
            outcome_of(odd, False)


@given(st.lists(st.sampled_from([1, 0, -1]), min_size=1))
def test_rates_come_from_counts(outcomes):
    found = rates(outcomes)
    assert found["net"] == sum(outcomes) / len(outcomes)
    assert found["win"] + found["tie"] + found["loss"] == pytest.approx(1)
    assert rates([-o for o in outcomes]) == {
        "net": -found["net"], "win": found["loss"], "tie": found["tie"], "loss": found["win"]
    }  # fmt: skip


def test_net_is_not_the_difference_of_printed_rates():
    found = rates([1] * 1065 + [-1] * 741 + [0] * 194)  # prints 53.2 (53.25) and 37.0 (37.05), net 16.2
    assert f"{found['net']:.3f}" == "0.162"
    with pytest.raises(DataError, match="no comparison has an outcome"):
        rates([])


# --- position bias -------------------------------------------------------------------------------------------------


def always(preference: str, n: int = 400) -> list[tuple[bool, int]]:
    return [(s := is_swapped(0, str(p), 0), outcome_of(preference, s)) for p in range(n)]


def test_a_judge_that_always_takes_the_first_image_is_biased_and_nets_about_nothing():
    found = analyse_position(always("image_a"))
    assert abs(rates([o for _, o in always("image_a")])["net"]) < 0.1
    assert found["n"] == 400 and found["first_position_rate"] == 1 and found["p_value"] < 1e-50
    assert found["unswapped"]["win"] == 1 and found["swapped"]["loss"] == 1
    assert analyse_position(always("image_b"))["first_position_rate"] == 0


def test_a_judge_that_looks_at_the_images_is_not_biased():
    rng = np.random.default_rng(0)
    fair = [(is_swapped(0, str(p), 0), int(rng.choice([1, 0, -1], p=[0.6, 0.1, 0.3]))) for p in range(2000)]
    found = analyse_position(fair)
    assert found["p_value"] > 0.05 and abs(found["first_position_rate"] - 0.5) < 0.04 and found["dof"] == 2
    assert found["unswapped"]["n"] + found["swapped"]["n"] == found["n"] == 2000


def test_the_test_is_pearsons_on_orders_and_outcomes():
    # by hand: rows 40 and 60 of 100, columns 50, 20, 30
    table = {(False, 1): 25, (False, 0): 5, (False, -1): 10, (True, 1): 25, (True, 0): 15, (True, -1): 20}
    found = analyse_position([key for key, count in table.items() for _ in range(count)])
    expected = {key: (40 if not key[0] else 60) * {1: 50, 0: 20, -1: 30}[key[1]] / 100 for key in table}
    chi2 = sum((table[key] - e) ** 2 / e for key, e in expected.items())
    assert found["chi2"] == pytest.approx(chi2) and found["dof"] == 2
    assert found["p_value"] == pytest.approx(np.exp(-chi2 / 2))  # the survival function of 2 degrees of freedom
    assert found["smallest_expected"] == pytest.approx(8)
    assert found["first_position_rate"] == (25 + 20) / (35 + 45)
    shares = {"win": 25 / 40, "tie": 5 / 40, "loss": 10 / 40}
    assert found["unswapped"] == {"n": 40, **shares, "first_position_rate": 25 / 35}


@pytest.mark.parametrize(
    ("comparisons", "defined"),
    [
        ([], False),
        ([(False, 1), (True, 1)], False),  # one sort of outcome
        ([(False, 1), (False, -1)], False),  # one order
        ([(False, 0), (True, 0)], False),
        ([(False, 1), (True, -1)], True),  # no ties: the empty column goes
    ],
)
def test_what_is_not_defined_is_none(comparisons, defined):
    found = analyse_position(comparisons)
    assert (found["p_value"] is not None) == defined
    decided = [o for _, o in comparisons if o]
    assert (found["first_position_rate"] is not None) == bool(decided)
    json.dumps(found, allow_nan=False)


def test_position_bias_is_read_from_raw_records(tmp_path):
    path = tmp_path / "10.raw.jsonl"
    rows = [{"swapped": s, "outcome": o, "failed": False} for s, o in always("image_a", 60)]
    write_jsonl(path, [*rows, {"swapped": True, "outcome": None, "failed": True}])
    assert position_bias(path) == {**analyse_position(always("image_a", 60)), "failed": 1}
    for odd in ({"swapped": True}, {"swapped": 1, "outcome": 1, "failed": False}, {**rows[0], "outcome": 2}):
        write_jsonl(path, [rows[0], odd])
        with pytest.raises(DataError, match=r"10\.raw\.jsonl: record 2 is no comparison"):
            position_bias(path)
    with pytest.raises(DataError, match="no such file"):
        position_bias(tmp_path / "none.jsonl")


def test_the_rules_load_nothing_heavy():
    code = (
        "import sys, promptecho.benchmarks.densealign.rules, promptecho.benchmarks.densealign.bias; "
        "print([m for m in ('numpy', 'scipy', 'PIL', 'torch', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- facts of a claim ----------------------------------------------------------------------------------------------


def compared(claim: Claim, a: list[DetectedShape], b: list[DetectedShape]) -> str:
    return compare(fulfilment(claim, a), fulfilment(claim, b))


def seen(*objects: str) -> list[DetectedShape]:
    """'red circle', 'red circle broken', each further right than the one before."""
    found = []
    for index, text in enumerate(objects):
        color, shape, *broken = text.split()
        found.append(DetectedShape(shape, color, (12.0 * index, 20.0, 12.0 * index + 10, 30.0), 0.3 if broken else 1.0))
    return found


RANKED = {  # from best to worst, equal ones on one line
    "Three blue squares.": [
        [seen("blue square", "blue square", "blue square")],
        [seen("blue square", "blue square", "blue square", "red ring"),
         seen("blue square", "blue square", "blue square", "red ring broken")],
        [seen("blue square", "blue square", "red square")],
        [seen("blue square", "blue square", "blue square", "blue square")],
        [seen("blue square", "blue square"), seen("red square", "red square", "red square")],
        [seen("blue square")],
        [seen()],
        [seen("red ring")],
        [seen("red ring", "red ring")],
    ],
    "A red ring to the left of a black star.": [
        [seen("red ring", "black star")],
        [seen("black star", "red ring"), seen("black ring", "black star"), seen("red ring", "red star")],
        [seen("black ring", "red star"), seen("black star", "blue ring")],
        [seen("red ring"), seen("black star")],
        [seen("blue ring")],
        [seen()],
        [seen("blue circle")],
    ],
    "A circle and a ring.": [
        [seen("red circle", "red ring"), seen("blue ring", "black circle")],
        [seen("red circle", "red ring", "red ring")],
        [seen("red circle"), seen("green ring")],
        [seen("red circle", "red star")],
    ],
    "An empty image.": [[seen()], [seen("red ring"), seen("red ring broken")], [seen("red ring", "red ring")]],
}  # fmt: skip


@pytest.mark.parametrize("caption", RANKED)
def test_more_facts_then_fewer_further_objects(caption):
    claim, lines = claim_of(caption), RANKED[caption]
    grades = [[fulfilment(claim, image) for image in line] for line in lines]
    assert all(len(set(line)) == 1 for line in grades), grades
    firsts = [line[0] for line in grades]
    assert firsts == sorted(set(firsts), reverse=True), firsts
    assert compared(claim, lines[0][0], lines[1][0]) == "image_a"
    assert compared(claim, lines[1][0], lines[0][0]) == "image_b"
    assert compared(claim, lines[0][0], lines[0][-1]) == "tie"


detections = st.lists(
    st.builds(
        lambda shape, color, x, y, score: DetectedShape(shape, color, (x, y, x + 10.0, y + 10.0), score),
        st.sampled_from(SHAPES[:3]), st.sampled_from(list(COLORS)[:3]), st.integers(0, 54).map(float),
        st.integers(0, 54).map(float), st.sampled_from([1.0, 1.0, 1.0, 0.3]),
    ),
    max_size=5, unique_by=lambda d: d.box,
)  # fmt: skip


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.booleans(), detections, detections)
def test_comparison_is_symmetric_and_the_exact_image_is_never_beaten(seed, colors, first, second):
    claim = random_claim(np.random.default_rng(seed), colors=colors)
    other_side = {"image_a": "image_b", "image_b": "image_a", "tie": "tie"}
    assert compared(claim, second, first) == other_side[compared(claim, first, second)]
    for a, b in ((first, second), (second, first)):
        if judge(claim, a) and not judge(claim, b):
            assert compared(claim, a, b) == "image_a"
    if judge(claim, first) and judge(claim, second):
        assert compared(claim, first, second) == "tie"


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_on_renders_the_right_one_wins(seed):
    rng = np.random.default_rng(seed)
    claim = random_claim(rng)
    wrong = corrupt(claim, rng)
    images = [detect(render(scene_of(shown, rng), rng)) for shown in (claim, wrong)]
    if judge(claim, images[0]) and judge(wrong, images[1]):  # the oracle misreads one render in some hundreds
        assert compared(claim, *images) == "image_a" and compared(claim, *images[::-1]) == "image_b"


def test_facts_of_a_claim_of_equal_shapes():
    claim = Claim((Group(1, "ring", "red"), Group(2, "ring", "blue")))
    assert fulfilment(claim, seen("red ring", "blue ring", "blue ring")).facts == 3 * 2 + 2
    assert fulfilment(claim, seen("red ring", "red ring", "red ring")).facts == 3 + 1 + 2
    assert fulfilment(claim, seen(*["blue ring"] * 4)).facts == 2 * 2 + 1  # neither number holds
    assert fulfilment(claim, seen(*["blue ring"] * 4)).extras == 1


# --- the judge's reply ---------------------------------------------------------------------------------------------

GOOD = '{"reasoning": "A shows all.", "preference": "image_a"}'


@pytest.mark.parametrize(
    "text",
    [GOOD, f"\n {GOOD}\n", f"```json\n{GOOD}\n```", f"```json \n{GOOD}\n```\n", GOOD.replace("{", "{\n"),
     f"```json\n{GOOD}\n  ```", GOOD.replace('"image_a"}', '"image_a", "confidence": 1}'), f"My answer: {GOOD}",
     f"{GOOD} That is all.", f"```\n{GOOD}\n```", f"```JSON\n{GOOD}\n```", f"Here:\n```json\n{GOOD}\n```",
     f"```json\n{GOOD}", f"<think>No.</think>{GOOD}", f"```json\n{GOOD}\n``` or ```json\n{{}}\n```",
     GOOD.replace("}", ', "preference": "image_b"}').replace('"image_a"', "1").replace("image_b", "image_a")],
)  # fmt: skip
def test_replies_that_are_read(text):
    """With `parser: official`."""
    assert parse(text) == Comparison(reasoning="A shows all.", preference="image_a")


def test_officially_reasoning_may_be_anything():
    assert parse('{"preference": "tie"}').reasoning == "" and parse('{"reasoning": 1, "preference": "tie"}')


@pytest.mark.parametrize(
    "text",
    ["", "image_a", "null", "[]", f"[{GOOD}]", f"{GOOD}{GOOD}", GOOD[:-1], f"<think>{{no}}</think>{GOOD}",
     GOOD.replace("image_a", "Image_A"), GOOD.replace("image_a", "image_a "), GOOD.replace("image_a", "A"),
     GOOD.replace('"image_a"', "1"), GOOD.replace('"image_a"', "null"), GOOD.replace('"image_a"', '["tie"]'),
     '{"reasoning": "x"}', "{'reasoning': 'x', 'preference': 'tie'}"],
)  # fmt: skip
def test_replies_that_are_none(text):
    with pytest.raises(ValueError) as error:
        parse(text)
    assert "\n" not in str(error.value) and type(error.value) is ValueError


def test_the_contract_is_in_the_template():
    from promptecho.benchmarks.templates import load_template

    text = load_template("densealign", "pairwise").fill(prompt="A red ring.")
    wanted = ["A red ring.", *PREFERENCES, *(f'"{key}"' for key in Comparison.model_fields), "Image A", "Image B"]
    assert Counter(word in text for word in wanted) == {True: len(wanted)}
