"""Captioning: independent of the batch, and a shard killed at any moment ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from forked import run, start
from tiny_vlm import build, image, shared_folder
from typer.testing import CliRunner

from promptecho.captions.captioner import GenerationSettings, caption_images
from promptecho.captions.shard import ShardSpec, caption_shard
from promptecho.captions.store import read_captions
from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.vlm import load_vlm
from promptecho.vlm.generation import SeededSampling

QUERY = "Describe this image in detail."
SIZES = [(32, 32), (48, 40), (24, 64)]


@pytest.fixture(scope="module")
def vlm():
    return load_vlm(shared_folder())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """60 readable images and a torn one."""
    path = tmp_path_factory.mktemp("images")
    for index in range(60):
        image(index, SIZES[index % 3]).save(path / f"{index:03d}.png")
    (path / "torn.png").write_bytes((path / "000.png").read_bytes()[:300])
    return path


def spec(folder: Path, tmp_path: Path, **options) -> ShardSpec:
    settings = GenerationSettings(max_new_tokens=12, temperature=1.0, batch_size=4)
    values = dict(
        vlm=str(shared_folder()),
        images=str(folder),
        query=QUERY,
        shard=0,
        num_shards=1,
        out=tmp_path / "00000.h5",
        work=tmp_path / "work",
        settings=settings,
    )
    return ShardSpec(**(values | options))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_captions_do_not_depend_on_the_batch(vlm, temperature):
    settings = GenerationSettings(max_new_tokens=10, temperature=temperature, seed=3)
    images, ids = [image(i, SIZES[i % 3]) for i in range(6)], [f"{i}.png" for i in range(6)]
    together = caption_images(vlm, images, ids, QUERY, settings)
    alone = [caption_images(vlm, [p], [i], QUERY, settings)[0] for p, i in zip(images, ids, strict=True)]
    backwards = caption_images(vlm, images[::-1], ids[::-1], QUERY, settings)[::-1]
    assert together == alone == backwards


def test_seed_and_image_id_choose_the_sample(vlm):
    def sample(image_id: str, seed: int) -> str:
        settings = GenerationSettings(max_new_tokens=10, temperature=1.0, seed=seed)
        return caption_images(vlm, [image(0)], [image_id], QUERY, settings)[0].text

    assert len({sample("a", 0), sample("b", 0), sample("a", 1)}) == 3
    assert sample("a", 0) == sample("a", 0)


def test_greedy_takes_the_most_likely_token(vlm):
    from promptecho.vlm.inputs import batch_inputs, render_prompt

    settings = GenerationSettings(max_new_tokens=1)
    for index in range(4):
        inputs = batch_inputs(vlm, [image(index)], [render_prompt(vlm, QUERY)], padding_side="left")
        with torch.no_grad():
            best = vlm.model(**inputs).logits[0, -1].argmax().item()
        [answer] = caption_images(vlm, [image(index)], ["a"], QUERY, settings)
        if best in vlm.eos_ids:
            assert answer.n_tokens == 0 and answer.finish_reason == "stop"
        else:
            assert answer.n_tokens == 1 and answer.text == vlm.tokenizer.decode([best]).strip()


def test_sampling_follows_the_distribution():
    logits = torch.log(torch.tensor([0.1, 0.0, 0.6, 0.3]))
    count = 20_000
    uniforms = torch.rand(count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for temperature in (1.0, 0.5):
        chosen = SeededSampling(uniforms, temperature)(torch.zeros(count, 1), logits.expand(count, 4)).argmax(dim=1)
        expected = (logits / temperature).softmax(dim=0)
        torch.testing.assert_close(chosen.bincount(minlength=4) / count, expected, atol=0.015, rtol=0)
        assert not (chosen == 1).any()
    edges = torch.tensor([[0.0], [1.0 - 1e-16]], dtype=torch.float64)
    assert SeededSampling(edges, 1.0)(torch.zeros(2, 1), logits.expand(2, 4)).argmax(dim=1).tolist() == [0, 3]


def test_stop_and_length_are_told_apart(vlm):
    settings = GenerationSettings(max_new_tokens=40, temperature=1.5)
    ids = [str(i) for i in range(12)]
    answers = caption_images(vlm, [image(i) for i in range(12)], ids, QUERY, settings)
    assert {answer.finish_reason for answer in answers} <= {"stop", "length"}
    for answer in answers:
        assert answer.n_tokens == 40 if answer.finish_reason == "length" else answer.n_tokens < 40
        assert "<|im_end|>" not in answer.text and "\0" not in answer.text and answer.text == answer.text.strip()


def test_too_many_tokens_for_the_context_are_refused(vlm):
    with pytest.raises(DataError, match=r"600 new ones exceed its context of 512"):
        caption_images(vlm, [image(0)], ["a"], QUERY, GenerationSettings(max_new_tokens=600))


def test_shard_holds_every_image_once_and_names_what_it_rejects(folder, tmp_path, capsys):
    parts = [caption_shard(spec(folder, tmp_path, shard=k, num_shards=2, out=tmp_path / f"{k:05d}.h5")) for k in (0, 1)]
    rows = [row for k in (0, 1) for row in read_captions(tmp_path / f"{k:05d}.h5").rows]
    assert sorted(row.image_id for row in rows) == sorted(path.name for path in folder.iterdir())
    [torn] = [row for row in rows if row.image_id == "torn.png"]
    assert torn.finish_reason == "rejected:unreadable_image" and torn.caption == "" and torn.n_tokens == 0
    assert "torn.png: not a readable image" in capsys.readouterr().err
    assert sum(part["rejected"].get("unreadable_image", 0) for part in parts) == 1
    assert not list((tmp_path / "work").iterdir())


def test_finished_shard_is_kept_and_a_changed_image_is_noticed(folder, tmp_path, capsys):
    copy = tmp_path / "images"
    copy.mkdir()
    for name in ("000.png", "001.png", "002.png"):
        shutil.copy(folder / name, copy)
    caption_shard(spec(copy, tmp_path))
    before = (tmp_path / "00000.h5").stat().st_mtime_ns
    caption_shard(spec(copy, tmp_path))
    assert "already complete" in capsys.readouterr().err
    assert (tmp_path / "00000.h5").stat().st_mtime_ns == before
    left = tmp_path / "work" / "00000.journal.jsonl"
    left.write_text("killed before it was removed")
    caption_shard(spec(copy, tmp_path))
    assert not left.exists() and "already complete" in capsys.readouterr().err
    image(99).save(copy / "001.png")
    caption_shard(spec(copy, tmp_path))
    assert "already complete" not in capsys.readouterr().err
    made = (tmp_path / "00000.h5").read_bytes()
    # Set aside, it is found again, beside others that do not fit; not where an image has changed since.
    aside = [tmp_path / f"aside-{k}" / "00000.h5" for k in range(3)]
    for path in aside:
        path.parent.mkdir()
    (tmp_path / "00000.h5").rename(aside[2])
    aside[0].write_bytes(b"damaged")
    caption_shard(spec(copy, aside[1].parent, out=aside[1], query="What?"))
    capsys.readouterr()
    earlier = str(tmp_path / "aside-*" / "00000.h5")
    caption_shard(spec(copy, tmp_path, earlier=earlier))
    said = capsys.readouterr().err
    assert f"taken from {aside[2]}" in said and f"{aside[0]}: " in said
    assert (tmp_path / "00000.h5").read_bytes() == made == aside[2].read_bytes()
    image(98).save(copy / "001.png")
    caption_shard(spec(copy, tmp_path, earlier=earlier))
    assert "taken from" not in capsys.readouterr().err and aside[2].read_bytes() == made
    (tmp_path / "00000.h5").write_bytes(b"damaged")
    caption_shard(spec(copy, tmp_path))
    assert len(read_captions(tmp_path / "00000.h5").rows) == 3


def test_more_shards_than_images_leaves_empty_shards(folder, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(folder / "000.png", images)
    assert caption_shard(spec(images, tmp_path, shard=1, num_shards=2))["captions"] == 0
    assert read_captions(tmp_path / "00000.h5").rows == []


def command(folder: Path, tmp_path: Path, *more: str) -> list[str]:
    return [
        "caption", "shard", "--vlm", str(shared_folder()), "--images", str(folder), "--out", str(tmp_path / "00000.h5"),
        "--work", str(tmp_path / "work"), "--batch-size", "4", "--max-new-tokens", "12", "--temperature", "1",
        "--threads", "1", *more,
    ]  # fmt: skip


def test_sigkill_at_any_moment_changes_nothing(folder, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(command(folder, whole, "--json"))
    journal = killed / "work" / "00000.journal.jsonl"
    seen: list[bytes] = []
    for wanted in (1, 29):
        process = start(command(folder, killed))
        try:
            while not journal.exists() or journal.read_bytes().count(b"\n") <= wanted:
                assert process.poll() is None, "ended before it could be killed"
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
        assert not (killed / "00000.h5").exists()
        data = journal.read_bytes()
        assert data.startswith(b"".join(seen[-1:]))  # nothing that was finished is lost or done again
        seen.append(data[: data.rfind(b"\n") + 1])
        if wanted == 29:  # and a line that was being written when the power went
            journal.write_bytes(data + b'{"image_id": "05')
    run(command(folder, killed, "--json"))
    ids = [row.image_id for row in read_captions(killed / "00000.h5").rows]
    assert ids == sorted(set(ids)) and len(ids) == 61
    assert (killed / "00000.h5").read_bytes() == (whole / "00000.h5").read_bytes()
    assert not journal.exists()


def test_foreign_and_damaged_journals_stop_in_one_line(folder, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    journal = work / "00000.journal.jsonl"
    journal.write_text('{"journal": 1, "query": "Other?"}\n')
    stderr = run(command(folder, tmp_path), code=1)
    lines = [line for line in stderr.splitlines() if line.startswith("promptecho: ")]
    assert "Traceback" not in stderr
    assert len(lines) == 1 and "00000.journal.jsonl: belongs to other work (it differs in" in lines[0]
    assert "query" in lines[0] and journal.read_text() == '{"journal": 1, "query": "Other?"}\n'


def test_config_gives_the_defaults_and_flags_override(folder, tmp_path):
    vlm = build(tmp_path / "vlm")
    config = tmp_path / "tiny.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "models": {
                    "t2i": {"family": "zimage", "path": "shapes"},
                    "vlm": {"path": str(vlm), "dtype": "float32"},
                },
                "captions": {"images": str(folder), "max_new_tokens": 5, "num_shards": 16, "query": "What is it?"},
                "runs": {"a": {}},
            }
        )
    )
    done = CliRunner().invoke(app, [
        "caption", "shard", "--config", str(config), "--shard", "00003", "--out", str(tmp_path / "3.h5"),
        "--work", str(tmp_path / "w"), "--max-new-tokens", "4", "--json",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["captions"] == 4
    file = read_captions(tmp_path / "3.h5")
    assert file.source.query == "What is it?" and file.source.generation["max_new_tokens"] == 4
    assert file.source.generation["dtype"] == "float32" and file.source.vlm == str(vlm)
