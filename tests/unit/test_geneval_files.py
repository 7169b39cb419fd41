"""GenEval from files: prompts, image folder, perception backends, the score command."""

from __future__ import annotations

import json

import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from promptecho.benchmarks.geneval.backends import load_backend
from promptecho.benchmarks.geneval.layout import image_path, list_images
from promptecho.benchmarks.geneval.prompts import TAGS, prompts_digest, read_prompts
from promptecho.benchmarks.geneval.scorer import score_folder, summary_of
from promptecho.benchmarks.perception import PerceptionFailure
from promptecho.cli import app
from promptecho.errors import DataError, ModelError, PromptEchoError
from promptecho.files import read_jsonl
from promptecho.scores import read_scores
from promptecho.shapes.world import COLORS

PROMPTS = [
    {"tag": "single_object", "include": [{"class": "square", "count": 1}], "prompt": "a square"},
    {"tag": "colors", "include": [{"class": "square", "count": 1, "color": "red"}], "prompt": "a red square"},
    {
        "tag": "counting",
        "include": [{"class": "square", "count": 2}],
        "exclude": [{"class": "square", "count": 3}],
        "prompt": "two squares",
    },
]


def draw(path, color="red", squares=1):
    """Crisp squares on light grey, as the shapes world has them."""
    image = Image.new("RGB", (64, 64), (240, 240, 240))
    for k in range(squares):
        ImageDraw.Draw(image).rectangle((4 + 20 * k, 20, 17 + 20 * k, 33), fill=tuple(COLORS[color]))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def images(tmp_path):
    """Three prompts with two images each; the second image of the last prompt has a square too many."""
    root = tmp_path / "images"
    for number, row in enumerate(PROMPTS):
        for image in range(2):
            draw(image_path(root, number, image), squares=1 if number < 2 else 2 + image)
        (root / f"{number:05}" / "metadata.jsonl").write_text(json.dumps(row))
    (root / "metadata.jsonl").write_text("{}\n")  # other files beside the folders don't matter
    return root


def test_official_prompts_are_read_and_survive_a_round_trip(shared):
    path = shared / "benchmarks" / "mirror" / "geneval" / "evaluation_metadata.jsonl"
    prompts = read_prompts(path)
    assert len(prompts) == 553
    assert {tag: sum(p.tag == tag for p in prompts) for tag in TAGS} == dict(
        zip(TAGS, (80, 99, 80, 94, 100, 100), strict=True)
    )
    assert [p.metadata() for p in prompts] == read_jsonl(path)
    assert prompts_digest(prompts) != prompts_digest(prompts[::-1])


def clause(relation):
    return {"class": "a", "count": 1, "position": [relation, 0]}


@pytest.mark.parametrize(
    ("row", "culprit"),
    [
        ({"tag": "count", "include": [], "prompt": "x"}, "tag"),
        ({"tag": "colors", "include": [{"class": "cup", "count": 0}], "prompt": "x"}, "include.0.count"),
        ({"tag": "colors", "include": [{"class": "cup", "count": 1, "colour": "red"}], "prompt": "x"}, "colour"),
        ({"tag": "counting", "exlude": [], "prompt": "x"}, "exlude"),
        ({"tag": "position", "include": [clause("above")], "prompt": "x"}, "earlier"),
        ({"tag": "position", "include": [clause("near")], "prompt": "x"}, "position"),
    ],
)
def test_a_bad_prompt_names_file_and_line(tmp_path, row, culprit):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(PROMPTS[0]) + "\n\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError) as error:
        read_prompts(path)
    assert f"{path}:3: " in str(error.value)
    assert culprit in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_prompt_file_is_an_error(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no prompts"):
        read_prompts(tmp_path / "prompts.jsonl")


def test_images_are_listed_by_prompt_then_image(images):
    entries = list_images(images)
    assert [(e.prompt_index, e.image_index) for e in entries] == [(p, i) for p in range(3) for i in range(2)]
    assert entries[3].path == images / "00001" / "samples" / "00001.png"
    assert entries[3].prompt.prompt == "a red square"


def test_missing_images_are_named(images):
    image_path(images, 1, 0).unlink()
    with pytest.raises(DataError, match=r"1 of 6 images missing: 00001/samples/00000\.png; rerun"):
        list_images(images)


def test_trailing_gaps_are_seen_when_the_expectation_is_known(images, tmp_path):
    with pytest.raises(DataError, match=r"3 of 9 images missing: 00000/samples/00002\.png"):
        list_images(images, images_per_prompt=3)
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*PROMPTS, PROMPTS[0]]))
    with pytest.raises(DataError, match=r"2 of 8 images missing: 00003/samples/00000\.png"):
        list_images(images, read_prompts(path))


