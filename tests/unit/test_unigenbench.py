"""UniGenBench++: prompts in two languages, judges' replies, sums, and the way from images to a table."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import KEY, serving
from PIL import Image
from typer.testing import CliRunner

from promptecho.benchmarks.registry import load_layout, load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.benchmarks.unigenbench import reply
from promptecho.benchmarks.unigenbench.dimensions import DIMENSIONS, FILES, PARTS, SUBDIMENSIONS, dimension_of
from promptecho.benchmarks.unigenbench.judge import load_wordings, question_of
from promptecho.benchmarks.unigenbench.layout import list_images
from promptecho.benchmarks.unigenbench.official import make_set, wording_in
from promptecho.benchmarks.unigenbench.oracle import load_oracle
from promptecho.benchmarks.unigenbench.prompts import PromptPoint, parse_prompt, read_prompts
from promptecho.benchmarks.unigenbench.rules import accuracies
from promptecho.benchmarks.unigenbench.scorer import verdicts
from promptecho.benchmarks.unigenbench.shapes import points_of, write_gallery_prompts, write_shapes_prompts
from promptecho.browse.records import show_record
from promptecho.cli import app
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import read_jsonl
from promptecho.gallery.captions import corrupt_dense, dense_scene_of, parse_dense, wrong_kinds
from promptecho.gallery.drawing import draw_scene
from promptecho.judges.errors import RefusedError
from promptecho.scores import read_scores
from promptecho.shapes.grammar import corrupt, parse, scene_of
from promptecho.shapes.render import render
from promptecho.shapes.world import RELATIONS

TOLD = {
    "Primary Categories": "Art",
    "Testpoints": ["Style", "Attribute - Color"],
    "Testpoint Description": ["in watercolour", "an amber kettle"],
}
TOLD_ZH = {"一级垂类": "艺术", "考点": ["属性-颜色"], "考点对应描述": ["琥珀色的茶壶"]}


def row(**changes) -> dict:
    return {"index": "7", "prompt_en": "an amber kettle in watercolour", "sub_dims_en": json.dumps(TOLD | changes)}


# --- prompts -------------------------------------------------------------------------------------------------------


def test_dimensions_are_ten_with_27_parts_under_two_names():
    assert len(DIMENSIONS) == 10 and {len(names) for names in SUBDIMENSIONS.values()} == {27}
    assert set(SUBDIMENSIONS["en"].values()) == set(SUBDIMENSIONS["zh"].values())
    assert {dimension_of(name) for name in SUBDIMENSIONS["en"]} == set(DIMENSIONS)
    assert len(PARTS) == 23 and not set(PARTS) & set(DIMENSIONS)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"index": "one"}, "index 'one': expected a whole number"),
        ({"index": "1" * 5000}, "5000 digits; expected up to 18"),
        ({"prompt_en": " "}, "(index 7): prompt_en is missing or empty"),
        ({"sub_dims_en": "{"}, "sub_dims_en: expected a JSON object"),
        ({"sub_dims_zh": "{}"}, "expected the columns prompt_en and sub_dims_en or prompt_zh and sub_dims_zh"),
        ({"sub_dims_en": json.dumps(TOLD | {"Testpoints": ["Style"]})}, "1 test points and 2 descriptions"),
        ({"sub_dims_en": json.dumps(TOLD | {"Testpoints": ["Style", 3]})}, "Testpoints: expected a list of texts"),
        ({"sub_dims_en": json.dumps(TOLD | {"Testpoints": [], "Testpoint Description": []})}, "0 test points"),
        ({"sub_dims_en": json.dumps(TOLD | {"Testpoints": ["Style", "Size"]})}, "test point 'Size' is unknown"),
    ],
)  # fmt: skip
def test_a_bad_prompt_is_named(changes, told):
    with pytest.raises(DataError) as caught:
        parse_prompt({**row(), **changes}, "p.csv: prompt 3")
    assert str(caught.value).startswith("p.csv: prompt 3") and told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prompts_of_both_languages_survive_as_csv_and_beside_images(tmp_path):
    chinese = {"index": "0", "prompt_zh": "琥珀色的茶壶，水彩", "sub_dims_zh": json.dumps(TOLD_ZH, ensure_ascii=False)}
    for name, one in (("en", row()), ("zh", chinese)):
        with open(tmp_path / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(one))
            writer.writeheader()
            writer.writerow(one)
    [english], [other] = read_prompts(tmp_path / "en.csv"), read_prompts(tmp_path / "zh.csv")
    assert (english.data_id, english.language, english.theme) == ("7", "en", "Art")
    assert english.points[1] == PromptPoint("Attribute - Color", "Attribute - Color", "an amber kettle")
    assert (other.language, other.points[0].subdimension, other.points[0].dimension) == (
        "zh", "Attribute - Color", "Attribute"
    )  # fmt: skip
    for prompt in (english, other):
        assert parse_prompt(prompt.row(), "here") == prompt
    (tmp_path / "both.jsonl").write_text("\n".join(json.dumps(one) for one in (row(), chinese)))
    with pytest.raises(DataError, match="prompts in two languages"):
        read_prompts(tmp_path / "both.jsonl")
    (tmp_path / "twice.jsonl").write_text("\n".join(json.dumps(row()) for _ in range(2)))
    with pytest.raises(DataError, match=r"prompt 2 \(index 7\): the index occurs twice"):
        read_prompts(tmp_path / "twice.jsonl")


def test_images_have_the_names_that_the_official_evaluator_reads(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps(row()))
    layout = load_layout("unigenbench", tmp_path / "p.jsonl", tmp_path / "images", 4)
    assert [layout.image_path(0, i).name for i in range(4)] == ["7_0.png", "7_1.png", "7_2.png", "7_3.png"]
    (tmp_path / "images").mkdir()
    for name in ("7_0", "7_4", "8_0"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{name}.png")
    layout.remove_stale()
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["7_0.png"]


# --- replies -------------------------------------------------------------------------------------------------------


def answered(scores: str, analysis: str = "['a', 'b']") -> str:
    return f"<description>\n<analysis>{analysis}</analysis>\n<score>{scores}</score>\n</description>"


@pytest.mark.parametrize(
    ("text", "official"),
    [
        (answered("[1, 0]"), True),
        (answered("[1, 0]", "['it's there', b]"), False),  # the analysis decides nothing
        ("<think>[0, 1]? <score>[0, 0]</score></think>" + answered("[1, 0]"), False),
        (answered("\n['1', \"0\"]\n"), False),
        (answered("```json\n[1.0, 0]\n```"), False),
        (answered("[1, 0,]"), True),
        (answered("[1,\n 0,  # not there\n]"), True),
        ("Here.\n<SCORE>[1,0]</SCORE>", False),
        (answered("[1, 0]") * 2, True),
    ],
)
def test_replies_with_one_clear_answer(text, official):
    assert reply.read(text, 2) == [1, 0]
    if official:
        assert reply.parse(text, 2) == [1, 0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Both are there.", "no <score>"),
        ("", "no <score>"),
        (answered("[1]"), "1 entries, 2 test points"),
        (answered("[1, 0, 1]"), "3 entries, 2 test points"),
        (answered("[]"), "'' is neither 0 nor 1"),
        (answered("[2, 1]"), "'2' is neither 0 nor 1"),
        (answered("[0.5, 1]"), "'0.5' is neither 0 nor 1"),
        (answered("[2, 1,]"), "'2' is neither 0 nor 1"),
        (answered("[True, 0,]"), "'True' is neither 0 nor 1"),
        (answered("[yes, no]"), "'yes' is neither 0 nor 1"),
        (answered("1, 0"), "is no list"),
        (answered("[[1], [0]]"), "is no list"),
        ("<score>[1, 0]", "no <score>"),
        (answered("[1, 0]") + answered("[0, 0]"), "different <score>"),
    ],
)
def test_malformed_replies_are_none(text, told):
    with pytest.raises(ValueError, match=told):
        reply.read(text, 2)


def test_a_refusal_is_told_apart():
    with pytest.raises(RefusedError):
        reply.read("I'm sorry, but I can't assist with that.", 2)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=12), st.sampled_from([reply.parse, reply.read]))
def test_every_list_of_scores_is_read_as_it_was_written(scores, read):
    assert read(answered(str(scores), str(["x"] * len(scores))), len(scores)) == scores


# --- sums ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(sorted(SUBDIMENSIONS["en"])), st.integers(0, 1)), min_size=1), st.randoms())
def test_dimensions_count_all_their_test_points_and_overall_each_dimension_once(points, random):
    found = accuracies(points)
    for name in DIMENSIONS:
        mine = [right for one, right in points if dimension_of(one) == name]
        assert (name in found) == bool(mine) and (not mine or found[name] == pytest.approx(sum(mine) / len(mine)))
    there = [found[name] for name in DIMENSIONS if name in found]
    assert found["overall"] == pytest.approx(sum(there) / len(there))
    shuffled = list(points)
    random.shuffle(shuffled)
    assert accuracies(shuffled) == found


# --- the embedded worlds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", ["shapes", "gallery"])
def test_the_oracle_finds_right_what_a_prompt_claims_and_wrong_what_it_does_not(tmp_path, world):
    write = write_shapes_prompts if world == "shapes" else write_gallery_prompts
    for name in ("p.csv", "p.jsonl"):
        assert write(4, 1, tmp_path / name) == 16
    prompts = read_prompts(tmp_path / "p.csv")
    assert prompts == read_prompts(tmp_path / "p.jsonl") and len({prompt.prompt for prompt in prompts}) == 16
    rng, oracle = np.random.default_rng(0), load_oracle("oracle" if world == "shapes" else "gallery")
    for prompt in prompts:
        if world == "shapes":
            claims = [parse(prompt.prompt), corrupt(parse(prompt.prompt), rng)]
            right, wrong = (render(scene_of(claim, rng), rng) for claim in claims)
        else:
            claim = parse_dense(prompt.prompt)
            # What a caption does not say is not asked about, such as something more, or a texture.
            kinds = [kind for kind in wrong_kinds(claim) if kind in ("object", "color", "swap", *RELATIONS)]
            claims = [claim, corrupt_dense(claim, rng, str(rng.choice(kinds)))]
            right, wrong = (draw_scene(dense_scene_of(one, rng), rng) for one in claims)
        assert oracle.scores(right, prompt.points) == [1] * len(prompt.points), prompt
        assert min(oracle.scores(wrong, prompt.points)) == 0, prompt


@pytest.mark.parametrize(
    ("caption", "shown", "wrong"),
    [
        ("A small red circle.", "A large red circle.", "Attribute - Size"),
        ("A striped green cross.", "A green cross.", "Attribute - Material"),
        ("Three black stars.", "Two black stars.", "Attribute - Quantity"),
        ("A red ring above a black star.", "A red ring below a black star.", "Entity Layout - Two-Dimensional Space"),
    ],
)
def test_each_test_point_looks_at_one_thing_alone(caption, shown, wrong):
    rng, points = np.random.default_rng(3), points_of(parse_dense(caption))
    image = draw_scene(dense_scene_of(parse_dense(shown), rng), rng)
    scores = load_oracle("gallery").scores(image, points)
    assert [p.subdimension for p, score in zip(points, scores, strict=True) if not score] == [wrong]


def test_what_a_caption_says_as_test_points():
    told = [(p.subdimension, p.description) for p in points_of(parse_dense("Three red stars, with no blue object."))]
    assert told == [
        ("Attribute - Shape", "three red stars"),
        ("Attribute - Quantity", "three red stars"),
        ("Attribute - Color", "three red stars"),
        ("Grammar - Consistency", "three red stars"),
        ("Grammar - Negation", "no blue object"),
    ]
    told = [(p.subdimension, p.description) for p in points_of(parse_dense("A red ring above a star."))]
    assert told[-1] == ("Entity Layout - Two-Dimensional Space", "a red ring above a star")
    oracle, image = load_oracle("oracle"), Image.new("RGB", (64, 64), (240, 240, 240))
    for name, description in (
        ("Style", "a star"), ("Attribute - Shape", "a kettle"), ("Grammar - Negation", "a star"),
        ("Attribute - Shape", "no star"), ("Compound - Feature Matching", "a red star"),
    ):  # fmt: skip
        with pytest.raises(DataError, match="is none of an embedded world.*use backend judge"):
            oracle.scores(image, [PromptPoint(name, name, description)])
    assert oracle.scores(image, points_of(parse_dense("A star.")) + points_of(parse_dense("A ring.")))[0] == 0


# --- judges --------------------------------------------------------------------------------------------------------


def drawn(root: Path, prompts: Path, wrong: int, count: int = 2) -> None:
    """`count` images for each prompt; in those of the first `wrong` prompts one fact is wrong."""
    rng, layout = np.random.default_rng(5), load_layout("unigenbench", prompts, root, count)
    for p, text in enumerate(layout.texts):
        for i in range(count):
            claim = parse(text) if p >= wrong else corrupt(parse(text), rng)
            layout.image_path(p, i).parent.mkdir(parents=True, exist_ok=True)
            render(scene_of(claim, rng), rng).save(layout.image_path(p, i))
    layout.describe(layout.chosen)


def test_a_question_holds_the_prompt_its_test_points_and_what_they_mean(tmp_path):
    write_shapes_prompts(1, 1, tmp_path / "p.jsonl")
    drawn(tmp_path / "images", tmp_path / "p.jsonl", 0, 1)
    wordings = load_wordings(None)
    for entry in list_images(tmp_path / "images"):
        question = question_of(entry, wordings["en"], order="official")
        assert question.text.count(entry.prompt.prompt) == 2 and question.image_format == "jpeg"
        for point in entry.prompt.points:
            assert f"\n{point.name}: {point.description}\n" in question.text
        assert question.parse(answered(str([1] * len(entry.prompt.points)))) == [1] * len(entry.prompt.points)
        assert question_of(entry, wordings["en"], "official").parse.func is reply.parse
    for language, wording in wordings.items():
        defined = [line.partition(": ")[0] for line in wording.definitions.text.split("\n")]
        assert defined and set(defined) == set(SUBDIMENSIONS[language])
    own = tmp_path / "own" / "unigenbench"
    own.mkdir(parents=True)
    (own / "english_definitions.txt").write_text("Style: how it is painted")
    with pytest.raises(DataError, match="english_definitions.txt: has no line for 'Attribute - Shape'; add"):
        question_of(entry, load_wordings(tmp_path / "own")["en"])
    (own / "english.txt").write_text("Is it there?")
    with pytest.raises(DataError, match="english.txt: lacks {checkpoints}"):
        load_wordings(tmp_path / "own")


def test_backends_and_modes_that_are_not_there():
    with pytest.raises(ModelError, match="'yolo' is unknown; known backends: gallery, judge, oracle"):
        load_scorer("unigenbench", ScoringOptions("yolo"))
    with pytest.raises(ConfigError, match=r"UniGenBench\+\+ has only 'official'"):
        load_scorer("unigenbench", ScoringOptions("oracle", mode="fixed"))


EXPERIMENT = """\
models: {{t2i: {{family: zimage, path: shapes}}, vlm: {{path: shapes}}}}
captions: {{prompts: captions.jsonl}}
training: {{iterations: 1}}
runs: {{echo: {{seed: 1}}}}
image_sets: {{points: {{benchmark: unigenbench, shapes: {{per_tag: 2, seed: 2}}, images_per_prompt: 1}}}}
judges:
  models: {{mine: {{kind: openai, model: offline, endpoint: "{endpoint}", concurrency: 1, max_attempts: 2}}}}
