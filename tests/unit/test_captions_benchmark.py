"""Captions as a benchmark: prompts, claims judged on real renders, the image folder, the score command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from promptecho.benchmarks.captions.layout import METADATA, CaptionsLayout, list_images
from promptecho.benchmarks.captions.prompts import CaptionPrompt, read_prompts
from promptecho.benchmarks.captions.rules import GROUPS, claim_of, evaluate, group_of
from promptecho.benchmarks.listing import prompts_digest
from promptecho.cli import app
from promptecho.errors import DataError, PromptEchoError
from promptecho.files import read_jsonl, write_jsonl
from promptecho.scores import read_scores
from promptecho.shapes.grammar import Claim, corrupt, parse, random_claim, scene_of, write
from promptecho.shapes.oracle import detect
from promptecho.shapes.render import render
from promptecho.shapes.world import KINDS, Scene, Thing


def drawn(claim: Claim, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return render(scene_of(claim, rng), rng)


# --- scorer --------------------------------------------------------------------------------------------------------

EXAMPLES = {
    "single": ("A red circle.", "A blue circle.", "shows 1 blue circle"),
    "count": ("There are three blue squares.", "Two blue squares.", "shows 2 blue square"),
    "relation": ("A red ring above a black star.", "A red ring below a black star.", "not above"),
    "pair": ("A red ring and a black star.", "A black ring and a red star.", "shows 1 black ring, 1 red star"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_right_and_wrong(kind):
    caption, other, reason = EXAMPLES[kind]
    claim = claim_of(caption)
    assert group_of(claim) == kind
    right, wrong = evaluate(claim, detect(drawn(claim))), evaluate(claim, detect(drawn(parse(other))))
    assert (right.correct, right.reason) == (True, "")
    assert not wrong.correct and reason in wrong.reason


def test_further_objects_and_broken_ones_are_wrong():
    claim = claim_of("A red circle.")
    circle = Thing("circle", "red", 16, 16, 10)
    two = render(Scene((circle, Thing("star", "blue", 46, 46, 10))))
    assert evaluate(claim, detect(two)).reason == "shows 1 blue star, 1 red circle"
    half = render(Scene((circle,))).crop((14, 0, 64, 64)).resize((64, 64))  # half a circle
    assert not evaluate(claim, detect(half)).correct
    assert evaluate(claim, detect(Image.new("RGB", (64, 64), (240, 240, 240)))).reason == "shows nothing"
    above = claim_of("A red circle above a blue ring.")  # where a relation holds, the reason doesn't deny it
    assert evaluate(above, detect(two)).reason == "shows 1 blue star, 1 red circle"
    empty = claim_of("An empty image.")
    assert group_of(empty) == "other" and evaluate(empty, []).correct and not evaluate(empty, detect(two)).correct


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_a_render_fulfils_its_caption_and_no_caption_with_one_fact_changed(seed, wording):
    rng = np.random.default_rng(seed)
    claim = random_claim(rng)
    found = detect(drawn(claim, seed))
    assert group_of(claim) in GROUPS
    verdict = evaluate(claim_of(write(claim, wording)), found)
    if verdict.correct:  # the oracle misreads one render in some hundreds
        assert not evaluate(claim_of(write(corrupt(claim, rng), wording)), found).correct
    else:
        assert verdict.reason


@pytest.mark.parametrize(
    ("caption", "problem"),
    [
        ("A dog on a bench.", "not a phrase of the shapes language"),
        ("A red circle and a blue", "not a phrase"),
        ("Two red rings above a black star.", "a relation between several objects has no rule"),
        ("A red ring and a red ring.", "names ring twice"),
        ("A red ring and three rings.", "names ring twice"),
    ],
)
def test_captions_that_cannot_be_judged(caption, problem):
    with pytest.raises(DataError, match=problem) as error:
        claim_of(caption)
    assert repr(caption) in str(error.value) and "\n" not in str(error.value)


# --- prompts and folder --------------------------------------------------------------------------------------------

ODD_IDS = ["../../etc/passwd", "/abs/00001.png", "a b\tc\n", "C:\\x", "図/😀.png", "x" * 400, ".", "00000.png"]


def write_prompts(path: Path, ids: list[str]) -> Path:
    write_jsonl(path, [{"data_id": name, "caption": f"caption {k}"} for k, name in enumerate(ids)])
    return path


def fill(layout: CaptionsLayout, images: int, skip=()) -> None:
    for p in range(len(layout.ids)):
        for i in range(images):
            if (p, i) not in skip:
                path = layout.image_path(p, i)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (p, i, 0)).save(path)


def test_prompts_are_read_or_refused_by_name(tmp_path):
    path = write_prompts(tmp_path / "p.jsonl", ODD_IDS)
    prompts = read_prompts(path)
    assert [prompt.data_id for prompt in prompts] == ODD_IDS
    assert prompts_digest(prompts) != prompts_digest(prompts[::-1])
    for rows, problem in (
        ([{"data_id": "a", "caption": "x"}, {"data_id": "a", "caption": "y"}], "prompt 2 .*the id occurs twice"),
        ([{"data_id": "a", "caption": " "}], "prompt 1 .*the caption is empty"),
        ([{"data_id": " ", "caption": "x"}], "prompt 1 .*the id is no text"),
        ([], "holds no prompts"),
    ):
        write_jsonl(path, rows)
        with pytest.raises(DataError, match=f"{path}(:[0-9])?: {problem}"):
            read_prompts(path)
    path.write_text('{"data_id": "\\ud800", "caption": "x"}')
    with pytest.raises(DataError, match="the id is no text"):
        read_prompts(path)


def test_the_authors_captions_are_prompts(shared):
    prompts = read_prompts(shared / "benchmarks/mirror/densealign/metadata.jsonl")
    assert len(prompts) == 2000 and len({prompt.data_id for prompt in prompts}) == 2000


def test_the_first_heldout_captions(tmp_path):
    path, out = write_prompts(tmp_path / "heldout.jsonl", ["b", "a", "c"]), tmp_path / "prompts/s/metadata.jsonl"
    arguments = ["benchmarks", "heldout", "--captions", str(path), "--out", str(out), "--count"]
    assert CliRunner().invoke(app, [*arguments, "2"]).exit_code == 0
    assert read_jsonl(out) == [{"data_id": "b", "caption": "caption 0"}, {"data_id": "a", "caption": "caption 1"}]
    run = CliRunner().invoke(app, [*arguments, "4"])
    assert f"{path}: 4 captions are asked for, it holds 3" in str(run.exception)


ids = st.lists(
    st.one_of(st.sampled_from(ODD_IDS), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)),
    min_size=1, max_size=6, unique=True,
)  # fmt: skip


@settings(max_examples=30)
@given(ids, st.integers(1, 3))
def test_whatever_the_ids_the_folder_holds_one_image_each_and_reads_back(tmp_path_factory, names, images):
    names = [name for name in names if name.strip()] or ["x"]
    folder = tmp_path_factory.mktemp("odd")
    root = folder / "root"
    layout = CaptionsLayout(write_prompts(folder / "p.jsonl", names), root, images)
    fill(layout, images)
    layout.describe(range(len(names)))
    entries = list_images(root, read_prompts(folder / "p.jsonl"), images)
    assert [(e.prompt.data_id, e.image_index) for e in entries] == [(n, i) for n in names for i in range(images)]
    assert [Image.open(e.path).getpixel((0, 0)) for e in entries] == [
        (p, i, 0) for p in range(len(names)) for i in range(images)
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["p.jsonl", "root"]
    assert sorted(root.rglob("*")) == sorted([root / METADATA, *(e.path for e in entries)])
    assert all(set(row) == {"data_id", "caption", "filename"} for row in read_jsonl(root / METADATA))
    layout.remove_stale()
    assert list_images(root) == entries


def test_the_listing_comes_with_the_last_image_and_goes_with_the_first_change(tmp_path):
    root, path = tmp_path / "root", write_prompts(tmp_path / "p.jsonl", ["a", "b", "c"])
    layout = CaptionsLayout(path, root, 2)
    fill(layout, 2, skip=[(1, 1)])
    layout.describe([0, 2])
    assert not (root / METADATA).exists()
    with pytest.raises(DataError, match=r"metadata.jsonl: no such file, so the images are not complete"):
        list_images(root)
    fill(layout, 2)
    layout.describe([1])
    assert len(list_images(root, read_prompts(path), 2)) == 6
    # fewer images and prompts: what is too much goes, and the listing with it
    CaptionsLayout(path, root, 1).remove_stale()
    assert sorted(p.name for p in root.iterdir()) == ["00000_00000.png", "00001_00000.png", "00002_00000.png"]
    layout = CaptionsLayout(path, root, 1)
    layout.describe([0])
    CaptionsLayout(write_prompts(path, ["a", "z"]), root, 1).remove_stale()
    assert sorted(p.name for p in root.iterdir()) == ["00000_00000.png", "00001_00000.png"]


def test_folders_that_are_not_whole_are_refused(tmp_path):
    root, path = tmp_path / "root", write_prompts(tmp_path / "p.jsonl", ["a", "b", "c"])
    with pytest.raises(DataError, match="no such image folder"):
        list_images(root)
    layout = CaptionsLayout(path, root, 2)
    fill(layout, 2)
    layout.describe([0, 1, 2])
    rows, prompts = read_jsonl(root / METADATA), read_prompts(path)
    for expected, images, problem in (
        (prompts[:2], 2, "its 3 prompts are not the 2 of the prompt set"),
        ([*prompts, CaptionPrompt("d", "x")], 2, "its 3 prompts are not the 4"),
        ([prompts[0], CaptionPrompt("b", "another"), prompts[2]], 2, r"e.g. 'b' \('caption 1'\)"),
        (prompts, 3, "2 images of prompt 'a', not 3"),
    ):
        with pytest.raises(DataError, match=problem):
            list_images(root, expected, images)
    layout.image_path(1, 0).unlink()
    with pytest.raises(DataError, match=r"1 of 6 images missing: 00001_00000\.png; rerun"):
        list_images(root)
    for change, problem in (
        ({"filename": "../x.png"}, "leaves the folder"),
        ({"filename": "/x.png"}, "leaves the folder"),
        ({"filename": None}, "filename is missing"),
        ({"caption": ""}, "caption is missing"),
        ({"data_id": None}, "data_id None is no id"),
    ):
        write_jsonl(root / METADATA, [rows[0] | change])
        with pytest.raises(DataError, match=f"image 1.*{problem}"):
            list_images(root)
    write_jsonl(root / METADATA, rows[:3])
    with pytest.raises(DataError, match="1 images of prompt 'b', not 2"):
        list_images(root)


# --- from pixels to a score file -----------------------------------------------------------------------------------

CAPTIONS = ["A red circle.", "Three blue squares.", "A red ring above a black star.", "A red ring and a black star."]


@pytest.fixture
def images(tmp_path) -> Path:
    """Two renders of each caption, the second of the last one wrong; prompts in p.jsonl."""
    prompts = tmp_path / "p.jsonl"
    write_jsonl(prompts, [{"data_id": f"i/{k}", "caption": text} for k, text in enumerate(CAPTIONS)])
    layout = CaptionsLayout(prompts, tmp_path / "images", 2)
    fill(layout, 2)
    for p, text in enumerate(CAPTIONS):
        for i in range(2):
            claim = parse("A black ring and a red star." if (p, i) == (3, 1) else text)
            drawn(claim, 10 * p + i).save(layout.image_path(p, i))
    layout.describe(range(4))
    return tmp_path / "images"


def arguments(images: Path, out: Path, **changed) -> list[str]:
    options = {
        "benchmark": "heldout", "scorer": "captions", "backend": "oracle", "mode": "official", "images": images,
        "prompts": images.parent / "p.jsonl", "images-per-prompt": 2, "out": out, "experiment": "shapes",
        "run": "promptecho-s1", "step": 10,
    } | changed  # fmt: skip
    return ["score", *(str(part) for key, value in options.items() for part in (f"--{key}", value))]


def test_score_command_from_pixels_to_score_file(images, tmp_path):
    out = tmp_path / "scores/heldout/promptecho-s1/10.json"
    run = CliRunner().invoke(app, [*arguments(images, out), "--json"])
    assert run.exit_code == 0, run.output
    scores = read_scores(out)
    assert scores.summary == {"overall": 7 / 8, "single": 1.0, "count": 1.0, "relation": 1.0, "pair": 0.5}
    assert json.loads(run.stdout)["failures"] == 0
    assert [(i.prompt_id, i.image_index, i.group) for i in scores.items][-2:] == [
        ("i/3", 0, "pair"),
        ("i/3", 1, "pair"),
    ]
    assert (scores.provenance.scorer, scores.provenance.judge_model, scores.provenance.n) == ("captions", "oracle", 8)
    raw = read_jsonl(out.parent / "10.raw.jsonl")
    assert [row["reason"] for row in raw] == [""] * 7 + ["shows 1 black ring, 1 red star"]
    assert raw[0]["filename"] == "00000_00000.png" and raw[0]["objects"][0]["shape"] == "circle"
    first = out.read_bytes()
    assert CliRunner().invoke(app, arguments(images, out)).exit_code == 0
    assert out.read_bytes() == first


def test_what_cannot_be_judged_fails_with_its_reason_and_is_no_zero(images, tmp_path):
    listing = [{"data_id": f"i/{k}", "caption": text} for k, text in enumerate(["A dog.", *CAPTIONS[1:]])]
    write_jsonl(tmp_path / "p.jsonl", listing)
    CaptionsLayout(tmp_path / "p.jsonl", images, 2).describe([0])
    damaged = images / "00001_00001.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    out = tmp_path / "10.json"
    run = CliRunner().invoke(app, arguments(images, out))
    assert run.exit_code == 0, run.output
    scores, raw = read_scores(out), read_jsonl(tmp_path / "10.raw.jsonl")
    assert [(i.prompt_id, i.image_index, i.group) for i in scores.items if i.failed] == [
        ("i/0", 0, "other"), ("i/0", 1, "other"), ("i/1", 1, "count")
    ]  # fmt: skip
    assert (scores.provenance.n, scores.provenance.failures) == (8, 3)
    assert scores.summary == {"overall": 4 / 5, "count": 1.0, "relation": 1.0, "pair": 0.5}
    assert raw[0]["reason"] == "caption 'A dog.': 'a dog' is not a phrase of the shapes language"
    assert raw[3]["reason"].startswith(f"{damaged}: not a readable image")
    write_jsonl(tmp_path / "p.jsonl", [{"data_id": "i/0", "caption": "A dog."}])
    layout = CaptionsLayout(tmp_path / "p.jsonl", images, 2)
    layout.remove_stale()
    layout.describe([0])
    run = CliRunner().invoke(app, arguments(images, tmp_path / "11.json", step=11))
    assert "the backend failed on all 2 images; the first time: caption 'A dog.'" in str(run.exception)
    assert not list(tmp_path.glob("11*"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mode": "fixed"}, "captions have only 'official'"),
        ({"backend": "yolo"}, "backend 'yolo'"),
        ({"scorer": "none"}, "unknown benchmark 'none'"),
        ({"images-per-prompt": 3}, "not 3; generate the images again"),
    ],
)
def test_score_command_refuses_what_makes_no_sense(images, tmp_path, changed, message):
    run = CliRunner().invoke(app, arguments(images, tmp_path / "10.json", **changed))
    assert isinstance(run.exception, PromptEchoError)
    assert message in str(run.exception) and not list(tmp_path.glob("10.*"))


def test_images_of_several_sizes_are_refused_by_name(tmp_path):
    from promptecho.benchmarks.layout import refuse_mixed_sizes

    for index, size in enumerate([(32, 32)] * 5 + [(32, 48), (16, 16)]):
        Image.new("RGB", size).save(tmp_path / f"{index}.png")
    (tmp_path / "torn.png").write_bytes(b"no image")
    files = sorted(tmp_path.iterdir())
    refuse_mixed_sizes(tmp_path, files[:5] + files[-1:])
    told = r"5 of 32x32, 1 of 32x48, 1 of 16x16\): not 32x32 are 5\.png, 6\.png; make all in one size"
    with pytest.raises(DataError, match=told):
        refuse_mixed_sizes(tmp_path, files)
    with (tmp_path / METADATA).open("w") as listing:
        for index in range(6):
            row = {"data_id": f"p{index}", "caption": "A star.", "filename": f"{index}.png"}
            listing.write(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"not 32x32 are 5\.png"):
        list_images(tmp_path)
