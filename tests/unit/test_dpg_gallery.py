"""DPG-Bench over the gallery: what its prompts ask, what the oracle answers, and a folder of grids end to end."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from promptecho.benchmarks.dpg.gallery import CLAUSES, dpg_rows, questions_of, write_dpg_questions
from promptecho.benchmarks.dpg.gallery_oracle import GALLERY_VQA
from promptecho.benchmarks.dpg.layout import DpgLayout
from promptecho.benchmarks.dpg.questions import COLUMNS, parse_questions, read_rows
from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.errors import DataError
from promptecho.gallery.captions import (
    FACTS,
    WORDINGS,
    corrupt_dense,
    dense_scene_of,
    parse_dense,
    random_dense_claim,
    write_dense,
    wrong_kinds,
)
from promptecho.gallery.drawing import draw_scene
from promptecho.gallery.look_oracle import DetectedThing
from promptecho.gallery.scenes import Appearance
from promptecho.shapes.world import NUMBERS, RELATIONS


def drawn(claim, rng) -> Image.Image:
    return draw_scene(dense_scene_of(claim, rng), rng)


def answers_by_category(claim, image) -> dict[str, set[str]]:
    """The answers to a claim's questions about an image, by L2 category."""
    rows = questions_of(claim)
    found: dict[str, set[str]] = {}
    for row, answer in zip(
        rows, GALLERY_VQA.answers(image, [row["question_natural_language"] for row in rows]), strict=True
    ):
        found.setdefault(row["tuple"].split("(")[0].strip(), set()).add(answer)
    return found


def test_prompts_have_the_clauses_of_their_tag_and_questions_for_all_that_they_say(tmp_path):
    assert write_dpg_questions(8, 0, tmp_path / "q.csv") == 32
    rows = read_rows(tmp_path / "q.csv")
    cells = [row.cells for row in rows]
    assert cells == dpg_rows(8, 0) and cells[0] == cells[1] and cells[:9] != dpg_rows(1, 1)[:9]
    assert {tuple(row) for row in cells} == {COLUMNS}
    texts = {row["item_id"]: row["text"] for row in cells}
    assert list(texts) == [f"{tag}_{n}" for tag in CLAUSES for n in range(8)] and len(set(texts.values())) == 32
    wordings = set()
    for item_id, text in texts.items():
        claim = parse_dense(text)
        assert claim.clauses == CLAUSES.index(item_id.split("_")[0]) + 1
        asked = [{key: row[key] for key in COLUMNS[2:]} for row in cells[1:] if row["item_id"] == item_id]
        assert asked == questions_of(claim)
        wordings |= {wording for wording in range(WORDINGS) if write_dense(claim, wording) == text}
    assert wordings == set(range(WORDINGS))
    assert {question.category for question in parse_questions(rows)} == {
        "entity - whole", "attribute - color", "attribute - size", "attribute - texture", "other - count",
        "relation - spatial", "other - negation", "global -",
    }  # fmt: skip


def test_a_true_scene_answers_all_questions_yes():
    rng = np.random.default_rng(0)
    for _ in range(40):
        claim = random_dense_claim(rng)
        found = answers_by_category(claim, drawn(claim, rng))
        assert set().union(*found.values()) == {"yes"}, (claim, found)


WRONG = {  # categories of the questions that are answered no, and those that may be besides
    "object": ({"entity - whole"}, {"attribute", "other - count", "relation"}),
    "color": ({"attribute - color"}, set()),
    "swap": ({"attribute - color"}, set()),
    "count": ({"global -"}, {"other - count"}),
    **{direction: ({"relation - spatial"}, set()) for direction in RELATIONS},
    "missing": ({"entity - whole", "global -"}, {"attribute"}),
    "size": ({"attribute - size"}, set()),
    "texture": ({"attribute - texture"}, set()),
    "negation": ({"other - negation"}, set()),
}


@pytest.mark.parametrize("kind", FACTS)
def test_one_wrong_fact_turns_its_question_to_no(kind):
    """A scene, and the questions of a prompt that says one thing that is not so."""
    rng, tried = np.random.default_rng(FACTS.index(kind)), 0
    while tried < 4:
        claim = random_dense_claim(rng)
        if kind not in wrong_kinds(claim):
            continue
        wrong = corrupt_dense(claim, rng, kind)
        changed = [b for a, b in zip(claim.groups, wrong.groups, strict=False) if a != b]
        if kind == "texture" and changed[0].texture is None:
            continue  # what is not said is not asked
        if sum(group.count for group in wrong.groups) >= len(NUMBERS):
            continue  # more than any prompt names
        tried += 1
        found = answers_by_category(wrong, drawn(claim, rng))
        no = {category for category, answers in found.items() if "no" in answers}
        surely, perhaps = WRONG[kind]
        assert surely <= no, (claim, wrong, found)
        assert all(any(category.startswith(start) for start in perhaps) for category in no - surely), (wrong, found)
        if kind == "count":
            assert ("other - count" in no) == (changed[0].count > 1)


def test_a_malformed_thing_is_of_no_shape_but_is_an_object():
    box = (10.0, 10.0, 26.0, 26.0)
    blob = DetectedThing(Appearance("circle", "red"), box, 0.3)
    star = DetectedThing(Appearance("star", "blue", "small"), (30.0, 10.0, 42.0, 22.0), 1.0)
    expected = {
        "Is there a circle?": False, "Is there no circle?": True, "Is there no red object?": False,
        "Is the circle red?": False, "Is the star to the right of the circle?": False, "Is the star small?": True,
        "Are the stars blue?": True, "Does the image show exactly two objects?": True,
    }  # fmt: skip
    assert {question: GALLERY_VQA.read(question)([blob, star]) for question in expected} == expected


@pytest.mark.parametrize("text", ["Is there a cube?", "Is the circle medium?", "Is there no object?", ""])
def test_other_questions_are_an_error(text):
    with pytest.raises(DataError, match="backend gallery: the question .* is not one about scenes of the gallery; use"):
        GALLERY_VQA.read(text)


def test_a_folder_of_grids_is_scored(tmp_path):
    source, root = tmp_path / "q.jsonl", tmp_path / "images"
    write_dpg_questions(1, 0, source)
    layout, rng = DpgLayout(source, root, 4), np.random.default_rng(0)
    for p, text in enumerate(layout.texts):
        for i in range(4):
            layout.image_path(p, i).parent.mkdir(parents=True, exist_ok=True)
            drawn(parse_dense(text), rng).save(layout.image_path(p, i))
    last = layout.ids.index("four_0")
    asked = len(questions_of(parse_dense(layout.texts[last])))
    denied = len(parse_dense(layout.texts[last]).absent)
    Image.new("RGB", (64, 64), (240, 240, 240)).save(layout.image_path(last, 3))
    layout.describe(range(len(layout.ids)))
    for mode in ("official", "fixed"):
        scorer = load_scorer("dpg", ScoringOptions("gallery", mode=mode))
        scored = scorer.score(ImageFolder(root, source, 4))
        assert scorer.judge_model == "the gallery's oracle"
        assert [item.outcome for item in scored.items] == [1.0] * 15 + [denied / asked]
        assert {"overall", "entity", "attribute", "other", "global", "l2:entity - whole"} <= set(scored.summary)
        assert scored.summary["global"] == (0.75 if mode == "official" else 15 / 16)
