"""Embeddings of prompts on disk: the same bits with a full cache, an empty one and none, whatever happens to it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import tiny_flux
import tiny_flux2
import tiny_qwenimage
import tiny_sd3
import tiny_t2i
import torch
from forked import Started, ranks, run, start
from safetensors.torch import load_file
from tiny_experiment import Experiment, metrics_without_times, same_bytes

from promptecho.benchmarks.geneval.shapes import geneval_prompts
from promptecho.config import load_experiment
from promptecho.config.resolve import resolve
from promptecho.errors import DataError
from promptecho.files import read_json, write_jsonl
from promptecho.generate import GenerateJob, generate_shard
from promptecho.t2i import prompt_cache as module
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.t2i.registry import load_family
from promptecho.train.loop import train_segment

FOLDERS = {
    "zimage": tiny_t2i.shared_folder,
    "qwenimage": tiny_qwenimage.shared_folder,
    "flux": tiny_flux.shared_folder,
    "sd3": tiny_sd3.shared_folder,
    "flux2": tiny_flux2.shared_folder,
}
PROMPTS = ["A red circle.", "Two blue squares and a ring.", "A red circle.", "Ein grüner Stern – „schön“\n✓"]
# Encodes prompts 0, 1, 2, ... into a cache.
PROCESS = """
import sys
import torch
from promptecho.t2i.prompt_cache import PromptCache
from promptecho.t2i.registry import load_family
torch.set_num_threads(1)
cache = PromptCache(load_family("zimage", sys.argv[1]), sys.argv[2], turn=(int(sys.argv[3]), 2))
cache.encode([f"prompt {i}" for i in range(int(sys.argv[4]))])
"""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(name: str = "zimage", folder: Path | None = None, **options):
    """A family that counts its text encoder's passes and moves."""
    family = load_family(name, str(folder or FOLDERS[name]()), **options)
    family.passes, family.moves, move = 0, [], family.move_text_encoder

    def count(*_) -> None:
        family.passes += 1

    def moved(device) -> None:
        family.moves.append(str(device))
        move(device)

    family.pipeline.text_encoder.register_forward_pre_hook(count)
    family.move_text_encoder = moved
    return family


def spoilt(**options):
    """A family whose text encoder is of no use any more."""
    family = load(**options)
    for parameter in family.pipeline.text_encoder.parameters():
        parameter.data.fill_(float("nan"))
    return family


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files(folder)}


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FOLDERS)
def test_the_same_bits_with_a_cache_and_without(tmp_path, name, dtype):
    options = {"name": name, "dtype": dtype, "negative_prompt": "Nothing."}
    plain = load(**options)
    expected = plain.encode_prompts(PROMPTS)
    off, cold, warm = load(**options), load(**options), spoilt(**options)
    assert same(PromptCache(off, None).encode(PROMPTS), expected)
    assert off.passes == 3 and not off.moves and not files(tmp_path)
    assert same(PromptCache(cold, tmp_path).encode(PROMPTS), expected)
    assert cold.passes == 4 and cold.moves == ["cpu", "cpu"]  # the negative prompt too; there and back
    cache = PromptCache(warm, tmp_path)
    assert same(cache.encode(PROMPTS), expected) and same(cache.encode(PROMPTS[1:2]), expected[1:2])
    assert warm.passes == 0 and warm.moves == []
    negative = plain.negative(2)
    assert same(cold.negative(2), negative) and same(warm.negative(2), negative) and warm.passes == 0
    assert len(files(tmp_path)) == 4


def test_what_comes_next_is_encoded_while_the_encoder_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AHEAD", 3)
    family, later = load(), [f"prompt {i}" for i in range(9)]
    cache = PromptCache(family, tmp_path)
    cache.encode(["prompt 0"], iter(["prompt 0", "prompt 1", "prompt 1", *later[2:]]))
    assert family.passes == 1 + 1 + 3 and family.moves == ["cpu", "cpu"]
    cache.encode(later[1:4], iter(later[4:]))
    assert family.passes == 5  # nothing was missing, so nothing more was encoded
    cache.encode(later[4:5], iter(later[3:]))
    assert family.passes == 5 + 1 + 3 - 1  # prompt 3 counts among the next, and was there


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "other prompt", "folder"])
def test_a_damaged_file_is_named_and_made_again(tmp_path, capsys, damage):
    expected = load().encode_prompts(PROMPTS)
    PromptCache(load(), tmp_path).encode(PROMPTS)
    good, (one, other) = contents(tmp_path), files(tmp_path)[:2]
    data = bytearray(one.read_bytes())
    if damage == "cut":
        one.write_bytes(data[:-7])
    elif damage == "empty":
        one.write_bytes(b"")
    elif damage == "bit":
        data[-5] ^= 4
        one.write_bytes(data)
    elif damage == "other prompt":
        shutil.copy(other, one)
    else:
        one.unlink()
        one.mkdir()
    family = load()
    assert same(PromptCache(family, tmp_path, turn=(0, 2)).encode(PROMPTS), expected)
    told = capsys.readouterr().err
    assert told.count("damaged (") == 1 and f"{one}: damaged (" in told and family.passes == 1
    if damage == "folder":  # nothing can be put there
        assert "prompt cache: " in told and "embeddings are computed anew each time" in told
        return
    assert contents(tmp_path) == good
    assert same(PromptCache(spoilt(), tmp_path).encode(PROMPTS), expected)
    assert "damaged (" not in capsys.readouterr().err


