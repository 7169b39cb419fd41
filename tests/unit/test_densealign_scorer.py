"""Pairs of folders compared by the oracle: which images belong together, items, raw records, failures."""

from __future__ import annotations

import json
import shutil

import pytest
from densealign_world import write_folder, write_pairs
from PIL import Image

from promptecho.benchmarks.captions.layout import METADATA
from promptecho.benchmarks.captions.prompts import read_prompts
from promptecho.benchmarks.densealign.bias import position_bias
from promptecho.benchmarks.densealign.pairs import list_pairs
from promptecho.benchmarks.densealign.scorer import summary_of
from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ImageFolder, Scored, ScoringOptions
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import read_jsonl, write_jsonl

COUNT, IMAGES = 30, 2


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), COUNT, IMAGES)


def score(prompts, candidate, baseline, **options) -> Scored:
    scorer = load_scorer("densealign", ScoringOptions(backend="oracle", **options))
    return scorer.score(ImageFolder(candidate, prompts, IMAGES, baseline))


def test_every_pair_is_an_item(world):
    scored = score(*world)
    keys = [(f"s/{p}", i) for p in range(COUNT) for i in range(IMAGES)]
    assert [(item.prompt_id, item.image_index) for item in scored.items] == keys
    assert {item.group for item in scored.items} == {"all"} and not any(item.failed for item in scored.items)
    assert {item.outcome for item in scored.items} == {1.0, 0.0, -1.0}
    assert scored.prompts_digest == prompts_digest(read_prompts(world[0]))
    outcomes = [item.outcome for item in scored.items]
    summary = scored.summary
    # the candidate is more often right
    assert summary["overall"] == summary["net"] == sum(outcomes) / len(outcomes) > 0
    assert [summary[k] for k in ("win", "tie", "loss")] == [outcomes.count(o) / 60 for o in (1.0, 0.0, -1.0)]
    assert 0 < summary["position_bias_p"] <= 1 and 0 < summary["first_position_rate"] < 1
    assert summary["position_bias_p"] > 0.01  # the oracle is blind to the order


def test_raw_records_are_enough_to_aggregate_again(world, tmp_path):
    scored = score(*world)
    assert {row["swapped"] for row in scored.raw} == {True, False}
    path = tmp_path / "10.raw.jsonl"
    write_jsonl(path, scored.raw)
    assert summary_of(read_jsonl(path)) == scored.summary
    assert position_bias(path)["p_value"] == scored.summary["position_bias_p"]
    row = scored.raw[1]
    assert (row["candidate"], row["baseline"]) == ("00000_00001.png", "00000_00001.png")
    assert set(row["objects"]) == {"candidate", "baseline"} and "facts" in row["reason"]
    assert score(*world).raw == scored.raw


def test_swapping_the_folders_negates_net_exactly(world):
    prompts, candidate, baseline = world
    there, back = score(prompts, candidate, baseline), score(prompts, baseline, candidate)
    assert [-item.outcome for item in there.items] == [item.outcome for item in back.items]
    assert there.summary["net"] == -back.summary["net"]
    assert (there.summary["win"], there.summary["tie"]) == (back.summary["loss"], back.summary["tie"])


def test_the_seed_decides_the_order_and_for_a_symmetric_judge_nothing_else(world):
    first, second = score(*world, seed=0), score(*world, seed=1)
    assert [row["swapped"] for row in first.raw] != [row["swapped"] for row in second.raw]
    assert first.items == second.items
    assert 0.25 < sum(row["swapped"] for row in first.raw) / len(first.raw) < 0.75


def test_equal_folders_tie(world, tmp_path):
    prompts, candidate, _ = world
    copy = shutil.copytree(candidate, tmp_path / "copy")
    summary = score(prompts, candidate, copy).summary
    assert summary == {"overall": 0.0, "net": 0.0, "win": 0.0, "tie": 1.0, "loss": 0.0}  # no position, no bias


