"""`promptecho reward-audit`: its edits, numbers, rules and files, on real tiny models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from promptecho.audit.advice import advise
from promptecho.audit.candidates import candidates_of
from promptecho.audit.drawn_pairs import drawn_pairs
from promptecho.audit.edits import ABSENT, RULES, CaptionEdit
from promptecho.audit.lengths import spearman
from promptecho.audit.material import Ask, AuditImage, FactPair, JudgedImage
from promptecho.audit.measures import accuracy, auc, auc_items, difference, pair_items
from promptecho.audit.rated import Rated
from promptecho.audit.sources import read_captioned, read_verdicts, rule_pairs
from promptecho.audit.words import by_class, signal_of, word_table
from promptecho.audit.worlds import world_named
from promptecho.audit.write import to_html_page, to_markdown_page
from promptecho.captions.settings import read_settings
from promptecho.cli import make_app
from promptecho.errors import ConfigError, DataError, PromptEchoError
from promptecho.files import write_jsonl
from promptecho.gallery.captions import dense_scene_of, parse_dense
from promptecho.gallery.look_oracle import detect_things, judge_dense
from promptecho.gallery.posters import texts_of_label
from promptecho.gallery.scenes import NoRoom
from promptecho.gallery.text_oracle import read_poster
from promptecho.provenance import Provenance
from promptecho.scores import ScoreItem, Scores, write_scores
from promptecho.shapes.grammar import parse
from promptecho.shapes.oracle import detect, judge

ROOT = Path(__file__).resolve().parent.parent.parent


def edited(kind: str, caption: str, seed: int = 0) -> str | None:
    found = RULES[kind](caption, np.random.default_rng(seed))
    return found.text if isinstance(found, CaptionEdit) else None


@pytest.mark.parametrize(
    ("kind", "caption", "expected"),
    [
        ("swap", "A red car beside a blue house.", "A blue car beside a red house."),
        ("swap", "Red roses and a white fence.", "White roses and a red fence."),
        ("swap", "A red and white flag.", None),
        ("swap", "A red car, a red bus.", None),
        ("relation", "A dog to the left of a cat.", "A dog to the right of a cat."),
        ("relation", "A dog in front of the house.", "A dog behind the house."),
        ("relation", "A man behind the wheel.", None),
        ("relation", "A view from above the clouds.", None),
        ("relation", "A lamp above a bed and below a shelf.", None),
        ("missing", "A dog and a cat.", "A dog."),
        ("missing", "A dog, a horse and three cats", "A dog, a horse"),
        ("missing", "A cat between a dog and a horse.", None),
        ("missing", "Bread and butter.", None),
        ("count", "One of two.", None),
        ("count", "Two thousand years of history.", None),
        ("color", "A black and white photo.", None),
        ("color", "A sign that says “red”.", None),
        ("object", "A cat and another cat.", None),
        ("letter", 'A sign "42".', None),
        ("letter", "No text.", None),
    ],
)
def test_rules_make_the_edit_or_none(kind, caption, expected):
    assert edited(kind, caption) == expected


def test_drawn_edits_change_one_word_only():
    cars = "Green cars near a red bus."
    for seed in range(20):
        color = edited("color", cars, seed)
        assert sum(a != b for a, b in zip(cars.split(), color.split(), strict=True)) == 1
        assert edited("count", "Three old dogs.", seed).split()[0] in ("Two", "Four", "Five")
        assert edited("object", "An apple on a table.", seed).split()[1] == "apple"  # no other one takes "an"
        sign = edited("letter", 'A sign "SALE" here.', seed)
        assert sign != 'A sign "SALE" here.' and sign.replace(sign[8:12], "SALE") == 'A sign "SALE" here.'
        assert sign[8:12].isupper()


def test_reasons_are_counted(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("A red car.\n")
    made = rule_pairs(read_captioned(tmp_path), "here", 1)
    assert made.edits["color"] == {"made": 1} and made.edits["relation"] == {ABSENT: 1}
    assert {pair.kind for pair in made.pairs} == {"color", "object"}
    again = rule_pairs(read_captioned(tmp_path), "here", 1)
    assert [pair.false.text for pair in made.pairs] == [pair.false.text for pair in again.pairs]


def test_pairs_of_shapes_are_what_the_oracle_says():
    made = drawn_pairs(world_named("shapes"), 12, 3)
    assert {pair.kind for pair in made.pairs} == {"object", "color", "count", "relation", "swap", "missing"}
    for pair in made.pairs:
        assert judge(parse(pair.true.text), detect(pair.true.image.open()))
        assert not judge(parse(pair.false.text), detect(pair.false.image.open()))
        assert (pair.true.image is pair.false.image) == (pair.side == "text")


GALLERY_KINDS = {
    "object",
    "color",
    "count",
    "left",
    "right",
    "above",
    "below",
    "swap",
    "missing",
    "size",
    "texture",
    "negation",
}


@pytest.mark.parametrize(("name", "kinds"), [("gallery", GALLERY_KINDS), ("posters", {"letter", "missing", "swap"})])
def test_pairs_of_the_gallery_are_what_its_oracles_say(name, kinds):
    world = world_named(name)
    made = drawn_pairs(world, 24, 3)
    assert {(pair.kind, pair.side) for pair in made.pairs} == {
        (kind, side) for kind in kinds for side in ("text", "image")
    }
    read = parse_dense if name == "gallery" else None
    for pair in made.pairs:
        assert pair.true.image.open().tobytes() != pair.false.image.open().tobytes() or pair.side == "text"
        assert (pair.true.image is pair.false.image) == (pair.side == "text")
        assert (pair.true.text == pair.false.text) == (pair.side == "image")
        if read:
            assert judge_dense(read(pair.true.text), detect_things(pair.true.image.open()))
            assert not judge_dense(read(pair.false.text), detect_things(pair.false.image.open()))
        else:
            true, false = (texts_of_label(ask.text) for ask in (pair.true, pair.false))
            assert read_poster(pair.true.image.open()).poster.texts == true
            assert read_poster(pair.false.image.open()).poster.texts != false
    tried = sum(sum(counts.values()) for counts in made.edits.values())
    assert 2 * 0.95 * tried <= len(made.pairs), made.edits


def test_what_an_image_has_no_room_for_is_counted_and_ends():
    """Six large objects do not fit; normal claims are drawn as before."""
    claim = parse_dense("A large striped black ring, a large purple triangle and four large purple squares.")
    world = replace(world_named("gallery"), changed=lambda *_: {"count": (claim, claim)})
    made = drawn_pairs(world, 1, 3)
    assert made.pairs == [] and made.edits == {"count": {"there is no room to draw it": 1}}
    with pytest.raises(NoRoom):
        dense_scene_of(claim, np.random.default_rng(1), attempts=5)


def ask(name: str, text: str = "A dog.", prompt_id: str = "p") -> Ask:
    return Ask(prompt_id, AuditImage(name, Image.new("RGB", (1, 1))), text)


def test_ties_count_half_and_missing_rewards_not_at_all():
    asks = [ask(str(i)) for i in range(8)]
    pairs = [FactPair("color", "text", a, b) for a, b in zip(asks[::2], asks[1::2], strict=True)]
    values = [1.0, 0.0, 0.5, 0.5, None, 1.0, 0.2, 0.3]
    items = pair_items(pairs, {one: Rated(value) for one, value in zip(asks, values, strict=True)})
    found = accuracy(items)["kinds"]["color"]
    assert (found["value"], found["n"], found["ties"], found["missing"]) == (0.5, 3, 1, 1)
    assert difference(items, items)["value"] == 0.0


def test_auc_compares_images_of_one_prompt_alone():
    rows = [("p", 0, 1.0, 5.0), ("p", 1, 0.0, 4.0), ("p", 2, 0.0, 6.0), ("q", 0, 1.0, -9.0), ("q", 1, 1.0, 9.0)]
    verdicts = [JudgedImage("geneval", "base", ask(f"{p}{i}", prompt_id=p), i, outcome) for p, i, outcome, _ in rows]
    ratings = {verdict.ask: Rated(row[3]) for verdict, row in zip(verdicts, rows, strict=True)}
    found = auc(auc_items(verdicts, ratings))
    assert (found["geneval"]["value"], found["geneval"]["n"], found["geneval"]["prompts"]) == (0.5, 2, 1)


def test_spearman_and_partial():
    x = np.random.default_rng(0).normal(size=200)
    noise = np.random.default_rng(1).normal(size=(2, 200))
    assert spearman(x, np.exp(x))["value"] == pytest.approx(1)
    both = spearman(x + noise[0], x + noise[1])
    assert both["low"] > 0.2  # through x alone
    assert abs(spearman(x + noise[0], x + noise[1], x)["value"]) < 0.15
    assert spearman(x[:5], x[:5])["value"] is None and spearman(x, np.ones(200))["value"] is None


def test_signal_of_words():
    good, bad = [[("A", -1.0), ("red", -1.0), (".", -0.5)]], [[("A", -1.0), ("red", -4.0), (".", -0.5)]]
    signals = [signal_of(str(i), "A red.", good, bad) for i in range(3)]
    table = word_table(signals)
    assert table[0]["word"] == "red" and table[0]["signal"] == 3 and table[0]["share"] == 1 and table[0]["n"] == 3
    assert by_class(signals)["stop words and signs"] == {"n": 6, "signal": 0, "share": 0}


def candidate(label: str, value: float, flops: float | None = 1.0, missing: int = 0) -> dict:
    return {
        "label": label, "failed": None, "missing": missing, "auc": {"all": estimate(value)}, "pairs": {}, "length": {},
        "sensitivity": [], "cost": {"flops": flops, "seconds": 1.0},
    }  # fmt: skip


def estimate(value: float) -> dict:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 10}


def test_rules_of_the_recommendation():
    some = [candidate("dear", 0.9, 5), candidate("tied", 0.88, 2), candidate("worse", 0.7), candidate("chance", 0.55)]
    some += [candidate("silent", 0.99, missing=9)]
    differences = {1: {"value": -0.02, "low": -0.05, "high": 0.01}, 2: {"value": -0.2, "low": -0.3, "high": -0.1}}
    found = advise(some, "auc", 100, lambda measure, i, j: differences[j] if measure == "auc" else None)
    assert (found["best"], found["tied"], found["recommended"], found["by"]) == ("dear", ["tied"], "tied", "flops")
    assert {one["candidate"] for one in found["unusable"]} == {"chance", "silent"}
    beaten = {"value": -0.1, "low": -0.2, "high": -0.01}  # the tied one is worse on pairs
    found = advise(some, "auc", 100, lambda what, i, j: differences[j] if what == "auc" else beaten if j == 1 else None)
    assert (found["tied"], found["outdone"], found["recommended"]) == (["tied"], ["tied"], "dear")
    assert advise([candidate("chance", 0.55)], "auc", 1, lambda measure, i, j: None)["recommended"] is None


def audit(*words: str) -> str:
    result = CliRunner().invoke(make_app("reward-audit"), ["reward-audit", *words], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def scored_images(folder: Path) -> list[str]:
    """Two prompts of two images each, of which one is right; the options that name them."""
    images = folder / "results/e/images/base/0/set"
    rows, items = [], []
    for p, (text, colors) in enumerate(
        {"A red square.": ("red", "blue"), "A <b>green</b> ring.": ("green", "red")}.items()
    ):
        for i, color in enumerate(colors):
            image = Image.new("RGB", (64, 64), "white")
            image.paste(color, (20, 20, 44, 44))
            (images / "x").mkdir(parents=True, exist_ok=True)
            image.save(images / f"{p}_{i}.png")
            rows.append({"prompt_id": str(p), "image_index": i, "prompt": text, "filename": f"{p}_{i}.png"})
            items.append(ScoreItem(prompt_id=str(p), image_index=i, group="g", outcome=float(i == 0), failed=False))
    (images / "shards").mkdir()
    write_jsonl(images / "shards/0.jsonl", rows)
    facts = {"experiment": "e", "run": "base", "step": 0, "benchmark": "heldout", "scorer": "captions"}
    provenance = Provenance(**facts, backend="oracle", mode="official", judge_model="oracle", n=4, failures=0)
    write_scores(folder / "scores.json", Scores(provenance=provenance, summary={"overall": 0.5}, items=items))
    return ["--images", str(images), "--scores", str(folder / "scores.json")]


def without_seconds(folder: Path) -> dict:
    report = json.loads((folder / "audit.json").read_text())
    for one in report["candidates"]:
        one["cost"] and one["cost"].pop("seconds")
    return report


def test_the_command_in_the_embedded_world(tmp_path):
    words = ["--vlm", "shapes", "--captions", "shapes", "--n", "6", "--batch-size", "8", *scored_images(tmp_path)]
    words += ["--reward", "echo", "--reward", "inferscore", "--device", "cpu"]
    output = audit(*words, "--out", str(tmp_path / "one"))
    assert "recommended: none of them" in output  # two pairs of images with verdicts do not show that it is no chance
    report = without_seconds(tmp_path / "one")
    echo, inferscore = report["candidates"]
    assert echo["auc"]["heldout"]["n"] == 2 and echo["pairs"]["image"]["overall"]["value"] > 0.8
    assert {one["what"] for one in echo["sensitivity"]} == {"size", "dtype"}
    assert echo["cost"]["flops"] > 0 and echo["cost"]["input_tokens"] > echo["cost"]["text_tokens"] > 1
    assert "context" in inferscore["failed"]  # its question is longer than what this VLM takes
    assert set(echo["words"]) == {"right and wrong images", "own and changed image"}
    html = (tmp_path / "one/audit.html").read_text()
    assert "<b>" not in html and "&lt;" in html and "http" not in html
    # An interrupted audit goes on to the same numbers, and one that is done asks nothing.
    pages = {path.name: path.read_bytes() for path in (tmp_path / "one").glob("audit.*")}
    audit(*words, "--out", str(tmp_path / "one"))
    assert pages == {path.name: path.read_bytes() for path in (tmp_path / "one").glob("audit.*")}
    shutil.copytree(tmp_path / "one/work", tmp_path / "two/work")
    for path in sorted((tmp_path / "two/work").rglob("*.json"))[::2]:
        path.write_text("{")
    audit(*words, "--out", str(tmp_path / "two"))
    assert without_seconds(tmp_path / "two") == report


def labels_of(folder: Path, text: str, **given) -> list[str]:
    """Labels of the candidates of an experiment that has these lines beside the models of shapes."""
    folder.joinpath("e.yaml").write_text(
        "models:\n  t2i: {family: zimage, path: shapes, height: 64, width: 64}\n  vlm: {path: shapes, dtype: float32}\n"
        f"captions: {{shapes: {{count: 8, seed: 1}}, heldout: 2}}\n{text}"
    )
    asked = {"vlms": [], "queries": [], "rewards": [], "dtype": None, "trust_remote_code": False} | given
    path = folder / "e.yaml"
    return [one.label for one in candidates_of(read_settings(path), path, **asked)]


def test_labels_tell_candidates_apart(tmp_path):
    rewards = (
        "rewards:\n- {name: echo}\n- {name: echo, echo: {reduction: sum}}\n- {name: echo, query: What}\n"
        "- {name: echo, echo: {include_eos: true}}\n- {name: inferscore, inferscore: {max_new_tokens: 32}}\n"
    )
    plain = 'echo, shapes, "Describe this image in detail."'
    first = [plain, f"{plain}, reduction sum", 'echo, shapes, "What"', f"{plain}, include_eos true"]
    assert labels_of(tmp_path, rewards) == [*first, "inferscore, shapes, max_new_tokens 32"]
    assert labels_of(tmp_path, rewards, rewards=["echo"], queries=["What"]) == [
        'echo, shapes, "What"', 'echo, shapes, "What", reduction sum', 'echo, shapes, "What", include_eos true'
    ]  # fmt: skip
    # Runs have rewards and models of their own.
    runs = "runs:\n  a-s1: {rewards: [{name: echo, query: Where}]}\n  a-s2: {rewards: [{name: echo, query: Where}]}\n"
    assert labels_of(tmp_path, f"rewards: [{{name: echo}}]\n{runs}") == [plain, 'echo, shapes, "Where"']
    models = "runs:\n  a: {reward_vlm: {path: a/vlm}}\n  b: {reward_vlm: {path: b/vlm}}\n"
    models += "  c: {reward_vlm: {path: shapes, revision: r}}\n"
    names = [one.split(", ")[1] for one in labels_of(tmp_path, models)]
    assert names == ["shapes @ as it is", "a/vlm", "b/vlm", "shapes @ r"]


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ("{name: echo, echo: {reduction: mean}}", "of 0; leave one of them out"),
        ("{name: echo, weight: 2, label: l.jsonl}", "(they differ in weight and label, which the audit does not use)"),
    ],
)
def test_entries_that_the_audit_cannot_tell_apart_are_refused(second, why, tmp_path):
    with pytest.raises(ConfigError) as error:
        labels_of(tmp_path, f"rewards: [{{name: echo}}, {second}]\n")
    told = str(error.value)
    assert f"{tmp_path}/e.yaml: rewards.1: the audit asks nothing else of it than " in told and why in told
    assert "\n" not in told


def test_words_of_a_label_whose_end_token_counts(tmp_path):
    config = tmp_path / "e.yaml"
    labels_of(tmp_path, "rewards: [{name: echo, echo: {include_eos: true}}]\n")
    words = ["--config", str(config), "--captions", "shapes", "--n", "1", "--scale", "1", "--device", "cpu"]
    audit(*words, "--other-dtype", "float32", "--out", str(tmp_path / "out"))
    (one,) = without_seconds(tmp_path / "out")["candidates"]
    assert one["settings"] == {"include_eos": True}
    assert "(end)" in [row["word"] for row in one["words"]["own and changed image"]["table"]]


def test_a_reward_from_outside_on_captions_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for index, color in enumerate(("red", "blue")):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{index}.png")
    rows = [{"image": "0.png", "caption": "A red square | and a cat."}, {"image": "1.png", "caption": "A blue square."}]
    write_jsonl(tmp_path / "captions.jsonl", rows)
    config = str(ROOT / "examples/reward/shapes-yes.yaml")
    words = ["--config", config, "--captions", str(tmp_path / "captions.jsonl"), "--scale", "1", "--device", "cpu"]
    audit(*words, "--other-dtype", "float32", "--out", str(tmp_path / "out"))
    (one,) = without_seconds(tmp_path / "out")["candidates"]
    assert one["reward"] == "yes" and one["words"] == {} and one["pairs"]["text"]["kinds"]["color"]["n"] == 2
    assert all(line.count("|") - line.count(r"\|") == 4 for line in _table(tmp_path / "out/audit.md", "| Fact | Made"))


def _table(path: Path, head: str) -> list[str]:
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(head))
    return lines[start : lines.index("", start)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vlm", "shapes", "--captions", "shapes", "--reward", "ecko"], "--reward ecko: no such reward"),
        (["--captions", "shapes"], "reward echo: needs a VLM; give --vlm"),
        (["--vlm", "/no/vlm", "--captions", "shapes"], "/no/vlm"),
        (["--vlm", "shapes", "--captions", "nothing.jsonl"], "nothing.jsonl: no such file or folder"),
        (["--vlm", "shapes", "--images", "a", "--images", "b", "--scores", "c"], "2 image folders but 1 score files"),
        (["--vlm", "shapes", "--captions", "shapes", "--dtype", "int8"], "dtype 'int8'"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, tmp_path):
    with pytest.raises(PromptEchoError) as error:
        audit(*words, "--out", str(tmp_path))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_faulty_captions_are_named(tmp_path):
    write_jsonl(tmp_path / "c.jsonl", [{"image": "no.png", "caption": "A dog."}, {"image": "x.png"}])
    with pytest.raises(DataError, match=r"(?s)c.jsonl:1: .*no.png: no such image file.*c.jsonl:2: needs an image"):
        read_captioned(tmp_path / "c.jsonl")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b.png: its caption b.txt is missing"):
        read_captioned(tmp_path)


def test_scores_of_other_images_are_refused(tmp_path):
    options = scored_images(tmp_path)
    Path(options[1], "shards/0.jsonl").write_text(
        Path(options[1], "shards/0.jsonl").read_text().replace('"prompt_id": "', '"prompt_id": "other')
    )
    with pytest.raises(DataError, match="scores none of the images"):
        read_verdicts([Path(options[1])], [Path(options[3])])


def test_pages_without_anything():
    assert to_html_page([]).endswith("</html>\n") and to_markdown_page([]).startswith("# ")