benchmarks:
  points: {{image_set: points, scorer: unigenbench, backend: judge, judge: mine, max_failed_share: 0.5}}
"""


def test_malformed_replies_are_reported_by_the_scoring_command_and_never_counted_as_wrong(tmp_path, monkeypatch):
    """A judge that sees what the oracle sees, and is of no use about one prompt."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    prompts, oracle = tmp_path / "p.jsonl", load_oracle("oracle")
    write_shapes_prompts(2, 2, prompts)
    drawn(tmp_path / "images", prompts, 3, 1)
    known = {prompt.prompt: prompt for prompt in read_prompts(prompts)}
    useless = list(known)[-1]

    def answer(text: str) -> str:
        prompt = next(one for told, one in known.items() if f"「{told}」" in text)
        ((kind, data),) = server.log[-1]["images"]
        assert kind == "image/jpeg"
        scores = oracle.scores(Image.open(io.BytesIO(data)), prompt.points)
        return answered(str(scores[1:] if prompt.prompt == useless else scores))

    words = ["--config", "e.yaml", "--benchmark", "points", "--images", "images", "--prompts", "p.jsonl"]
    words += ["--images-per-prompt", "1", "--answers", "answers"]
    told = ["--experiment", "e", "--run", "base", "--step", "0", "--out", "scores.json"]
    with serving(answer=answer) as server:
        (tmp_path / "e.yaml").write_text(EXPERIMENT.format(endpoint=server.endpoint("openai")))
        done = CliRunner().invoke(app, ["judge", *words, "--out", "judged.json"])
        assert done.exit_code == 0, done.output
        calls = len(server.log)
        done = CliRunner().invoke(app, ["score", *words, *told])
        assert done.exit_code == 0, done.output
        assert len(server.log) == calls == 9, "the malformed reply is asked for once more, and then no more"
    scores, bad = read_scores(tmp_path / "scores.json"), known[useless]
    failed = [item for item in (*scores.items, *scores.parts) if item.failed]
    assert {item.prompt_id for item in failed} == {bad.data_id} and all(item.outcome is None for item in failed)
    assert scores.provenance.failures == len(bad.points)
    [record] = [one for one in read_jsonl(tmp_path / "scores.raw.jsonl") if one["failed"]]
    assert "test points were asked about" in record["reason"] and record["points"][0]["right"] is None
    by_oracle = load_scorer("unigenbench", ScoringOptions("oracle")).score(ImageFolder(tmp_path / "images", prompts, 1))
    expected = accuracies(
        (point["subdimension"], point["right"])
        for one in by_oracle.raw
        if one["prompt_id"] != bad.data_id
        for point in one["points"]
    )
    assert scores.summary == pytest.approx(expected) and 0 < scores.summary["overall"] < 1