def test_images_of_other_prompts_are_refused(images, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [PROMPTS[1], PROMPTS[1], PROMPTS[2]]))
    with pytest.raises(DataError, match="'a square' is not number 0"):
        list_images(images, read_prompts(path))
    path.write_text(json.dumps(PROMPTS[0]) + "\n")
    with pytest.raises(DataError, match="00001.*more than the 1 prompts"):
        list_images(images, read_prompts(path))


def test_no_folder_and_no_images_are_errors(tmp_path):
    with pytest.raises(DataError, match="no such image folder"):
        list_images(tmp_path / "absent")
    with pytest.raises(DataError, match="no prompt folders"):
        list_images(tmp_path)


def test_backends_are_listed_when_a_name_is_unknown():
    with pytest.raises(ModelError, match="'yolo' is unknown; known backends: mask2former, oracle"):
        load_backend("yolo")


def test_the_oracle_refuses_objects_of_another_world():
    with pytest.raises(DataError, match="not bench, dog"):
        load_backend("oracle")(Image.new("RGB", (64, 64)), {"include": [{"class": "dog"}, {"class": "bench"}]})


def arguments(images, out, **changed):
    options = {
        "benchmark": "geneval",
        "backend": "oracle",
        "images": images,
        "out": out,
        "experiment": "shapes",
        "run": "promptecho-s1",
        "step": 10,
        "config-digest": "0011223344556677",
        "mode": "official",
    } | changed
    return ["score", *(str(part) for key, value in options.items() for part in (f"--{key}", value))]


def test_score_command_from_pixels_to_score_file(images, tmp_path):
    out = tmp_path / "scores" / "geneval" / "promptecho-s1" / "10.json"
    run = CliRunner().invoke(app, [*arguments(images, out), "--json"])
    assert run.exit_code == 0, run.output
    scores = read_scores(out)
    assert scores.summary["overall"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert scores.summary["counting"] == 0.5
    assert scores.summary["prompts_any_correct"] == 1.0
    assert scores.provenance.config_digest == "0011223344556677"
    assert (scores.provenance.n, scores.provenance.failures) == (6, 0)
    raw = read_jsonl(out.parent / "10.raw.jsonl")
    assert [row["reason"] for row in raw] == [""] * 5 + ["expected square<3, found 3"]
    assert len(raw[5]["detections"]["square"]) == 3
    first = out.read_bytes()
    assert CliRunner().invoke(app, arguments(images, out)).exit_code == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run": "base"}, "the run 'base' has step 0"),
        ({"step": 0}, "the run 'base' has step 0"),
        ({"mode": "fixed"}, "GenEval has only 'official'"),
        ({"backend": "yolo"}, "known backends"),
        ({"benchmark": "drawbench"}, "unknown benchmark 'drawbench'"),
        ({"out": "scores.txt"}, "N.json"),
    ],
)
def test_score_command_refuses_what_makes_no_sense(images, tmp_path, changed, message):
    out = tmp_path / changed.pop("out", "10.json")
    run = CliRunner().invoke(app, arguments(images, out, **changed))
    assert isinstance(run.exception, PromptEchoError)
    assert not out.exists()
    assert message in str(run.exception)


def test_a_truncated_image_is_named_and_nothing_is_written(images, tmp_path):
    path = image_path(images, 1, 1)
    path.write_bytes(path.read_bytes()[:-40])
    run = CliRunner().invoke(app, arguments(images, tmp_path / "10.json"))
    assert isinstance(run.exception, DataError)
    assert str(run.exception).startswith(f"{path}: not a readable image")
    assert not list(tmp_path.glob("10.*"))


class Shy:
    """A backend that has no answer for its `silent` first images."""

    name = "shy"

    def __init__(self, silent):
        self.silent, self.settings = silent, {}

    def __call__(self, image, metadata):
        if self.silent > 0:
            self.silent -= 1
            raise PerceptionFailure("no answer")
        return {"square": [[0, 0, 9, 9, 1.0], [20, 0, 29, 9, 1.0]]}, {"square": ["red", "red"]}


def test_a_failed_item_is_not_a_zero(images):
    items, raw, _ = score_folder(images, Shy(1))
    assert [item.failed for item in items] == [True] + [False] * 5
    assert items[0].outcome is None
    assert raw[0]["reason"] == "no answer"
    assert summary_of(items)["overall"] == 1.0
    with pytest.raises(DataError, match="failed on all 6 images"):
        score_folder(images, Shy(6))