def test_another_encoder_is_another_key(tmp_path):
    def key(folder: Path, **options) -> set[str]:
        PromptCache(load(folder=folder, **options), tmp_path / "cache").encode(PROMPTS[:1])
        return {path.name for path in (tmp_path / "cache").iterdir()}

    one = tiny_t2i.build(tmp_path / "one")
    first = key(one)
    (about,) = [read_json(tmp_path / "cache" / name / "about.json") for name in first]
    assert about["computed_by"].endswith("1 threads") and about["torch"] == torch.__version__
    copy = tmp_path / "copy"
    shutil.copytree(one, copy)
    assert key(copy) == first  # the same files elsewhere: a copy on a node's disk
    (copy / "transformer" / "config.json").write_text((one / "transformer" / "config.json").read_text() + "\n")
    assert key(copy) == first  # no part of it encodes
    seen = first
    (copy / "tokenizer" / "chat_template.jinja").write_text("Say: {{ messages[0].content }}")
    for folder, options in [
        (copy, {}), (tiny_t2i.build(tmp_path / "other", seed=1), {}), (one, {"dtype": "bfloat16"}),
    ]:  # fmt: skip
        assert len(found := key(folder, **options)) == len(seen) + 1
        seen = found
    torch.set_num_threads(2)  # rounding may differ
    assert len(key(one)) == len(seen) + 1


def test_a_pipeline_in_the_hubs_cache_is_known_by_its_files(tmp_path, monkeypatch):
    from huggingface_hub import constants

    hub = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789" * 4
    folder = hub / "models--owner--name"
    shutil.copytree(tiny_t2i.shared_folder(), folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    identity = load().text_identity
    assert load(folder="owner/name").text_identity == identity
    assert load(folder="owner/name", revision=commit).text_identity == identity


def test_killed_in_the_middle_it_leaves_whole_files_only(tmp_path):
    rng = random.Random(7)
    for wanted in (2, 5 + rng.randrange(20)):
        process = encode(tmp_path, 0, 200)
        while len(files(tmp_path)) < wanted:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(rng.uniform(0.0005, 0.002))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    left = files(tmp_path)
    assert wanted <= len(left) < 200
    for path in left:
        assert load_file(path)[module.NAME].isfinite().all()
    family, prompts = load(), [f"prompt {i}" for i in range(40)]
    there = sum(PromptCache(load(), tmp_path)._path(prompt).exists() for prompt in [*prompts, ""])
    assert same(PromptCache(family, tmp_path).encode(prompts), load().encode_prompts(prompts))
    assert family.passes == 41 - there < 41


def encode(folder: Path, rank: int, prompts: int) -> Started:
    arguments = [str(tiny_t2i.shared_folder()), str(folder), str(rank), str(prompts)]
    script = folder.parent / "encode.py"
    script.write_text(PROCESS)
    return start(arguments, script=script)


def test_two_processes_at_once_write_what_one_would(tmp_path):
    PromptCache(load(), tmp_path / "alone").encode([f"prompt {i}" for i in range(30)])
    both = [encode(tmp_path / "both", rank, 30) for rank in (0, 1)]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert "damaged (" not in "".join(told)
    assert contents(tmp_path / "both") == contents(tmp_path / "alone")
    assert not list((tmp_path / "both").rglob("*.tmp"))


def test_where_nothing_can_be_written_all_goes_on_without(tmp_path, capsys, monkeypatch):
    expected = load().encode_prompts(PROMPTS)
    (tmp_path / "file").write_text("x")
    full = tmp_path / "full"
    for folder, reserve, why in (
        (tmp_path / "file" / "cache", module.RESERVE, "cannot write"), (full, 1 << 60, f"{full}/"),
    ):  # fmt: skip
        monkeypatch.setattr(module, "RESERVE", reserve)
        family = load()
        cache = PromptCache(family, folder)
        assert same(cache.encode(PROMPTS, ["more"]), expected) and same(cache.encode(PROMPTS), expected)
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and why in told and "embeddings are computed anew each time" in told
        assert family.moves[-1] == str(family.device) and not files(tmp_path)


def test_beyond_the_limit_what_was_longest_not_read_goes(tmp_path):
    """And is computed again, to the same bits; what is in use stays."""
    prompts = [f"prompt {i}" for i in range(40)]
    PromptCache(load(), tmp_path).encode(prompts)
    size, hour = files(tmp_path)[0].stat().st_size, 3600
    cache = PromptCache(load(), tmp_path, limit_gb=30 * size / 1e9)
    old = [cache._path(prompt) for prompt in prompts[:20]]
    for path in files(tmp_path):
        written = time.time() - (10 if path in old else 5) * hour
        os.utime(path, (written, written))
    expected = load().encode_prompts(prompts)
    assert same(cache.encode(prompts[:2]), expected[:2])  # read again, so they are the youngest
    assert len(files(tmp_path)) == 41  # reading deletes nothing
    cache.encode([f"other {i}" for i in range(3)])
    left, others = set(files(tmp_path)), {cache._path(f"other {i}") for i in range(3)}
    assert 20 < len(left) <= 30 and others <= left
    assert {*old[:2], *map(cache._path, prompts[20:])} <= left  # so what is gone is of the 18 oldest
    family = load()
    assert same(PromptCache(family, tmp_path, limit_gb=1).encode(prompts), expected)
    assert family.passes == 40 - len(left & set(map(cache._path, prompts))) > 10


def test_what_is_not_finite_is_not_kept(tmp_path):
    (embedding,) = PromptCache(spoilt(), tmp_path).encode(PROMPTS[:1])
    assert embedding.isnan().all() and not files(tmp_path)


def test_a_prompt_that_is_too_long_is_refused_as_without(tmp_path):
    family = load()
    with pytest.raises(DataError, match="lower captions.max_tokens"):
        PromptCache(family, tmp_path).encode(["A red circle.", "and a red circle " * 300])
    assert family.moves == ["cpu", "cpu"]  # it does not stay


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("cached"))


