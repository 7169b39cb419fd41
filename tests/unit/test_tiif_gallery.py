"""TIIF-Bench over the gallery: generated prompts, what the oracles answer, and a tree of images end to end."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.benchmarks.tiif.attributes import ATTRIBUTES, SUBSCORES, column_weights
from promptecho.benchmarks.tiif.gallery import KINDS, describe, tiif_prompts, write_tiif_prompts
from promptecho.benchmarks.tiif.gallery_oracle import GALLERY_ORACLE
from promptecho.benchmarks.tiif.layout import TiifLayout
from promptecho.benchmarks.tiif.prompts import TiifPrompt, read_prompts
from promptecho.errors import DataError
from promptecho.gallery.captions import DenseGroup, corrupt_dense, dense_scene_of, parse_dense, wrong_kinds
from promptecho.gallery.drawing import draw_poster, draw_scene
from promptecho.gallery.look_oracle import DetectedThing
from promptecho.gallery.posters import Poster, is_poster_prompt, misspell, parse_prompt
from promptecho.gallery.scenes import Appearance, NoRoom
from promptecho.gallery.words import is_held_out
from promptecho.shapes.world import COLORS

BLANK = Image.new("RGB", (64, 64), (240, 240, 240))


def read(description: str):
    return parse_prompt(description) if is_poster_prompt(description) else parse_dense(description)


def drawn(subject, rng) -> Image.Image:
    if isinstance(subject, Poster):
        return draw_poster(subject, rng)
    return draw_scene(dense_scene_of(subject, rng, attempts=60), rng)


def missed(asked, image) -> list[str]:
    """The questions whose answer about an image is not the expected one."""
    questions = [question for question, _ in asked]
    answers = GALLERY_ORACLE.answers(image, questions)
    return [question for (question, expected), answer in zip(asked, answers, strict=True) if answer != expected]


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(sorted(KINDS)))
def test_true_images_get_the_expected_answers_and_descriptions_say_what_is_asked_for(seed, attribute):
    rng = np.random.default_rng(seed)
    subject = KINDS[attribute][0](rng)
    assert missed(KINDS[attribute][1](subject), drawn(subject, rng)) == []
    short, long = describe(subject)
    assert read(short) == read(long) == subject and len(short) < len(long)


# What may be made wrong for an attribute, of the facts of promptecho.gallery.captions, so that a question is about it.
CHANGES = {
    "shape+color": ("object", "color", "swap"),
    "color+texture": ("object", "color"),
    "texture+color": ("object", "color", "texture"),
    "shape+texture": ("object", "texture"),
    "2d_spatial_relation": ("object", "relation"),
    "numeracy": ("object", "count"),
    "negation": ("object", "negation"),
    "differentiation": ("size", "object"),
    "comparison": ("object", "size"),
    "color+2d": ("color", "swap", "relation"),
    "shape+2d": ("object", "color", "relation"),
    "texture+2d": ("texture", "relation"),
    "numeracy+color": ("count", "color"),
    "numeracy+texture": ("count", "texture"),
    "comparison+color": ("color", "size"),
    "comparison+texture": ("texture", "object"),
    "differentiation+color": ("color", "object"),
    "differentiation+texture": ("texture", "object"),
    "negation+color": ("color", "negation"),
    "negation+texture": ("texture", "negation"),
    "numeracy+2d": ("count", "relation"),
    "comparison+2d": ("size", "relation"),
    "differentiation+2d": ("color", "relation"),
    "negation+2d": ("negation", "relation"),
    "real_world": ("object", "count", "color", "missing"),
}
ABOUT = {  # the questions that a change may cost
    "color": rf"{'|'.join(COLORS)}|of different colors",
    "swap": "|".join(COLORS),
    "texture": "striped|dotted|of different textures",
    "size": "small|large|bigger|of different sizes",
    "count": "number of|Is there a|Are there",
    "missing": "number of objects",
    "negation": "Is there a",
    "relation": "left of|right of|above|below",
    "object": ".",
}


def with_a_change(claim, kind, rng):
    """The claim of a picture that lacks one fact of another."""
    if kind == "negation":
        (name,) = claim.absent
        added = DenseGroup(1, "ring", name) if name in COLORS else DenseGroup(1, name, "black")
        return replace(claim, groups=(*claim.groups, added), absent=())
    return corrupt_dense(claim, rng, claim.relations[0][1] if kind == "relation" else kind)


def changeable(claim, kind) -> bool:
    return bool(claim.relations) if kind == "relation" else kind in wrong_kinds(claim)


@pytest.mark.parametrize("attribute", CHANGES)
def test_a_changed_fact_costs_its_question(attribute):
    draw, ask = KINDS[attribute]
    rng = np.random.default_rng(ATTRIBUTES.index(attribute))
    for kind in CHANGES[attribute]:
        for _ in range(200):
            claim = draw(rng)
            if not changeable(claim, kind):
                continue
            try:
                image = drawn(with_a_change(claim, kind, rng), rng)
            except NoRoom:
                continue
            lost = missed(ask(claim), image)
            assert lost and all(re.search(ABOUT[kind], question) for question in lost), (kind, claim, lost)
            break
        else:
            pytest.fail(f"{kind} of {attribute} is never said")


def test_a_misspelt_text_is_not_in_the_image_and_one_in_another_role_is():
    draw, ask = KINDS["text"]
    rng = np.random.default_rng(0)
    for _ in range(6):
        poster = draw(rng)
        assert all(is_held_out(word) for _, word in poster.texts)
        wrong = misspell(poster, rng)
        gone = {word for _, word in poster.texts} - {word for _, word in wrong.texts}
        assert missed(ask(poster), drawn(wrong, rng)) == [f"Is the text '{word}' in the image?" for word in gone]
    assert (
        missed(ask(Poster("red", (("main_title", "MOKA"),))), draw_poster(Poster("blue", (("subtitle", "MOKA"),))))
        == []
    )


def test_prompts_are_packed_prompts_of_every_attribute_that_this_world_can_show(tmp_path):
    assert set(CHANGES) | {"text"} == set(KINDS) <= set(ATTRIBUTES) and len(KINDS) == 26
    assert set(SUBSCORES) - set(column_weights(KINDS)) == {"style"}
    assert write_tiif_prompts(3, 5, tmp_path / "a") == write_tiif_prompts(3, 5, tmp_path / "b") == 78
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    prompts = read_prompts(tmp_path / "a")
    assert [prompt.row() for prompt in prompts] == tiif_prompts(3, 5) != tiif_prompts(3, 6)
    assert Counter(prompt.type for prompt in prompts) == dict.fromkeys(KINDS, 3)
    for prompt in prompts:
        GALLERY_ORACLE.check(prompt)
        assert len(set(prompt.questions)) == len(prompt.questions)
        subject = read(prompt.short_description)
        assert isinstance(subject, Poster) or sum(group.count for group in subject.groups) <= 6
    with pytest.raises(DataError, match="0 of each attribute; ask for 1 or more"):
        tiif_prompts(0, 0)


def test_neither_an_empty_image_nor_that_of_another_prompt_gets_much():
    """What no image of a prompt deserves: on an empty image what must not be there, at most half of the questions; on
    images of other prompts of the same attribute well below the 100 % of its own."""
    rng = np.random.default_rng(0)
    for attribute, (draw, ask) in KINDS.items():
        subjects = [draw(rng) for _ in range(8)]
        asked = [ask(subject) for subject in subjects]
        total = sum(map(len, asked))
        assert sum(len(missed(one, BLANK)) for one in asked) == sum(e == "yes" for one in asked for _, e in one)
        assert sum(e == "no" for one in asked for _, e in one) <= total / 2
        images = [drawn(subject, rng) for subject in subjects]
        lost = sum(len(missed(one, image)) for one, image in zip(asked, images[1:] + images[:1], strict=True))
        assert lost >= 0.3 * total, (attribute, lost, total)


def thing(shape, color, size="medium", texture="plain", x=10.0, score=1.0):
    return DetectedThing(Appearance(shape, color, size, texture), (x, 10.0, x + 14, 24.0), score)


RED = thing("circle", "red", "large")
DOTTED = thing("circle", "red", "small", "dotted", x=40.0)
SQUARE = thing("square", "blue", texture="striped")
BROKEN = thing("star", "blue", "small", score=0.3)


@pytest.mark.parametrize(
    ("question", "found", "expected"),
    [
        ("Is there a large red circle in the image?", [RED], "yes"),
        ("Is there a small dotted circle in the image?", [RED, DOTTED], "yes"),
        ("Is there a striped circle in the image?", [RED, DOTTED], "no"),
        ("Is there a star in the image?", [BROKEN], "no"),
        ("Is there a blue object in the image?", [BROKEN], "yes"),
        ("Is the number of objects 2?", [RED, BROKEN], "yes"),
        ("Are the circles dotted in texture?", [RED, DOTTED], "no"),
        ("Is the square striped in texture?", [SQUARE], "yes"),
        ("Is the circle large in size?", [SQUARE], "no"),
        ("Is the blue object in the shape of a square?", [SQUARE, RED], "yes"),
        ("Is the blue object in the shape of a star?", [BROKEN], "no"),
        ("Is the circle bigger than the square?", [RED, SQUARE], "yes"),
        ("Is the square bigger than the circle?", [RED, SQUARE], "no"),
        ("Is the circle bigger than the square?", [thing("circle", "red"), SQUARE], "no"),
        ("Is the circle bigger than the square?", [RED, DOTTED, SQUARE], "no"),
        ("Is the circle bigger than the star?", [RED, BROKEN], "no"),
        ("Are there two circles of different sizes in the image?", [RED, DOTTED], "yes"),
        ("Are there two circles of different textures in the image?", [RED, DOTTED], "yes"),
        ("Are there two circles of different colors in the image?", [RED, DOTTED], "no"),
    ],
)
def test_questions_mean_what_they_say(question, found, expected):
    assert GALLERY_ORACLE.answer(question, found) == expected


@pytest.mark.parametrize(
    "question", ["Is the circle medium in size?", "Is the circle red in texture?", "Is the text 'shop' in the image?"]
)
def test_other_questions_are_refused(question):
    with pytest.raises(DataError, match="not in the language of the gallery"):
        GALLERY_ORACLE.answer(question, [RED])
    prompt = TiifPrompt(
        type="text", index=0, short_description="s", long_description="l", questions=[question], answers=["no"]
    )
    with pytest.raises(DataError, match=r"it knows the gallery alone \(promptecho shapes tiif --world gallery\)"):
        GALLERY_ORACLE.check(prompt)


def test_a_tree_is_scored(tmp_path):
    source, root, rng = tmp_path / "p.jsonl", tmp_path / "images", np.random.default_rng(1)
    write_tiif_prompts(1, 0, source)
    layout = TiifLayout(source, root, 1)
    for p, text in enumerate(layout.texts):
        layout.image_path(p, 0).parent.mkdir(parents=True)
        drawn(read(text), rng).save(layout.image_path(p, 0))
    BLANK.save(layout.image_path(layout.ids.index("text/long/0"), 0))
    layout.describe(range(len(layout.ids)))
    scorer = load_scorer("tiif", ScoringOptions("gallery"))
    scored = scorer.score(ImageFolder(root, source, 1))
    assert scorer.judge_model == "the gallery's oracle"
    assert scored.summary["short.overall"] == 1.0 and scored.summary["long.text"] == 0.0
    assert scored.summary["long.overall"] == pytest.approx(7 / 8)
    assert scored.summary["short.coverage"] == 26 / 39 and "short.style" not in scored.summary
    assert {item.outcome for item in scored.items if item.group != "long:text"} == {1.0}
