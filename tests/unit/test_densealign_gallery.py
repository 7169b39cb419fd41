"""Pairs of images of dense captions: which one shows more, whatever the order, and two folders end to end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptecho.benchmarks.captions.dense import claim_of
from promptecho.benchmarks.captions.layout import CaptionsLayout
from promptecho.benchmarks.densealign.dense import fulfilment
from promptecho.benchmarks.densealign.facts import compare
from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.files import write_jsonl
from promptecho.gallery.captions import corrupt_dense, dense_scene_of, parse_dense, random_dense_claim, write_dense
from promptecho.gallery.drawing import draw_scene
from promptecho.gallery.look_oracle import DetectedThing, as_detected, judge_dense
from promptecho.gallery.scenes import SIZES, TEXTURES, Appearance
from promptecho.shapes.world import COLORS, SHAPES


def seen(*objects: str) -> list[DetectedThing]:
    """'red circle', 'small striped red circle', 'red circle broken', each further right than the one before."""
    found = []
    for index, text in enumerate(objects):
        words = text.split()
        broken = words[-1] == "broken"
        *said, color, shape = words[:-1] if broken else words
        size = next((word for word in said if word in SIZES), "medium")
        texture = next((word for word in said if word in TEXTURES), "plain")
        box = (12.0 * index, 20.0, 12.0 * index + 10, 30.0)
        found.append(DetectedThing(Appearance(shape, color, size, texture), box, 0.3 if broken else 1.0))
    return found


RANKED = {  # from best to worst, equal ones on one line
    "A small striped red ring.": [
        [seen("small striped red ring")],
        [seen("small striped red ring", "blue star"), seen("small striped red ring", "blue star broken")],
        [seen("striped red ring"), seen("small red ring"), seen("small striped blue ring")],
        [seen("red ring")],
        [seen("blue ring")],
        [seen()],
        [seen("small striped red ring broken"), seen("small striped red star")],
    ],
    "A red ring to the left of a black star. There is no cross.": [
        [seen("red ring", "black star"), seen("small red ring", "large black star")],
        [seen("striped red ring", "black star")],  # a texture that is not said: every fact holds, but not the claim
        [seen("red ring", "black star", "red circle")],
        [seen("black star", "red ring")],
        [seen("red ring", "black star", "red cross"), seen("black star", "red ring", "red circle")],
    ],
    "A small red circle and a large red circle.": [
        [seen("large red circle", "small red circle")],
        [seen("small red circle", "small red circle")],
    ],
    "An empty image.": [[seen()], [seen("red ring"), seen("red ring broken")], [seen("red ring", "red star")]],
}  # fmt: skip


@pytest.mark.parametrize("caption", RANKED)
def test_exact_then_more_facts_then_fewer_further_objects(caption):
    claim, lines = claim_of(caption), RANKED[caption]
    grades = [[fulfilment(claim, image) for image in line] for line in lines]
    assert all(len(set(line)) == 1 for line in grades), grades
    firsts = [line[0] for line in grades]
    assert firsts == sorted(set(firsts), reverse=True), firsts
    assert [grade.exact for grade in firsts] == [True] + [False] * (len(firsts) - 1)


things = st.lists(
    st.builds(
        lambda shape, color, size, texture, x, y, score: DetectedThing(
            Appearance(shape, color, size, texture), (x, y, x + 10.0, y + 10.0), score
        ),
        st.sampled_from(SHAPES), st.sampled_from(list(COLORS)[:3]), st.sampled_from(SIZES), st.sampled_from(TEXTURES),
        st.integers(0, 54).map(float), st.integers(0, 54).map(float), st.sampled_from([1.0, 1.0, 1.0, 0.3]),
    ),
    max_size=4, unique_by=lambda thing: thing.box,
)  # fmt: skip


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), things, things)
def test_comparison_is_symmetric_and_the_exact_image_is_never_beaten(seed, first, second):
    rng = np.random.default_rng(seed)
    claim = random_dense_claim(rng)
    exact = [as_detected(thing) for thing in dense_scene_of(claim, rng).things]
    other_side = {"image_a": "image_b", "image_b": "image_a", "tie": "tie"}
    grades = [fulfilment(claim, found) for found in (first, second, exact, [*exact, *first[:1]], exact[1:])]
    for a in grades:
        for b in grades:
            assert compare(b, a) == other_side[compare(a, b)]
    assert judge_dense(claim, exact) and grades[2].exact and grades[2].extras == 0
    for found, grade in zip((first, second), grades, strict=False):
        assert compare(grades[2], grade) == ("tie" if judge_dense(claim, found) else "image_a")
    assert compare(grades[2], grades[4]) == "image_a"


def test_two_folders_are_compared(tmp_path):
    rng = np.random.default_rng(0)
    claims = [random_dense_claim(rng) for _ in range(12)]
    captions = [write_dense(claim, p % 4) for p, claim in enumerate(claims)] + ["A circle and a red circle."]
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, [{"data_id": f"d/{p}", "caption": text} for p, text in enumerate(captions)])
    shown = {
        "candidate": [*claims[:10], *(corrupt_dense(claim, rng, "object") for claim in claims[10:])],
        "baseline": [*(corrupt_dense(claim, rng, "object") for claim in claims[:8]), *claims[8:]],
    }
    for side, drawn in shown.items():
        layout = CaptionsLayout(prompts, tmp_path / side, 1)
        (tmp_path / side).mkdir()
        for p, claim in enumerate([*drawn, parse_dense("A red circle.")]):
            draw_scene(dense_scene_of(claim, rng), rng).save(layout.image_path(p, 0))
        layout.describe(range(len(captions)))
    scorer = load_scorer("densealign", ScoringOptions("gallery"))
    scored = scorer.score(ImageFolder(tmp_path / "candidate", prompts, 1, tmp_path / "baseline"))
    assert scorer.judge_model == "the gallery's oracle"
    assert [item.outcome for item in scored.items] == [1.0] * 8 + [0.0] * 2 + [-1.0] * 2 + [None]
    assert scored.items[-1].failed and "names circle twice" in scored.raw[-1]["reason"]
    assert {row["swapped"] for row in scored.raw} == {True, False}
    assert scored.raw[0]["reason"].count(", exact") == 1 and scored.summary["net"] == 6 / 12
    assert set(scored.raw[0]["objects"]) == {"candidate", "baseline"}
