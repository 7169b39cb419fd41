"""GenEval's rules: the official evaluator's answers, and small cases that need no golden file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from promptecho.benchmarks import golden
from promptecho.benchmarks.geneval import rules
from promptecho.benchmarks.geneval.colors import classify_colors
from promptecho.benchmarks.geneval.rules import Options, evaluate_image, iou, keep_boxes, relations, summarize
from promptecho.cli import app
from promptecho.errors import DataError


def test_official_answers(golden_folder):
    """Every golden case is reproduced, and every kind that this package knows has some."""
    reports, _ = golden.verify(golden_folder)
    assert {report.file for report in reports} == set(golden.checks())
    assert {report.file: report.failures for report in reports} == {name: [] for name in golden.checks()}
    assert all(report.passed == report.total > 0 for report in reports)


def _higher_scores(real):
    return lambda boxes, threshold, options: real([[*b[:4], b[4] + 1e-6] for b in boxes], threshold, options)


WRONG_RULES = {
    "scores a little too high": ("keep_boxes", _higher_scores),
    "position without its margin": ("relations", lambda real: lambda a, b, t=0.1: real(a, b, 0.0)),
    "IoU without the extra pixel": ("iou", lambda real: lambda a, b: real(np.asarray(a) * 1e3, np.asarray(b) * 1e3)),
}


@pytest.mark.parametrize("rule", sorted(WRONG_RULES))
def test_golden_cases_notice_a_wrong_rule(golden_folder, monkeypatch, rule):
    """The comparison itself works: each of these known slips makes golden cases fail."""
    name, spoil = WRONG_RULES[rule]
    monkeypatch.setattr(rules, name, spoil(getattr(rules, name)))
    reports, _ = golden.verify(golden_folder)
    assert any(report.failures for report in reports)


def test_verify_command_lists_what_it_skips_and_fails_on_a_wrong_case(golden_folder, tmp_path):
    folder = tmp_path / "golden"
    (folder / "geneval").mkdir(parents=True)
    (folder / "other").mkdir()
    official = golden_folder / "geneval" / "relations.jsonl"
    shutil.copyfile(official, folder / "geneval" / "relations.jsonl")
    (folder / "other" / "unknown.jsonl").write_text("{}\n")
    run = CliRunner().invoke(app, ["benchmarks", "verify", "--golden", str(folder)])
    assert run.exit_code == 0
    assert "other/unknown.jsonl: skipped" in run.output
    assert "dpg/scenarios.jsonl: skipped, the folder holds no file of this kind" in run.output
    case = {"id": "bad", "a": [0, 0, 9, 9], "b": [100, 0, 109, 9], "relations_of_a_to_b": ["above"], "iou": 0.0}
    (folder / "geneval" / "relations.jsonl").write_text(json.dumps(case) + "\n")
    run = CliRunner().invoke(app, ["benchmarks", "verify", "--golden", str(folder), "--json"])
    assert run.exit_code == 1
    report = json.loads(run.stdout)
    assert report["files"][0]["failures"][0]["id"] == "bad"
    assert report["skipped"] == ["other/unknown.jsonl"]


def test_verify_of_a_folder_without_cases_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no golden files"):
        golden.verify(tmp_path)


def one(name, count=1, **extra):
    return {"class": name, "count": count, **extra}


def meta(*include, tag="single_object", exclude=None):
    return {"tag": tag, "include": list(include), "prompt": "x"} | ({"exclude": exclude} if exclude else {})


def box(x, y, score=0.95, size=10):
    return [x, y, x + size, y + size, score]


def test_thresholds_are_strict_and_float32():
    assert not evaluate_image(meta(one("cat")), {"cat": [box(0, 0, 0.3)]}, {}).correct
    above = float(np.nextafter(np.float32(0.3), np.float32(1)))
    assert evaluate_image(meta(one("cat")), {"cat": [box(0, 0, above)]}, {}).correct
    assert not evaluate_image(meta(one("cat"), tag="counting"), {"cat": [box(0, 0, 0.9)]}, {}).correct
    assert not evaluate_image(meta(one("cat"), tag="counting"), {"cat": [box(0, 0, 0.5)]}, {}).correct


def test_counting_fails_with_one_too_many():
    three = {"cat": [box(20 * i, 0) for i in range(3)]}
    verdict = evaluate_image(meta(one("cat", 2), tag="counting", exclude=[one("cat", 3)]), three, {})
    assert (verdict.correct, verdict.reason) == (False, "expected cat<3, found 3")
    assert evaluate_image(meta(one("cat", 2), tag="counting"), three, {}).correct


def test_color_is_judged_on_the_best_box_only():
    boxes, colors = {"cup": [box(0, 0, 0.5), box(50, 0, 0.9)]}, {"cup": ["red", "blue"]}
    assert not evaluate_image(meta(one("cup", color="red"), tag="colors"), boxes, colors).correct
    assert evaluate_image(meta(one("cup", color="blue"), tag="colors"), boxes, colors).correct


def test_colors_outside_the_ten_are_told():
    verdict = evaluate_image(meta(one("cup", color="red"), tag="colors"), {"cup": [box(0, 0)]}, {"cup": ["teal"]})
    assert verdict.reason == "expected red cup>=1, found 0 red; and 1 teal"


def test_a_missing_color_answer_is_an_error():
    with pytest.raises(DataError, match="'cup': 0 answers"):
        evaluate_image(meta(one("cup", color="red"), tag="colors"), {"cup": [box(0, 0)]}, {})


def test_position_needs_its_target():
    clause = one("dog", position=["left of", 0])
    verdict = evaluate_image(meta(one("cat"), clause, tag="position"), {"dog": [box(0, 0)]}, {})
    assert verdict.reason == "expected cat>=1, found 0\nno target for dog to be left of"
    boxes = {"dog": [box(0, 0)], "cat": [box(60, 0)]}
    assert evaluate_image(meta(one("cat"), clause, tag="position"), boxes, {}).correct


def test_identical_boxes_survive_without_nms_and_not_with_it():
    boxes = [box(0, 0, 0.9), box(0, 0, 0.8), box(100, 100, 0.7)]
    assert [d.index for d in keep_boxes(boxes, 0.3, Options())] == [0, 1, 2]
    assert [d.index for d in keep_boxes(boxes, 0.3, Options(max_overlap=0.5))] == [0, 2]


boxes_strategy = st.lists(st.floats(0, 1000, width=32), min_size=4, max_size=4).map(
    lambda v: [min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3])]
)
MIRROR = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@given(boxes_strategy, boxes_strategy)
def test_relations_mirror_and_iou_is_symmetric(a, b):
    assert {MIRROR[name] for name in relations(a, b)} == relations(b, a)
    assert iou(a, b) == iou(b, a)
    assert 0 <= iou(a, b) <= 1.0001
    assert relations(a, a) == set()


@given(st.lists(st.tuples(boxes_strategy, st.floats(0, 1, width=32)), max_size=30), st.integers(1, 20))
def test_kept_boxes_are_sorted_capped_and_above_threshold(rows, cap):
    kept = keep_boxes([[*b, s] for b, s in rows], 0.3, Options(max_objects=cap))
    scores = [float(d.box[4]) for d in kept]
    assert scores == sorted(scores, reverse=True)
    assert len(kept) == min(cap, sum(np.float32(s) > np.float32(0.3) for _, s in rows))
    assert all(list(d.box[:4]) == list(np.float32(rows[d.index][0])) for d in kept)


def test_overall_is_the_mean_of_tags_not_of_images():
    rows = [("counting", "a", True)] * 1 + [("colors", "b", False)] * 3 + [("colors", "c", True)]
    summary = summarize(rows)
    assert summary["overall"] == pytest.approx((1 + 0.25) / 2)
    assert summary["images_correct"] == pytest.approx(2 / 5)
    assert summary["prompts_any_correct"] == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="no images"):
        summarize([])


def test_color_classifier_normalises_each_template():
    text = np.zeros((2, 3, 2))
    text[0] = [[100, 0], [0, 1], [0, 1]]  # one long vector must not outweigh the two others
    text[1] = [[1, 0], [1, 0], [0.6, 0.8]]
    assert classify_colors(text, np.array([[0.0, 5.0], [5.0, 0.0]]), ("red", "blue")) == ["red", "blue"]


def test_color_classifier_bears_features_of_zero():
    """A feature without a direction says nothing: it does not make NaN of the colour, which would win everywhere."""
    text = np.zeros((2, 3, 2))
    text[0] = [[1, 0], [1, 0], [1, 0]]
    text[1] = [[0, 1], [0, 0], [0, 1]]
    crops = np.array([[1.0, 0.2], [0.2, 1.0], [0.0, 0.0]])
    assert classify_colors(text, crops, ("red", "blue")) == ["red", "blue", "red"]
