"""DPG-Bench's questions and rules: the official question format, zeroing, categories, the golden scenarios."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptecho.benchmarks.dpg.golden import check_dpg_scenario
from promptecho.benchmarks.dpg.questions import (
    COLUMNS,
    DpgPrompt,
    DpgQuestion,
    parse_questions,
    prompts_of,
    read_rows,
    rows_digest,
)
from promptecho.benchmarks.dpg.rules import ItemFailure, check_mode, items_of, score_image, summarize
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_jsonl, write_jsonl


def cells(item_id: str, number: int | str, dependency: str = "0", tuple_: str = "entity - whole (x)", **more) -> dict:
    return {
        "item_id": item_id, "text": f"prompt {item_id}", "keywords": "", "proposition_id": str(number),
        "dependency": dependency, "category_broad": "", "category_detailed": "", "tuple": tuple_,
        "question_natural_language": f"Is {number} of {item_id} there?", **more,
    }  # fmt: skip


def write_csv(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_from(tmp_path: Path, *rows: dict):
    return read_rows(write_csv(tmp_path / "q.csv", list(rows)))


# --- the question file ---------------------------------------------------------------------------------------------


def test_csv_and_json_lines_are_the_same_questions(tmp_path):
    rows = [cells("007", 1), cells("007", 2, "1"), cells("b", 1, text='one, "two"\nthree')]
    from_csv = read_rows(write_csv(tmp_path / "q.csv", rows))
    write_jsonl(tmp_path / "q.jsonl", rows)
    from_jsonl = read_rows(tmp_path / "q.jsonl")
    assert [row.cells for row in from_csv] == [row.cells for row in from_jsonl] == rows
    assert rows_digest(from_csv) == rows_digest(from_jsonl) != rows_digest(from_csv[1:])
    assert prompts_of(from_csv) == [DpgPrompt("007", "prompt 007"), DpgPrompt("b", 'one, "two"\nthree')]
    assert [row.nth for row in from_csv] == [0, 1, 0]
    assert [q.parents for q in parse_questions(from_csv)] == [(0,), (1,), (0,)]


def test_numbers_in_json_lines_become_text(tmp_path):
    write_jsonl(tmp_path / "q.jsonl", [{**cells("x", 1), "item_id": 120, "proposition_id": 1, "dependency": 0}])
    (row,) = read_rows(tmp_path / "q.jsonl")
    assert (row.item_id, row.cells["dependency"]) == ("120", "0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_id": " "}, "item_id is empty"),
        ({"text": ""}, "text is empty"),
        ({"dependency": ""}, "dependency is empty"),
        ({"question_natural_language": ""}, "question_natural_language is empty"),
    ],
)
def test_empty_cells_that_matter_are_told(tmp_path, change, message):
    with pytest.raises(DataError, match=f"q.csv:3: {message}"):
        rows_from(tmp_path, cells("a", 1), {**cells("a", 2), **change})


def test_faulty_question_files(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "none.csv")
    (tmp_path / "short.csv").write_text("item_id,text\na,b\n")
    with pytest.raises(DataError, match="no column 'keywords'"):
        read_rows(tmp_path / "short.csv")
    (tmp_path / "empty.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(DataError, match="no questions"):
        read_rows(tmp_path / "empty.csv")
    (tmp_path / "ragged.csv").write_text(",".join(COLUMNS) + "\na,b,c\n")
    with pytest.raises(DataError, match="ragged.csv:2: 3 cells, but the first row names 9 columns"):
        read_rows(tmp_path / "ragged.csv")
    (tmp_path / "float.jsonl").write_text(json.dumps({**cells("a", 1), "item_id": 1.5}) + "\n")
    with pytest.raises(DataError, match="item_id is 1.5, no text"):
        read_rows(tmp_path / "float.jsonl")


def test_malformed_dependencies_name_their_rows(tmp_path):
    rows = rows_from(tmp_path, cells("a", 1), cells("a", 2, "5, right"), cells("a", "x"))
    for mode in ("official", "fixed"):
        with pytest.raises(DataError, match=r"q.csv:3: .*'5, right' is malformed.*q.csv:4: .*proposition_id 'x'"):
            items_of(rows, mode)
    assert len(prompts_of(rows)) == 1


def test_one_item_id_is_one_text(tmp_path):
    with pytest.raises(DataError, match="q.csv:3: item_id 'a' has another text"):
        prompts_of(rows_from(tmp_path, cells("a", 1), cells("a", 2, text="other")))
    rows = rows_from(tmp_path, cells("a", 1, text="a red  cup\n"), cells("a", 2, text="a red cup"))
    assert [prompt.text for prompt in prompts_of(rows)] == ["a red  cup"]  # the evaluator never looks at it


def test_the_official_prompts_and_the_real_annotations(shared):
    mirror = shared / "benchmarks" / "mirror" / "dpg"
    assert len({row["item_id"] for row in read_jsonl(mirror / "prompts.jsonl")}) == 1065
    rows = read_rows(mirror / "standin_dsg1k" / "dsg-1k-anns.csv")
    prompts = prompts_of(rows)
    assert (len(rows), len(prompts)) == (8182, 1060)
    with pytest.raises(DataError, match="'5, right' is malformed.*and 7 more rows"):
        parse_questions(rows)
    whole = []
    for row in rows:
        try:
            whole += parse_questions([row])
        except DataError:
            continue
    assert len(whole) == len(rows) - 10
    assert {question.broad for question in whole} == {"entity", "attribute", "relation", "other", "global"}


# --- the rules -----------------------------------------------------------------------------------------------------


def question(number: int, *parents: int, category: str = "entity - whole") -> DpgQuestion:
    return DpgQuestion(number, f"{number}?", parents or (0,), category, number - 1)


def test_only_exactly_yes_counts():
    questions = [question(n) for n in range(1, 6)]
    assert score_image(questions, ["yes", "Yes", "yes ", "yes.", ""], "official").counted == [1, 0, 0, 0, 0]


def test_officially_a_zero_reaches_only_what_comes_after_it():
    # 1 depends on 2, 2 on 3; 3 is no
    questions = [question(1, 2), question(2, 3), question(3)]
    answers = ["yes", "yes", "no"]
    assert score_image(questions, answers, "official").counted == [1, 0, 0]
    assert score_image(questions, answers, "fixed").counted == [0, 0, 0]
    assert score_image(questions[::-1], answers[::-1], "official").counted == [0, 0, 0]
    assert score_image(questions, answers, "fixed").answered == [1, 1, 0]


def test_a_missing_parent_fails_the_prompt_unless_officially_nobody_looks():
    questions = [question(2), question(3, 2, 1)]
    for mode in ("official", "fixed"):
        with pytest.raises(ItemFailure, match="question 3 depends on question 1"):
            score_image(questions, ["yes", "yes"], mode)
    assert score_image(questions, ["no", "yes"], "official").counted == [0, 0]
    with pytest.raises(ItemFailure):
        score_image(questions, ["no", "yes"], "fixed")
    with pytest.raises(ItemFailure, match="no questions"):
        score_image([], [], "official")


def test_questions_that_depend_on_each_other_in_a_circle():
    questions = [question(1, 2), question(2, 1), question(3, 3)]
    assert score_image(questions, ["yes", "yes", "yes"], "fixed").counted == [1, 1, 1]
    assert score_image(questions, ["yes", "no", "no"], "fixed").counted == [0, 0, 0]


def test_official_reading_drops_the_first_row_and_all_but_the_last_block(tmp_path):
    rows = rows_from(
        tmp_path, cells("a", 1), cells("a", 2, "1"), cells("b", 1), cells("b", 2), cells("c", 1), cells("b", 3)
    )
    official, fixed = items_of(rows, "official"), items_of(rows, "fixed")
    assert {name: [q.id for q in found] for name, found in official.items()} == {"a": [2], "b": [3], "c": [1]}
    assert official["b"][0].nth == 2
    assert {name: [q.id for q in found] for name, found in fixed.items()} == {"a": [1, 2], "b": [1, 2, 3], "c": [1]}
    assert "x" not in items_of(rows_from(tmp_path, cells("x", 1), cells("y", 1)), "official")


def test_repeated_rows_are_one_question_and_different_ones_of_a_number_an_error(tmp_path):
    twice = rows_from(tmp_path, cells("a", 1), cells("a", 1), cells("a", 2, "1"))
    assert [q.id for q in items_of(twice, "official")["a"]] == [1, 2]
    assert [q.id for q in items_of(twice, "fixed")["a"]] == [1, 2]
    with pytest.raises(DataError, match="q.csv:3: item_id 'a' has another question 1 at .*q.csv:2"):
        items_of(rows_from(tmp_path, cells("a", 1), cells("a", 1, "2"), cells("a", 2)), "fixed")


def test_categories():
    items = {"a": [question(1), question(2, 1, category="attribute - color")], "b": [question(1)]}
    images = {
        "a": [score_image(items["a"], answers, "official") for answers in (["yes", "yes"], ["no", "yes"])],
        "b": [score_image(items["b"], ["yes"], "official")],
        "c": [],
    }
    official, fixed = summarize(items, images, "official"), summarize(items, images, "fixed")
    assert official.overall == fixed.overall == fmean([0.5, 1.0])
    # the last image alone, before zeroing
    assert official.broad == {"attribute": 1.0, "entity": 0.5}
    assert official.detailed == {"attribute - color": 1.0, "entity - whole": 0.5}
    # all images, after zeroing
    assert fixed.broad == {"attribute": 0.5, "entity": fmean([1, 0, 1])}
    with pytest.raises(DataError, match="no image was scored"):
        summarize(items, {"c": []}, "fixed")


def test_unknown_mode():
    with pytest.raises(ConfigError, match="official and fixed"):
        check_mode("strict")


@st.composite
def asked(draw, forward: bool = False):
    """Questions and answers; with `forward` every parent comes before its children, as in a well-kept file."""
    n = draw(st.integers(1, 8))
    questions = []
    for number in range(1, n + 1):
        others = [m for m in range(1, number if forward else n + 1) if m != number]
        parents = draw(st.lists(st.sampled_from([0, *others]), min_size=1, max_size=3))
        questions.append(question(number, *parents))
    return questions, draw(st.lists(st.sampled_from(["yes", "no", "Yes"]), min_size=n, max_size=n))


@given(asked(), st.sampled_from(["official", "fixed"]))
def test_zeroing_only_takes_away(case, mode):
    questions, answers = case
    image = score_image(questions, answers, mode)
    assert all(counted <= answered for counted, answered in zip(image.counted, image.answered, strict=True))
    assert 0 <= image.score <= fmean(image.answered)
    if all(answer == "yes" for answer in answers):
        assert image.score == 1


@given(asked(), st.randoms(use_true_random=False))
def test_fixed_does_not_depend_on_the_order_of_rows(case, random):
    pairs = list(zip(*case, strict=True))
    shuffled = random.sample(pairs, len(pairs))

    def counted(rows) -> dict[int, float]:
        questions, answers = zip(*rows, strict=True)
        return dict(zip((q.id for q in questions), score_image(questions, answers, "fixed").counted, strict=True))

    assert counted(pairs) == counted(shuffled)


@given(asked())
def test_fixed_counts_what_and_all_whose_ancestors_are_yes(case):
    questions, answers = case
    yes = {q.id: answer == "yes" for q, answer in zip(questions, answers, strict=True)}
    parents = {q.id: set(q.parents) - {0} for q in questions}
    for q, counted in zip(questions, score_image(questions, answers, "fixed").counted, strict=True):
        needed, more = {q.id}, {q.id}
        while more:
            more = set().union(*(parents[number] for number in more)) - needed
            needed |= more
        assert counted == all(yes[number] for number in needed)


@given(asked(forward=True))
def test_where_parents_come_first_the_modes_agree(case):
    assert score_image(*case, "official") == score_image(*case, "fixed")


# --- golden --------------------------------------------------------------------------------------------------------


def test_golden_scenarios(golden_folder):
    golden = golden_folder / "dpg"
    cases = read_jsonl(golden / "scenarios.jsonl")
    assert len(cases) == 9
    assert {case["id"]: check_dpg_scenario(case, golden) for case in cases} == {case["id"]: [] for case in cases}


def test_golden_check_notices_every_kind_of_difference(golden_folder):
    golden = golden_folder / "dpg"
    case = read_jsonl(golden / "scenarios.jsonl")[0]
    expected = case["expected"]
    some = next(iter(expected["per_item"]))
    changes = [
        {"overall": expected["overall"] + 1e-6},
        {"l1": {**expected["l1"], "entity": 0.0}},
        {"l2": {}},
        {"failed": []},
        {"per_item": {**expected["per_item"], some: {"crop_scores": [0.0] * 4, "score": 0.0}}},
        {"per_item": {}},
    ]
    for change in changes:
        assert check_dpg_scenario({**case, "expected": {**expected, **change}}, golden), change
