"""TIIF-Bench from files: official folders, packed prompts, the image tree, scores by the oracle."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from PIL import Image

from promptecho.benchmarks.registry import load_layout, load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.benchmarks.tiif.attributes import ATTRIBUTES
from promptecho.benchmarks.tiif.layout import METADATA, TiifLayout, image_path, list_images
from promptecho.benchmarks.tiif.prompts import pack, prompts_digest, read_prompts
from promptecho.benchmarks.tiif.scorer import items_of, summary_of
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import read_jsonl, write_jsonl
from promptecho.shapes.render import render
from promptecho.shapes.world import Scene, Thing
from promptecho.statistics import mean_of_group_means


def row(kind="shape+color", index=0, shape="circle", **changed):
    return {
        "type": kind,
        "index": index,
        "short_description": f"a photo of a red {shape}",
        "long_description": f"The image shows a red {shape}.",
        "questions": [
            f"Is there a {shape} in the image?  ",
            f"Is the {shape} red in color?",
            "Is there a ring in the image?",
        ],
        "answers": ["yes", "Yes", "no"],
    } | changed


ROWS = [row(), row(index=1, shape="square"), row("numeracy", shape="star")]


@pytest.fixture
def prompts(tmp_path):
    write_jsonl(tmp_path / "prompts.jsonl", ROWS)
    return tmp_path / "prompts.jsonl"


def draw(path, shape, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    render(Scene((Thing(shape, color, 30, 30, 12),))).save(path)


def generate(prompts, root):
    """All images as asked for, through the layout."""
    layout = TiifLayout(prompts, root, 1)
    for p, text in enumerate(layout.texts):
        draw(layout.image_path(p, 0), text.rstrip(".").split()[-1])
    layout.describe(range(len(layout.ids)))
    return layout


# --- prompts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count", "questions"), [("testmini", 277, 1446), ("test", 2538, 12160)])
def test_official_folders_are_packed_whole(shared, tmp_path, name, count, questions):
    mirror = shared / "benchmarks" / "mirror" / "tiif"
    out = tmp_path / f"{name}.jsonl"
    packed = pack(mirror / f"{name}_prompts", mirror / f"{name}_eval_prompts", out)
    assert len(packed) == count
    assert sum(len(prompt.questions) for prompt in packed) == questions
    assert {prompt.type for prompt in packed} == set(ATTRIBUTES)
    read = read_prompts(out)
    assert read == packed
    assert prompts_digest(read) != prompts_digest(read[::-1])
    layout = TiifLayout(out, tmp_path / "images", 1)
    assert len(layout.ids) == len(set(layout.ids)) == len(layout.texts) == 2 * count
    assert "text/short/12" in layout.ids
    if name == "testmini":
        assert Counter(prompt.type for prompt in packed)["real_world"] == 25
        assert all(p.text("short") == p.text("long") for p in packed if p.type == "real_world")
    lines = read_jsonl(mirror / f"{name}_eval_prompts" / "text_eval_prompts.jsonl")
    texts = [prompt for prompt in packed if prompt.type == "text"]
    assert [prompt.questions for prompt in texts] == [line["yn_question_list"] for line in lines]


def official(folder, name="numeracy", kind=None, count=2, questions=None):
    (folder / "prompts").mkdir(exist_ok=True, parents=True)
    (folder / "eval").mkdir(exist_ok=True)
    texts = [{"type": name, "short_description": f"s{i}", "long_description": f"l{i}"} for i in range(count)]
    asked = [
        {"type": kind or name, "yn_question_list": ["a?"], "yn_answer_list": ["yes"], "corrspond_idx": 7 - i}
        for i in range(count if questions is None else questions)
    ]
    write_jsonl(folder / "prompts" / f"{name}_prompts.jsonl", texts)
    write_jsonl(folder / "eval" / f"{name}_eval_prompts.jsonl", asked)
    return folder / "prompts", folder / "eval"


def test_lines_are_aligned_by_number(tmp_path):
    packed = pack(*official(tmp_path))
    assert [(p.type, p.index, p.short_description, p.long_description) for p in packed] == [
        ("numeracy", 0, "s0", "l0"),
        ("numeracy", 1, "s1", "l1"),
    ]


def test_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match="2 lines, .*numeracy_eval_prompts.jsonl 1; fetch"):
        pack(*official(tmp_path / "a", questions=1))
    with pytest.raises(DataError, match=r"numeracy_prompts.jsonl: prompt 0: type is not 'numeracy'"):
        pack(*official(tmp_path / "b", kind="text"))
    with pytest.raises(DataError, match="numeracy_prompts.jsonl: prompt 0: short_description"):
        prompts, asked = official(tmp_path / "c")
        write_jsonl(prompts / "numeracy_prompts.jsonl", [{"type": "numeracy", "long_description": "l"}] * 2)
        pack(prompts, asked)
    (tmp_path / "a" / "prompts" / "text_prompts.jsonl").write_text("")
    with pytest.raises(DataError, match="'text' has only one of its two files"):
        pack(tmp_path / "a" / "prompts", tmp_path / "a" / "eval")
    with pytest.raises(DataError, match="no such folder"):
        pack(tmp_path / "absent", tmp_path)
    with pytest.raises(DataError, match=r"no files \*_prompts.jsonl"):
        pack(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("changed", "culprit"),
    [
        ({"type": "../../escape"}, "type: '../../escape' is none of"),
        ({"type": "Text"}, "type: 'Text' is none of"),
        ({"index": -1}, "index"),
        ({"index": "0"}, "index"),
        ({"index": 5}, "shape\\+color 5 stands where shape\\+color 1 belongs"),
        ({"index": 0}, "shape\\+color 0 stands where shape\\+color 1 belongs"),
        ({"short_description": " "}, "short_description: is empty"),
        ({"questions": []}, "questions"),
        ({"answers": ["yes"]}, "3 questions and 1 answers"),
        ({"answers": ["yes", "maybe", "no"]}, "'maybe'; expected yes or no"),
        ({"answer": "yes"}, "answer: Extra inputs"),
    ],
)
def test_a_bad_prompt_names_file_and_line(tmp_path, changed, culprit):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join([json.dumps(ROWS[0]), "", json.dumps(row(index=1) | changed)]))
    with pytest.raises(DataError, match=culprit) as error:
        read_prompts(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_an_empty_prompt_file_is_an_error(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no prompts"):
        read_prompts(tmp_path / "prompts.jsonl")


# --- layout --------------------------------------------------------------------------------------------------------


def test_the_tree_is_the_official_one(prompts, tmp_path):
    layout = load_layout("tiif", prompts, tmp_path / "images", 1)
    assert layout.ids == [
        "shape+color/short/0",
        "shape+color/long/0",
        "shape+color/short/1",
        "shape+color/long/1",
        "numeracy/short/0",
        "numeracy/long/0",
    ]
    assert layout.texts[:2] == ["a photo of a red circle", "The image shows a red circle."]
    assert layout.image_path(3, 0) == tmp_path / "images/shape+color/model/long_description/1.png"
    with pytest.raises(ConfigError, match="images_per_prompt is 4"):
        TiifLayout(prompts, tmp_path, 4)


def test_the_listing_is_written_by_whoever_finishes_last(prompts, tmp_path):
    root = tmp_path / "images"
    layout = TiifLayout(prompts, root, 1)
    for p in range(len(layout.ids)):
        layout.describe([p])
        assert not (root / METADATA).exists()
        draw(layout.image_path(p, 0), "circle")
    layout.describe([5])
    assert read_jsonl(root / METADATA) == ROWS
    layout.remove_stale()
    assert (root / METADATA).is_file()
    layout.image_path(2, 0).unlink()
    layout.remove_stale()
    assert not (root / METADATA).exists()


def test_what_another_prompt_set_left_goes(prompts, tmp_path):
    root = tmp_path / "images"
    layout = generate(prompts, root)
    stale = [root / "text/model/short_description/0.png", root / "numeracy/model/long_description/1.png"]
    for path in stale:
        draw(path, "star")
    foreign = root / "text/elsewhere/short_description/0.png"
    draw(foreign, "star")
    write_jsonl(root / METADATA, ROWS[:1])
    layout.remove_stale()
    assert not any(path.exists() for path in stale) and not (root / METADATA).exists()
    assert foreign.exists() and all(layout.image_path(p, 0).is_file() for p in range(6))
    (root / METADATA).write_text("not ours\n")
    layout.remove_stale()
    assert not (root / METADATA).exists()


def test_images_are_listed_by_prompt_then_length(prompts, tmp_path):
    generate(prompts, tmp_path / "images")
    entries = list_images(tmp_path / "images")
    assert [(e.prompt.prompt_id, e.length) for e in entries[:3]] == [
        ("shape+color/0", "short"),
        ("shape+color/0", "long"),
        ("shape+color/1", "short"),
    ]
    assert entries[-1].group == "long:numeracy"
    assert list_images(tmp_path / "images", read_prompts(prompts)) == entries


def test_a_tree_from_elsewhere_needs_the_prompts_alone(prompts, tmp_path):
    root, read = tmp_path / "images", read_prompts(prompts)
    for prompt in read:
        for length in ("short", "long"):
            draw(image_path(root, prompt, length, "DALLE3"), "circle")
    assert len(list_images(root, read)) == 6
    with pytest.raises(DataError, match="metadata.jsonl: no such file; .* or give --prompts"):
        list_images(root)
    draw(image_path(root, read[0], "short", "other"), "circle")
    with pytest.raises(DataError, match=r"several models \(DALLE3, other\)"):
        list_images(root, read)


def test_faulty_trees_are_refused(prompts, tmp_path):
    root = tmp_path / "images"
    with pytest.raises(DataError, match="no such image folder"):
        list_images(root)
    layout = generate(prompts, root)
    draw(root / "numeracy/model/short_description/1.png", "star")
    with pytest.raises(DataError, match=r"numeracy/model/short_description/1\.png: no image of the 3 prompts"):
        list_images(root)
    layout.remove_stale()
    layout.image_path(4, 0).unlink()
    with pytest.raises(DataError, match=r"1 of 6 images missing: numeracy/model/short_description/0\.png; rerun"):
        list_images(root)
    write_jsonl(tmp_path / "others.jsonl", [ROWS[0], row(index=1, shape="star"), ROWS[2]])
    with pytest.raises(DataError, match=r"e\.g\. shape\+color/1; generate the images again"):
        list_images(root, read_prompts(tmp_path / "others.jsonl"))


# --- scores --------------------------------------------------------------------------------------------------------


def test_the_oracle_scores_a_tree(prompts, tmp_path):
    root = tmp_path / "images"
    layout = generate(prompts, root)
    draw(layout.image_path(2, 0), "square", "blue")  # shape+color/1, short: one question of three wrong
    draw(layout.image_path(5, 0), "ring")  # numeracy/0, long: all wrong
    scored = load_scorer("tiif", ScoringOptions("oracle")).score(ImageFolder(root, prompts, 1))
    assert scored.prompts_digest == prompts_digest(read_prompts(prompts))
    assert len(scored.items) == 18 and len({(i.prompt_id, i.image_index) for i in scored.items}) == 18
    outcomes = {(i.prompt_id, i.image_index): i.outcome for i in scored.items}
    assert [outcomes["shape+color/1", k] for k in range(6)] == [1, 0, 1, 1, 1, 1]
    assert [outcomes["numeracy/0", k] for k in range(6)] == [1, 1, 1, 0, 0, 0]
    assert scored.summary == {
        "overall": pytest.approx((0.91665 + 0.5) / 2),
        "short.overall": pytest.approx((0.8333 + 1) / 2),
        "short.attr": 0.8333,
        "short.reas": 1.0,
        "short.basic_avg": pytest.approx((0.8333 + 1) / 2),
        "short.coverage": 2 / 39,
        "long.overall": 0.5,
        "long.attr": 1.0,
        "long.reas": 0.0,
        "long.basic_avg": 0.5,
        "long.coverage": 2 / 39,
    }
    fixed = load_scorer("tiif", ScoringOptions("oracle", mode="fixed")).score(ImageFolder(root))
    assert fixed.summary["short.attr"] == pytest.approx(5 / 6, abs=1e-12)
    # Groups of a score file are what tables take intervals of, prompts their units.
    _, groups = mean_of_group_means(scored.items)
    assert groups["short:shape+color"].n_prompts == 2 and groups["short:shape+color"].n_items == 6
    assert groups["short:shape+color"].value == pytest.approx(5 / 6)


def test_raw_records_are_enough_to_aggregate_again(prompts, tmp_path):
    generate(prompts, tmp_path / "images")
    scored = load_scorer("tiif", ScoringOptions("oracle")).score(ImageFolder(tmp_path / "images"))
    raw = json.loads(json.dumps(scored.raw))
    items = [item for record in raw for item in items_of(record, "official")]
    assert items == scored.items
    assert summary_of(items, "official") == scored.summary


def test_an_image_without_answers_fails_with_all_its_questions(prompts, tmp_path):
    generate(prompts, tmp_path / "images")
    scored = load_scorer("tiif", ScoringOptions("oracle")).score(ImageFolder(tmp_path / "images"))
    lost = scored.raw[0] | {"failed": True, "answers": None, "reason": "refused"}
    items = [item for record in [lost, *scored.raw[1:]] for item in items_of(record, "official")]
    assert [(item.outcome, item.failed) for item in items[:4]] == [(None, True)] * 3 + [(1.0, False)]
    assert summary_of(items, "official")["short.attr"] == 1.0  # of the other prompt's
    alone = [items_of(record | {"failed": record["length"] == "short"}, "official") for record in scored.raw]
    with pytest.raises(DataError, match="short prompts was answered"):
        summary_of([item for found in alone for item in found], "official")


def test_wrong_options_are_refused(prompts, tmp_path):
    generate(prompts, tmp_path / "images")
    with pytest.raises(ConfigError, match="mode 'lenient': TIIF-Bench has official and fixed"):
        load_scorer("tiif", ScoringOptions("oracle", mode="lenient"))
    with pytest.raises(ModelError, match="'mplug' is unknown; known backends: judge, oracle"):
        load_scorer("tiif", ScoringOptions("mplug"))
    scorer = load_scorer("tiif", ScoringOptions("oracle"))
    with pytest.raises(ConfigError, match="images_per_prompt is 2"):
        scorer.score(ImageFolder(tmp_path / "images", images_per_prompt=2))
    with pytest.raises(ConfigError, match="nothing to estimate"):
        scorer.estimate(ImageFolder(tmp_path / "images"))


def test_the_oracle_refuses_questions_of_another_world(tmp_path):
    write_jsonl(tmp_path / "p.jsonl", [row(questions=["Is there a dog in the image?"], answers=["yes"])])
    generate(tmp_path / "p.jsonl", tmp_path / "images")
    with pytest.raises(DataError, match=r"shape\+color/0: the oracle does not understand 'Is there a dog"):
        load_scorer("tiif", ScoringOptions("oracle")).score(ImageFolder(tmp_path / "images"))


def test_a_damaged_image_is_named(prompts, tmp_path):
    layout = generate(prompts, tmp_path / "images")
    layout.image_path(0, 0).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"short_description/0\.png: not a readable image .* rerun the generation"):
        load_scorer("tiif", ScoringOptions("oracle")).score(ImageFolder(tmp_path / "images"))
    Image.new("RGB", (64, 64), (240, 240, 240)).save(layout.image_path(0, 0))
    assert load_scorer("tiif", ScoringOptions("oracle")).score(ImageFolder(tmp_path / "images")).items[0].outcome == 0
