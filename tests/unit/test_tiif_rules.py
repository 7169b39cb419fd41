"""TIIF-Bench's rules: reading replies, tallies, columns; against the official code's outputs where they are present."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptecho.benchmarks.tiif.answers import AnswerCountError, extract_yes_no
from promptecho.benchmarks.tiif.attributes import ADVANCED, ATTRIBUTES, BASIC, COLUMNS, SUBSCORES, column_weights
from promptecho.benchmarks.tiif.golden import check_tiif_extract, check_tiif_summary
from promptecho.benchmarks.tiif.rules import AnswerCount, as_expected, column_scores, summarize, tally
from promptecho.errors import DataError
from promptecho.files import read_json, read_jsonl

# --- replies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "answers"),
    [
        ("yes\nno", ["yes", "no"]),
        ("  Yes, it is.\r\n\n\tNO - none\r\n", ["yes", "no"]),
        ("Sure! Here you are:\nyes\nThe reason is plain.\nno", ["yes", "no"]),
        ("No one is there\nyes。", ["no", "yes"]),
        ("no\nno/yes", ["no", "no"]),
    ],
)
def test_lines_that_begin_with_yes_or_no_are_answers(reply, answers):
    assert extract_yes_no(reply, 2) == answers


@pytest.mark.parametrize(
    "reply", ["", "yesterday\nnope", "1. yes\n- no", '"yes"\n**no**', "yes_\nno2", "是\n否", "Answer: yes\nAnswer: no"]
)
def test_other_lines_are_none(reply):
    assert extract_yes_no(reply, 0) == []


@pytest.mark.parametrize("reply", ["yes", "yes\nno\nyes", "yes\rno", "yes, and no"])
def test_another_number_of_answers_is_no_answer(reply):
    with pytest.raises(AnswerCountError, match=r"\d lines begin with yes or no, 2 questions"):
        extract_yes_no(reply, 2)


@given(st.lists(st.sampled_from(["yes", "no"])), st.lists(st.sampled_from(["", "  ", "so be it", "- yes", "not"])))
def test_answers_survive_noise_between_them(answers, noise):
    lines = [line for pair in zip(answers, [*noise, *[""] * len(answers)], strict=False) for line in pair]
    assert extract_yes_no("\n".join(lines), len(answers)) == answers


# --- rules ---------------------------------------------------------------------------------------------------------


def test_attributes_are_the_official_39():
    assert len(set(ATTRIBUTES)) == len(ATTRIBUTES) == 39
    assert sum(len(SUBSCORES[name]) for name in BASIC) == 12
    assert sum(len(SUBSCORES[name]) for name in ADVANCED) == 26
    assert len(SUBSCORES) == 9


def test_case_and_space_do_not_count_and_the_longer_list_is_cut():
    assert as_expected(["Yes", " no ", "yes"], ["yes", "NO", "no"]) == [True, True, False]
    assert tally(["yes", "no"], ["yes"]) == AnswerCount(1, 1)
    assert tally(["yes"], []) == AnswerCount(0, 0)
    with pytest.raises(DataError, match="1 answer to 2 questions"):
        tally(["yes", "no"], ["yes"], mode="fixed")


def test_official_rounds_before_it_averages():
    tallies = {"numeracy": AnswerCount(1, 3), "negation": AnswerCount(2, 3)}
    assert column_scores(tallies)["reas"] == pytest.approx((0.3333 + 0.6667) / 2, abs=1e-15)
    thirds = {"numeracy": AnswerCount(1, 3), "negation": AnswerCount(1, 3)}
    assert column_scores(thirds)["overall"] == 0.3333
    assert column_scores(thirds, "fixed")["overall"] == pytest.approx(1 / 3, abs=1e-15)


def test_averages_are_of_attributes_and_overall_of_sub_scores():
    tallies = {attribute: AnswerCount(k, 50) for k, attribute in enumerate(ATTRIBUTES)}
    accuracy = {attribute: k / 50 for k, attribute in enumerate(ATTRIBUTES)}
    columns = column_scores(tallies)
    assert list(columns) == list(COLUMNS)
    for name, attributes in SUBSCORES.items():
        assert columns[name] == pytest.approx(fmean(accuracy[a] for a in attributes))
    for name, parts in (("basic_avg", BASIC), ("advanced_avg", ADVANCED)):
        assert columns[name] == pytest.approx(fmean(accuracy[a] for part in parts for a in SUBSCORES[part]))
    assert columns["overall"] == pytest.approx(fmean(columns[name] for name in SUBSCORES))
    # The usual mistake: the mean of five sub-scores.
    assert columns["advanced_avg"] != pytest.approx(fmean(columns[name] for name in ADVANCED), abs=1e-3)


def test_what_has_no_data_is_left_out_and_never_zero():
    tallies = {"numeracy": AnswerCount(3, 4), "negation": AnswerCount(0, 0), "text": AnswerCount(1, 2)}
    columns = column_scores(tallies)
    assert columns == {
        "overall": 0.625, "reas": 0.75, "basic_avg": 0.75, "text": 0.5, "advanced_avg": 0.5
    }  # fmt: skip
    with pytest.raises(DataError, match="'negation' failed"):
        column_scores(tallies, "fixed")
    with pytest.raises(DataError, match="'negatoin' is unknown"):
        column_scores({"negatoin": AnswerCount(1, 2)})
    assert column_scores({}) == {}


def test_the_summary_tells_both_lengths_and_what_they_cover():
    tallies = {
        ("short", "text"): AnswerCount(1, 2),
        ("short", "style"): AnswerCount(1, 1),
        ("long", "text"): AnswerCount(1, 4),
    }
    summary = summarize(tallies)
    assert summary["short.overall"] == 0.75 and summary["long.overall"] == 0.25 and summary["overall"] == 0.5
    assert summary["short.coverage"] == 2 / 39 and summary["long.coverage"] == 1 / 39
    assert "long.style" not in summary and "short.attr" not in summary
    with pytest.raises(DataError, match="long prompts"):
        summarize({("short", "text"): AnswerCount(1, 2), ("long", "text"): AnswerCount(0, 0)})


@given(st.sets(st.sampled_from(ATTRIBUTES)))
def test_weights_of_a_column_sum_to_one(present):
    weights = column_weights(present)
    assert ("overall" in weights) == bool(present)
    for column, of in weights.items():
        assert math.isclose(sum(of.values()), 1), column
        assert set(of) <= present


@given(
    st.dictionaries(
        st.sampled_from(ATTRIBUTES),
        st.integers(0, 40).flatmap(lambda n: st.builds(AnswerCount, st.integers(0, n), st.just(n))),
        min_size=1,
    )
)
def test_modes_differ_by_rounding_alone(tallies):
    official = column_scores(tallies)
    there = {attribute: found for attribute, found in tallies.items() if found.total}
    fixed = column_scores(there, "fixed")
    assert official.keys() == fixed.keys()
    for column, value in official.items():
        assert 0 <= value <= 1 + 1e-12
        assert abs(value - fixed[column]) <= 5.001e-5


# --- the official code's outputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "check"), [("extract_yes_no", check_tiif_extract), ("summary", check_tiif_summary)])
def test_golden_cases_are_reproduced(golden_folder, name, check):
    cases = read_jsonl(golden_folder / "tiif" / f"{name}.jsonl")
    problems = {case["id"]: check(case) for case in cases}
    assert len(cases) > 5
    assert {key: found for key, found in problems.items() if found} == {}


def test_checks_tell_what_differs():
    case = {"model_output": "yes\nno", "n_questions": 2, "expected": {"preds": ["yes", "yes"]}}
    assert check_tiif_extract(case) == ["preds: expected ['yes', 'yes'], found ['yes', 'no']"]
    case["expected"] = {"error": "OutputFormatError", "message": "Preds count 2 != questions count 3"}
    assert len(check_tiif_extract(case)) == 3
    expected = {
        "accuracy_4dp": {"text/short": 1.0, "text/long": None, "Mean_Accuracy": 1.0},
        "total": {"text/short": 3, "text/long": None},
        "correct": {"text/short": 2, "text/long": None},
        "groups": {"Advanced_Text Generation - Text Generation": {"short": None, "long": None}},
    }
    case = {"answers": {"m": {"text": {"short": {"0": "yYn|YnN"}}}}, "expected": {"m": expected}}
    told = check_tiif_summary(case)
    assert told == [
        "m: accuracy_4dp Mean_Accuracy: expected 1.0, found 0.6667",
        "m: accuracy_4dp text/short: expected 1.0, found 0.6667",
        "m: Advanced_Text Generation - Text Generation, short: expected None, found 0.6667",
    ]


def test_published_rows_follow_from_the_sub_scores(shared):
    """The columns' definitions against the paper's own numbers, to its rounding."""
    rows = read_json(shared / "benchmarks" / "paper_tables.json")["table4_tiif"]
    checked = 0
    for row in rows.values():
        for length in ("short", "long"):
            if not all(isinstance(row.get(name), dict) for name in ("overall", *SUBSCORES)):
                continue
            overall = fmean(row[name][length] for name in SUBSCORES)
            basic = fmean(row[name][length] for name in BASIC)
            weights = column_weights(ATTRIBUTES)["advanced_avg"]
            advanced = sum(sum(weights[a] for a in SUBSCORES[name]) * row[name][length] for name in ADVANCED)
            assert overall == pytest.approx(row["overall"][length], abs=0.06)
            assert basic == pytest.approx(row["basic_avg"][length], abs=0.11)
            assert advanced == pytest.approx(row["advanced_avg"][length], abs=0.11)
            checked += 1
    assert checked >= 8