def test_from_images_to_a_table(tmp_path):
    prompts = tmp_path / "p.jsonl"
    write_shapes_prompts(3, 2, prompts)
    for run, step, wrong in (("base", 0, 12), ("echo-s1", 4, 5)):
        drawn(tmp_path / f"images-{run}", prompts, wrong)
        if run == "base":  # an image that cannot be read has failed; it is never counted as wrong
            (tmp_path / "images-base" / "11_1.png").write_bytes(b"no image")
        words = ["--benchmark", "unigenbench", "--backend", "oracle", "--images", tmp_path / f"images-{run}"]
        words += ["--prompts", prompts, "--images-per-prompt", 2, "--experiment", "e", "--run", run, "--step", step]
        words += ["--out", tmp_path / f"e/scores/unigenbench/{run}/{step}.json"]
        done = CliRunner().invoke(app, ["score", *map(str, words)])
        assert done.exit_code == 0, done.output
    base, after = (read_scores(tmp_path / f"e/scores/unigenbench/{name}.json") for name in ("base/0", "echo-s1/4"))
    last = read_prompts(prompts)[-1]
    assert base.provenance.failures == len(last.points) and after.provenance.failures == 0
    assert base.summary["overall"] < after.summary["overall"] < 1
    wrong = read_jsonl(tmp_path / "e/scores/unigenbench/echo-s1/4.raw.jsonl")[0]
    [table] = show_record(wrong).tables
    assert table.name == "points" and table.wrong.count(True) == [p["right"] for p in wrong["points"]].count(False) > 0
    shares = verdicts(after.items)
    assert len(shares) == 24 and shares["11", 1] == 1 and min(value for value in shares.values()) < 1
    assert verdicts(base.items)["11", 1] is None and verdicts(base.items)["11", 0] < 1

    words = ["tables", "--table", "unigenbench", "--scores", tmp_path / "e", "--out", tmp_path / "tables"]
    words += ["--max-failures", 0.1]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    first, second = csv.DictReader((tmp_path / "tables/unigenbench.csv").read_text().splitlines())
    for name in ("overall", "Attribute", "Attribute - Color", "Entity Layout - Two-Dimensional Space"):
        assert float(second[name]) == pytest.approx(100 * after.summary[name], abs=0.1), name
        assert float(second[f"{name}_low"]) <= float(second[name]) <= float(second[f"{name}_high"])
    assert float(second["delta"]) > 0 and int(first["failures"]) == len(last.points)
    text = (tmp_path / "tables/unigenbench.md").read_text()
    assert "No prompt has a test point of Style, World Knowledge, Action, Relationship, Logical Reasoning, Text" in text


