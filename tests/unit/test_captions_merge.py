"""Merge, cut and split: nothing shared between training and held-out captions, nothing lost without a count."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_vlm import shared_folder

from promptecho.captions.cut import Cutter
from promptecho.captions.merge import MergeSpec, import_prompts, merge_shards
from promptecho.captions.split import split_captions
from promptecho.captions.store import (
    CaptionRow,
    CaptionSource,
    load_training_captions,
    read_captions,
    write_captions,
)
from promptecho.errors import DataError, ModelError
from promptecho.files import read_jsonl

SOURCE = CaptionSource("models/vlm", "files-0123", "Describe.", {"temperature": 0.0})


def row(index: int, caption: str = "", reason: str = "stop", sha: str = "") -> CaptionRow:
    return CaptionRow(f"{index:03d}.png", caption or f"caption {index}", 3, reason, sha or f"{index:064x}")


def spec(tmp_path, heldout: int = 2, **options) -> MergeSpec:
    return MergeSpec(tmp_path / "captions.h5", tmp_path / "heldout.jsonl", heldout, **options)


def shards(tmp_path, *parts: list[CaptionRow]):
    paths = [tmp_path / f"{index:05d}.h5" for index in range(len(parts))]
    for path, rows in zip(paths, parts, strict=True):
        write_captions(path, SOURCE, rows)
    return paths


ROWS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=30).map(
    lambda pairs: [row(i, f"caption {c}", sha=f"{s:064x}") for i, (c, s) in enumerate(pairs)]
)


@settings(deadline=None)
@given(ROWS, st.integers(0, 4), st.integers(0, 3), st.randoms(use_true_random=False))
def test_split_is_exact_disjoint_and_independent_of_order(rows, heldout, seed, rng: random.Random):
    try:
        training, held = split_captions(rows, heldout, seed)
    except DataError as error:
        assert f"heldout {heldout}" in str(error)
        assume(False)
    assert len(held) == heldout and training
    assert not {r.caption for r in training} & {r.caption for r in held}
    assert not {r.image_sha256 for r in training} & {r.image_sha256 for r in held}
    assert len({r.caption for r in held}) == len({r.image_sha256 for r in held}) == heldout
    left = [r for r in rows if r not in training and r not in held]
    for r in left:  # dropped only because it shares something with a held-out row
        assert any(r.caption == h.caption or r.image_sha256 == h.image_sha256 for h in held)
    shuffled = rng.sample(rows, len(rows))
    again, held_again = split_captions(shuffled, heldout, seed)
    assert set(again) == set(training) and set(held_again) == set(held)


def test_seed_changes_the_split():
    rows = [row(i) for i in range(200)]
    assert split_captions(rows, 20, 0)[1] != split_captions(rows, 20, 1)[1]


def test_split_that_cannot_be_is_refused():
    with pytest.raises(DataError, match="heldout 3: only 2 captions differ"):
        split_captions([row(0), row(1), row(2, "caption 0")], 3, 0)
    with pytest.raises(DataError, match="heldout 2: no caption is left to train on"):
        split_captions([row(0), row(1)], 2, 0)


def test_merge_is_independent_of_shard_order_and_writes_both_files(tmp_path):
    paths = shards(tmp_path, [row(i) for i in range(0, 20, 2)], [row(i) for i in range(1, 20, 2)], [])
    counts = merge_shards(paths, spec(tmp_path))
    written = {"training": 18, "heldout": 2, "rejected": {}, "cut": 0, "kept_apart": 0}
    assert counts == {**written, "cut_by": {}, "repeated": 0}
    first = (tmp_path / "captions.h5").read_bytes(), (tmp_path / "heldout.jsonl").read_bytes()
    merge_shards(paths[::-1], spec(tmp_path))
    assert first == ((tmp_path / "captions.h5").read_bytes(), (tmp_path / "heldout.jsonl").read_bytes())
    captions = load_training_captions(tmp_path / "captions.h5")
    held = read_jsonl(tmp_path / "heldout.jsonl")
    assert [set(line) for line in held] == [{"data_id", "caption"}] * 2
    names = [caption.prompt_id for caption in captions]
    assert names == sorted(names) and sorted(names + [line["data_id"] for line in held]) == [
        f"{i:03d}.png" for i in range(20)
    ]
    limits = {"max_words": 200, "max_tokens": None, "seed": 0}
    assert read_captions(tmp_path / "captions.h5").merge == {**limits, **written}  # the same bytes as ever


def test_rejected_are_counted_and_limited(tmp_path):
    rows = [row(i) for i in range(18)] + [row(18, reason="rejected:unreadable_image"), row(19, reason="rejected:empty")]
    paths = shards(tmp_path, rows)
    counts = merge_shards(paths, spec(tmp_path, max_rejected_share=0.1))
    assert counts["rejected"] == {"empty": 1, "unreadable_image": 1} and counts["training"] == 16
    with pytest.raises(DataError, match=r"2 of 20 captions are rejected \(empty: 1, unreadable_image: 1; 018.png, 019"):
        merge_shards(paths, spec(tmp_path, max_rejected_share=0.09))


def test_shards_that_do_not_fit_are_named(tmp_path):
    paths = shards(tmp_path, [row(0), row(1), row(5)], [row(1), row(2)])
    with pytest.raises(DataError, match=r"00001\.h5: image 001\.png is in .*00000\.h5 too"):
        merge_shards(paths, spec(tmp_path))
    write_captions(paths[1], CaptionSource("models/vlm", "files-0123", "Other.", {"temperature": 0.0}), [row(2)])
    with pytest.raises(DataError, match=r"00001\.h5: query is 'Other\.', but 'Describe\.' in .*00000\.h5"):
        merge_shards(paths, spec(tmp_path))
    write_captions(paths[1], CaptionSource("moved/vlm", "files-0123", "Describe.", {"temperature": 0.0}), [row(2)])
    assert merge_shards(paths, spec(tmp_path, 1))["training"] == 3
    with pytest.raises(DataError, match="captions.h5: is a merged file"):
        merge_shards([*paths, tmp_path / "captions.h5"], spec(tmp_path))
    paths[0].write_bytes(paths[0].read_bytes()[:600])
    write_captions(tmp_path / "other.h5", CaptionSource("vlm", "main", "Describe.", {"temperature": 0.0}), [row(7)])
    bad = [*paths, tmp_path / "other.h5", tmp_path / "captions.h5", tmp_path / "missing.h5"]
    with pytest.raises(DataError) as told:  # all at once
        merge_shards(bad, spec(tmp_path))
    lines = str(told.value).splitlines()
    named = ("00000.h5: damaged", "captions.h5: is a", "missing.h5: ", "other.h5: vlm_revision is")
    assert len(lines) == len(named) and all(any(name in line for line in lines) for name in named), lines
    with pytest.raises(DataError, match="no captions to merge"):
        merge_shards([], spec(tmp_path))


def test_forgotten_shard_is_noticed(tmp_path):
    paths = [tmp_path / f"{k}.h5" for k in range(3)]
    for k, path in enumerate(paths):
        write_captions(path, SOURCE, [row(2 * k), row(2 * k + 1)], shard=(k, 3))
    assert merge_shards(paths, spec(tmp_path))["training"] == 4
    with pytest.raises(DataError, match="of 3 shards .numbered from 0. these are missing: 1;"):
        merge_shards([paths[0], paths[2]], spec(tmp_path))
    write_captions(paths[2], SOURCE, [row(9)], shard=(2, 4))
    with pytest.raises(DataError, match="give all of one captioning"):
        merge_shards(paths, spec(tmp_path))


def test_command_merge_takes_shards_and_configuration(tmp_path):
    import yaml
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_folder())
    tokenizer.save_pretrained(tmp_path / "t2i" / "tokenizer")
    paths = shards(tmp_path, [row(i, f"{i} word word word word") for i in range(5)], [row(i) for i in range(5, 9)])
    (tmp_path / "tiny.yaml").write_text(
        yaml.safe_dump(
            {
                "models": {"t2i": {"family": "zimage", "path": str(tmp_path / "t2i")}, "vlm": {"path": "vlm"}},
                "captions": {"prompts": "p.txt", "heldout": 3, "max_words": 4, "max_tokens": 3},
                "runs": {"a": {}},
            }
        )
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "promptecho",
            "caption",
            "merge",
            "--shards",
            *map(str, paths),
            "--json",
            "--config",
            str(tmp_path / "tiny.yaml"),
            "--out",
            str(tmp_path / "c.h5"),
            "--heldout-out",
            str(tmp_path / "h.jsonl"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["heldout"] == 3 and counts["training"] + counts["kept_apart"] == 6 and counts["cut"] == 9
    for caption in load_training_captions(tmp_path / "c.h5"):
        assert len(tokenizer(caption.text).input_ids) <= 3


def test_faulty_merge_leaves_no_file(tmp_path):
    paths = shards(tmp_path, [row(0, reason="rejected:empty"), row(1)])
    with pytest.raises(DataError):
        merge_shards(paths, spec(tmp_path))
    assert not (tmp_path / "captions.h5").exists() and not (tmp_path / "heldout.jsonl").exists()


@given(st.text(max_size=60), st.integers(1, 8))
def test_cut_to_words_keeps_a_start_of_the_text(text, words):
    cut = Cutter(words)(text)
    assert cut == text.strip() if len(text.split()) <= words else cut.split() == text.split()[:words]
    assert text.strip().startswith(cut) and cut == cut.strip()


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.integers(1, 12))
def test_cut_to_tokens_fits_and_wastes_little(text, limit):
    cutter = Cutter(1000, limit, str(shared_folder()))
    cut = cutter(text)
    count = len(cutter._loaded(cut, add_special_tokens=False).input_ids)
    assert text.strip().startswith(cut) and count <= limit
    assert cutter(cut) == cut


def test_cut_takes_the_tokenizer_of_a_pipeline_folder(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_folder())
    tokenizer.save_pretrained(tmp_path / "pipeline" / "tokenizer")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    text = "A red circle above a blue square. " * 5
    cut = Cutter(200, 10, str(tmp_path / "pipeline"))(text)
    assert cut == Cutter(200, 10, str(shared_folder()))(text)
    assert tokenizer(cut).input_ids == tokenizer(text).input_ids[: len(tokenizer(cut).input_ids)]
    with pytest.raises(ModelError, match="cannot load the tokenizer"):
        Cutter(200, 10, str(tmp_path))(text)


def test_captions_are_cut_once_in_both_files(tmp_path):
    long = [row(i, " ".join([str(i)] + ["word"] * 300)) for i in range(10)]
    counts = merge_shards(shards(tmp_path, long), spec(tmp_path, max_words=200))
    assert counts["cut"] == 10
    texts = [c.text for c in load_training_captions(tmp_path / "captions.h5")]
    texts += [line["caption"] for line in read_jsonl(tmp_path / "heldout.jsonl")]
    assert {len(text.split()) for text in texts} == {200}


def test_prompts_give_the_same_files(tmp_path):
    (tmp_path / "p.txt").write_text("".join(f"prompt {i % 40}\n" for i in range(50)))
    counts = import_prompts(tmp_path / "p.txt", spec(tmp_path, 5))
    assert counts["heldout"] == 5 and counts["training"] + counts["kept_apart"] == 45
    assert read_captions(tmp_path / "captions.h5").source.vlm == "none"
    held = {line["caption"] for line in read_jsonl(tmp_path / "heldout.jsonl")}
    assert len(held) == 5
    assert not held & {caption.text for caption in load_training_captions(tmp_path / "captions.h5")}


def test_command_prompts_prints_json_and_one_line_errors(tmp_path):
    (tmp_path / "p.txt").write_text("".join(f"prompt {i}\n" for i in range(12)))
    command = [
        sys.executable,
        "-m",
        "promptecho",
        "caption",
        "prompts",
        "--prompts",
        str(tmp_path / "p.txt"),
        "--out",
        str(tmp_path / "c.h5"),
        "--heldout-out",
        str(tmp_path / "h.jsonl"),
        "--json",
    ]
    done = subprocess.run([*command, "--heldout", "2"], capture_output=True, text=True)
    assert json.loads(done.stdout)["training"] == 10, done.stderr
    done = subprocess.run([*command, "--heldout", "30"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("promptecho: heldout 30: only 12") and done.stderr.count("\n") == 1