def test_a_run_is_the_same_with_a_full_cache_an_empty_one_and_none(experiment):
    cache, folders = experiment.folder / "cache", {}
    for name in ("off", "cold", "warm"):
        config = experiment.config(
            name, iterations=2, checkpoints=[2], sampling={"guidance_scale": 2.0},
            sections={"models_prompt_cache": None if name == "off" else str(cache)},
        )  # fmt: skip
        before = contents(cache)
        assert train_segment(experiment.segment(name, config, 2))
        folders[name] = experiment.folder / name / "2"
        assert len(contents(cache)) == (0 if name == "off" else 5)  # twice two prompts and the negative one
        assert name != "warm" or contents(cache) == before
    for name in ("cold", "warm"):
        assert same_bytes(folders[name], folders["off"]) == []
        assert metrics_without_times(folders[name]) == metrics_without_times(folders["off"])


def test_two_ranks_share_an_empty_cache(experiment):
    folders = []
    for name in ("ranks-off", "ranks-cold"):
        cache = None if name == "ranks-off" else str(experiment.folder / "cache-of-ranks")
        config = experiment.config(name, iterations=2, checkpoints=[2], sections={"models_prompt_cache": cache})
        told = run(experiment.train(config, 2, name), ranks(2))
        assert "damaged (" not in told
        folders.append(experiment.folder / name / "2")
    assert same_bytes(*folders) == []
    assert len(files(experiment.folder / "cache-of-ranks")) == 5  # two iterations of two prompts, the negative one


def test_images_are_the_same_with_a_full_cache_an_empty_one_and_none(experiment):
    rows = geneval_prompts(1, 0)[:4]
    prompts = experiment.folder / "metadata.jsonl"
    write_jsonl(prompts, rows)
    image_set = {"benchmark": "geneval", "images_per_prompt": 2, "guidance_scale": 1.0, "num_inference_steps": 2,
                 "batch_size": 2, "prompts": str(prompts)}  # fmt: skip
    pictures = {}
    for name in ("off", "cold", "warm"):
        cache = None if name == "off" else str(experiment.folder / "cache-of-images")
        config = experiment.config(name, sections={"image_sets": {"s": image_set}, "models_prompt_cache": cache})
        out = experiment.folder / "images" / name
        generate_shard(
            GenerateJob(
                load_experiment(config), "base", 0, "s", prompts, 0, 1, out, experiment.folder / "work-images" / name
            )
        )
        pictures[name] = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.png")}
    assert pictures["off"] == pictures["cold"] == pictures["warm"] and len(pictures["off"]) == 8
    assert len(files(experiment.folder / "cache-of-images")) == 5


def test_the_site_says_where(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parent.parent.parent)
    found = [
        resolve({"experiments": ["shapes"], **models})["shapes"].models_prompt_cache
        for models in ({}, {"models": {"prompt_cache": "/shared/{experiment}"}}, {"models": {"prompt_cache": None}})
    ]
    assert found == ["results/shapes/work/prompts", "/shared/shapes", None]