# --- what was fetched ----------------------------------------------------------------------------------------------

SCRIPT = """
def call(args):
    explanation_dict = {{{definitions}}}
    explanation = "What they mean:["
    for point in testpoint:
        explanation += f"\\n{{point}}: {{explanation_dict[point]}}"
    explanation += "\\n]"
    test_explanation = "Here:["
    for idx, point in enumerate(testpoint):
        test_explanation += f"\\n{{point}}: {{test_desc[idx]}}"
    test_explanation += "\\n]"
    while True:
        system_prompt = f\'\'\'Look. 「{{prompt}}」 {{testpoint}} {{explanation}}; {{test_explanation}}!
            {{prompt}}
            \'\'\'
"""


def fetched(folder: Path) -> None:
    """Made-up files in the form of the official ones."""
    for name, count in FILES.items():
        language = "zh" if "zh" in name else "en"
        told = TOLD_ZH if language == "zh" else TOLD
        lines = [{"index": k, f"prompt_{language}": f"prompt {k}", f"sub_dims_{language}": json.dumps(told)}
                 for k in range(count)]  # fmt: skip
        (folder / "data").mkdir(parents=True, exist_ok=True)
        with open(folder / "data" / name, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
    (folder / "eval").mkdir()
    for language in ("en", "zh"):
        definitions = ", ".join(f"{name!r}: 'about {n}'" for n, name in enumerate(SUBDIMENSIONS[language]))
        text = SCRIPT.format(definitions=definitions)
        (folder / f"eval/qwenvl_72b_{language}_eval.py").write_text(text, encoding="utf-8")


def test_fetched_prompts_are_counted_and_the_authors_wording_is_taken_from_their_scripts(tmp_path):
    fetched(tmp_path)
    make_set(tmp_path)
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["test_prompts_en_long.csv"] == {
        "prompts": 600, "test_points": 1200, "by_subdimension": {"Style": 600, "Attribute - Color": 600},
    }  # fmt: skip
    assert len(read_prompts(tmp_path / "test_prompts_zh_long.csv")) == 600
    wording = load_wordings(tmp_path / "templates")["en"]
    assert wording.text(parse_prompt(row(), "here")) == (
        "Look. 「an amber kettle in watercolour」 ['Style', 'Attribute - Color'] What they mean:[\n"
        f"Style: about {list(SUBDIMENSIONS['en']).index('Style')}\n"
        f"Attribute - Color: about {list(SUBDIMENSIONS['en']).index('Attribute - Color')}\n]; "
        "Here:[\nStyle: in watercolour\nAttribute - Color: an amber kettle\n]!\n"
        "            an amber kettle in watercolour"
    )
    script = tmp_path / "eval/qwenvl_72b_en_eval.py"
    for wrong in ("<html>", script.read_text().replace("{testpoint}", "{other}"), "system_prompt = 'Look.'"):
        script.write_text(wrong)
        with pytest.raises(DataError, match="qwenvl_72b_en_eval.py: holds no question.*fetch it again"):
            wording_in(script)
    path = tmp_path / "data/test_prompts_zh.csv"
    for text, told in (
        ("".join(path.read_text().splitlines(keepends=True)[:-1]), "599 prompts, expected 600; delete the file"),
        ("<html>not here</html>\n", "or delete the file and fetch it again"),
    ):
        (tmp_path / "test_prompts_zh.csv").unlink(missing_ok=True)
        path.write_text(text)
        with pytest.raises(DataError, match=f"data/test_prompts_zh.csv: .*{told}"):
            make_set(tmp_path)
        assert not (tmp_path / "test_prompts_zh.csv").exists()