def test_what_cannot_be_judged_fails_with_its_reason(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    captions = ["A red ring.", "A dog.", "Two blue stars."]
    write_jsonl(prompts, [{"data_id": str(p), "caption": text} for p, text in enumerate(captions)])
    candidate = write_folder(tmp_path / "a", prompts, [["A red ring."], ["A red ring."], ["Two blue stars."]])
    baseline = write_folder(tmp_path / "b", prompts, [["A red ring."], ["A red ring."], ["Two red stars."]])
    damaged = baseline / "00000_00000.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    scorer = load_scorer("densealign", ScoringOptions("oracle"))
    scored = scorer.score(ImageFolder(candidate, prompts, 1, baseline))
    assert [(item.outcome, item.failed) for item in scored.items] == [(None, True), (None, True), (1.0, False)]
    assert scored.raw[0]["reason"].startswith(f"{damaged}: not a readable image")
    assert scored.raw[1]["reason"] == "caption 'A dog.': 'a dog' is not a phrase of the shapes language"
    assert scored.summary["overall"] == 1.0 and scored.summary["loss"] == 0.0
    assert scored.raw[0]["outcome"] is None and scored.raw[0]["swapped"] in (True, False)
    (candidate / "00002_00000.png").write_bytes(b"")
    with pytest.raises(DataError, match="the backend failed on all 3 images"):
        scorer.score(ImageFolder(candidate, prompts, 1, baseline))


# --- which images are compared -------------------------------------------------------------------------------------


def relist(source, target, change) -> None:
    shutil.copytree(source, target)
    write_jsonl(target / METADATA, [row for row in map(change, read_jsonl(target / METADATA)) if row])


def test_a_baseline_is_needed_and_is_another_folder(world):
    prompts, candidate, _ = world
    with pytest.raises(ConfigError, match=r"pairs need the images of a second run; set .* or give --baseline"):
        list_pairs(ImageFolder(candidate, prompts))
    with pytest.raises(ConfigError, match="is compared with itself"):
        list_pairs(ImageFolder(candidate, prompts, baseline=candidate.parent / "." / candidate.name))
    with pytest.raises(DataError, match="no such image folder"):
        list_pairs(ImageFolder(candidate, prompts, baseline=candidate / "none"))


def test_pairs_are_of_one_id_and_index_whatever_the_order_of_the_listings(world, tmp_path):
    _, candidate, baseline = world
    other = shutil.copytree(baseline, tmp_path / "other")
    rows = read_jsonl(other / METADATA)
    write_jsonl(other / METADATA, [rows[k] for p in range(COUNT - 1, -1, -1) for k in (2 * p, 2 * p + 1)])
    straight, crossed = (list_pairs(ImageFolder(candidate, baseline=b))[0] for b in (baseline, other))
    assert [(p.prompt, p.image_index, p.candidate.name, p.baseline.name) for p in straight] == [
        (p.prompt, p.image_index, p.candidate.name, p.baseline.name) for p in crossed
    ]
    assert all(p.candidate.parent == candidate and p.baseline.parent == other for p in crossed)


def test_folders_that_differ_are_refused_by_name(world, tmp_path):
    prompts, candidate, baseline = world
    relist(baseline, tmp_path / "fewer", lambda row: None if row["data_id"] in ("s/3", "s/4") else row)
    only = rf"e\.g\. prompt 's/3', image 0 only in {candidate};"
    with pytest.raises(DataError, match=rf"4 images are in one folder only, {only}"):
        list_pairs(ImageFolder(candidate, baseline=tmp_path / "fewer"))
    with pytest.raises(DataError, match=only):
        list_pairs(ImageFolder(tmp_path / "fewer", baseline=candidate))
    with pytest.raises(DataError, match="its 28 prompts are not the 30 of the prompt set"):
        list_pairs(ImageFolder(candidate, prompts, baseline=tmp_path / "fewer"))
    relist(baseline, tmp_path / "one", lambda row: row if row["filename"].endswith("_00000.png") else None)
    with pytest.raises(DataError, match=r"30 images are in one folder only, e\.g\. prompt 's/0', image 1"):
        list_pairs(ImageFolder(candidate, baseline=tmp_path / "one"))
    relist(baseline, tmp_path / "texts", lambda row: row | ({"caption": "z" * 99} if row["data_id"] == "s/5" else {}))
    with pytest.raises(DataError, match=r"prompt 's/5' has different captions: '.*' and 'z{60}'; generate both"):
        list_pairs(ImageFolder(candidate, baseline=tmp_path / "texts"))


def test_the_authors_captions_make_pairs(shared, tmp_path):
    prompts = read_prompts(shared / "benchmarks/mirror/densealign/metadata.jsonl")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "x.png")
        rows = [{"data_id": p.data_id, "caption": p.caption, "filename": "x.png"} for p in prompts]
        write_jsonl(tmp_path / name / METADATA, rows)
    folder = ImageFolder(tmp_path / "a", shared / "benchmarks/mirror/densealign/metadata.jsonl", 1, tmp_path / "b")
    assert [pair.prompt for pair in list_pairs(folder)[0]] == prompts and len(prompts) == 2000


# --- options -------------------------------------------------------------------------------------------------------


def test_options_that_make_no_sense(world):
    for options, kind, message in (
        (ScoringOptions("oracle", mode="fixed"), ConfigError, "densealign has only 'official'"),
        (ScoringOptions("yolo"), ModelError, "backend 'yolo' is unknown; known backends: gallery, judge, oracle"),
    ):
        with pytest.raises(kind, match=message):
            load_scorer("densealign", options)


def test_the_oracle_takes_no_calls(world):
    prompts, candidate, baseline = world
    scorer = load_scorer("densealign", ScoringOptions("oracle"))
    assert scorer.judge_model == "oracle"
    found = scorer.estimate(ImageFolder(candidate, prompts, IMAGES, baseline))
    assert (found.calls, found.recorded, found.usd) == (0, 0, 0.0)
    json.dumps(found.__dict__)
