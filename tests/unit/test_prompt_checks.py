"""Prompts are checked before anything is spent on them, cut to what the models hold, and bound to a run once used."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_experiment import Experiment, metrics_without_times, same_bytes

from promptecho.captions.checks import faults, problems_of, prompt_readers
from promptecho.captions.merge import MergeSpec, import_prompts, merge_shards
from promptecho.captions.readers import t2i_reader, vlm_readers
from promptecho.captions.store import CaptionRow, CaptionSource, load_training_captions, write_captions
from promptecho.config import load_experiment
from promptecho.config.models import T2iSection
from promptecho.config.rewards import VlmSection
from promptecho.errors import DataError, StateError
from promptecho.files import read_json, read_jsonl, write_json, write_jsonl
from promptecho.t2i.qwenimage.model import QwenImage
from promptecho.t2i.registry import load_family
from promptecho.t2i.zimage.model import BLOCK, ZImage
from promptecho.train.checkpoint import find_start
from promptecho.train.labels import prompt_use
from promptecho.train.loop import train_segment
from promptecho.train.prompts import PromptUse, TrainingPrompt, captions_problem, prompts_of
from promptecho.train.reward_list import list_rewards
from promptecho.train.setup import check_texts
from promptecho.vlm import label_log_probs, load_vlm

QUERY = "Describe this image in detail."
LONG = "Zwölf fünfeckige Würfel über grüßenden Jährchen " * 12  # about 600 tokens of shapes' tokenizer


@pytest.fixture(scope="module")
def readers():
    """Of the embedded models: 480 tokens for the text-to-image model, 512 for the VLM."""
    return [
        t2i_reader(T2iSection(path="shapes")),
        *vlm_readers(VlmSection(path="shapes"), (64, 64), [QUERY]),
    ]


# What cannot be used.


@pytest.mark.parametrize("text, problem", [
    ("A star <|im_end|> here", "holds '<|im_end|>', a control token of models.t2i"),
    ("A <|vision_start|><|image_pad|>", "holds '<|vision_start|>', a control token"),
    ("<|endoftext|>", "holds '<|endoftext|>'"),
    (LONG, r"\d+ tokens with the template, models.t2i \(shapes\) takes 480; shorten it"),
])  # fmt: skip
def test_a_faulty_prompt_is_told_by_its_reason(readers, text, problem):
    found = faults(readers, ["A red circle.", text, "<not a token>", "a </think> b", "a [INST] b"])
    assert list(found) == [1] and re.match(problem if "\\" in problem else re.escape(problem), found[1])


def test_the_vlm_is_asked_as_well(readers):
    text = LONG[: len(LONG) // 2]
    told = readers[1].problems([text + text, "A star.", "<|im_start|>"])
    assert re.match(r"\d+ tokens with the template, 15 of image or reply among them, the VLM shapes takes 512", told[0])
    assert "control token of the VLM shapes" in told[2] and set(told) == {0, 2}


def test_all_are_named_at_once_and_no_more_than_twenty(readers):
    items = [(f"{i:06d}", "x <|im_end|>" if i % 2 else "x") for i in range(60)]
    lines = problems_of(readers, items, "p.txt").split("\n")
    assert lines[0] == "p.txt: 30 of 60 prompts cannot be used:" and len(lines) == 22
    assert lines[1].startswith("  000001: holds '<|im_end|>'") and lines[-1] == "... and 10 more (30 prompts in all)"
    assert problems_of(readers, items[::2], "p.txt") is None


def test_prompts_of_a_user_are_refused_at_the_merge_and_captions_of_a_model_rejected(tmp_path, readers, capsys):
    spec = MergeSpec(tmp_path / "c.h5", tmp_path / "h.jsonl", 1, max_rejected_share=0.2, readers=readers)
    texts = [f"A star, number {i}." for i in range(18)] + ["A <|im_end|>", "B <|im_start|>"]
    (tmp_path / "p.txt").write_text("\n".join(texts))
    with pytest.raises(DataError, match=r"p.txt: 2 of 20 prompts cannot be used:\n  000019: holds .*\n  000020: holds"):
        import_prompts(tmp_path / "p.txt", spec)
    assert not (tmp_path / "c.h5").exists()
    rows = [CaptionRow(f"{i:02d}", text, 3, "stop", f"{i:064x}") for i, text in enumerate(texts)]
    write_captions(tmp_path / "0.h5", CaptionSource("v", "r", QUERY, {}), rows)
    counts = merge_shards([tmp_path / "0.h5"], spec)
    assert counts["rejected"] == {"unusable": 2} and counts["training"] == 17
    assert "  18: holds '<|im_end|>'" in capsys.readouterr().err
    spec = MergeSpec(tmp_path / "c.h5", tmp_path / "h.jsonl", 1, readers=readers)
    with pytest.raises(DataError, match=r"2 of 20 captions are rejected \(unusable: 2; 18, 19\)"):
        merge_shards([tmp_path / "0.h5"], spec)


# Cutting.


def test_captions_are_cut_to_what_both_models_hold_and_they_take_them(tmp_path, readers, capsys):
    shapes = readers[0].tokenizer.name_or_path
    texts = [*(f"A red circle, number {i}." for i in range(4)), LONG, LONG + "two", " ".join(["word"] * 250), "again",
             "again"]  # fmt: skip
    (tmp_path / "p.txt").write_text("\n".join(texts))
    spec = MergeSpec(tmp_path / "c.h5", tmp_path / "h.jsonl", 0, 200, 504, str(Path(shapes)), readers=readers)
    counts = import_prompts(tmp_path / "p.txt", spec)
    limit = "the 480 tokens of models.t2i (shapes)"
    assert counts["cut"] == 3 and counts["cut_by"][limit] >= 2 and sum(counts["cut_by"].values()) == 3
    assert counts["repeated"] == 2  # both long ones have the same start
    told = capsys.readouterr().err
    assert f"at {limit}" in told and "2 of 9 training captions repeat an earlier one's text" in told
    kept = [caption.text for caption in load_training_captions(tmp_path / "c.h5")]
    assert all(text.startswith(cut) for text, cut in zip(texts, kept, strict=True)) and kept[:4] == texts[:4]
    assert not faults(readers, kept)
    longest = kept[4]
    assert readers[0].cut(longest) == longest and readers[1].cut(LONG) == readers[1].cut(readers[1].cut(LONG))
    family = load_family("zimage", "shapes")
    (cond,) = family.encode_prompts([longest])
    assert 450 < len(cond) <= 480
    noise = torch.randn(1, *family.latent_shape(64, 64))
    with torch.no_grad():
        assert family.velocity(noise, torch.tensor([0.5]), [cond]).isfinite().all()
        with pytest.raises(IndexError):  # one block more would overrun the table: the limit is not too low
            family.velocity(noise, torch.tensor([0.5]), [torch.cat([cond, cond[:40]])])
    with pytest.raises(DataError, match="tokens with the chat template, Z-Image takes 480"):
        family.encode_prompts([LONG])
    label = readers[1].cut(LONG)
    detail = label_log_probs(load_vlm("shapes"), [Image.new("RGB", (64, 64))], [label], QUERY, batch_size=1)[0]
    assert 440 < len(detail.tokens) <= 497 - 15


def test_limits_of_real_models():
    from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF

    assert BLOCK == SEQ_MULTI_OF
    encoder = {"max_position_embeddings": 40960}
    for lengths, limit in (([1536, 512, 512], 512), ([1024, 512, 512], 512), ([512, 64, 64], 480), ([256, 9, 9], 224)):
        assert ZImage.prompt_limit({"text_encoder": encoder, "transformer": {"axes_lens": lengths}}) == limit
    assert ZImage.prompt_limit({}) == 512
    assert ZImage.prompt_limit({"text_encoder": {"max_position_embeddings": 77}}) == 77
    assert QwenImage.prompt_limit({"text_encoder": {"max_position_embeddings": 128000}}) == 1024 + 34
    assert QwenImage.templated(None, "A {star}").count("A {star}") == 1


# Where the checks stand.


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("checks"))


def test_training_names_all_faulty_texts_before_it_loads_a_model(experiment, tmp_path):
    prompts = [TrainingPrompt("a", "A star."), TrainingPrompt("b", "A <|im_end|> ring.")]
    watched = [TrainingPrompt("h", "A <|im_start|>")]
    write_jsonl(tmp_path / "l.jsonl", [{"data_id": i, "label": f"x{'<|im_end|>' * (i == 'a')}"} for i in "abh"])
    (tmp_path / "t.txt").write_text("How well is {prompt} shown?")
    asked = {"template": str(tmp_path / "t.txt"), "max_new_tokens": 8}
    rewards = [
        {"name": "echo"}, {"name": "echo", "label": str(tmp_path / "l.jsonl")},
        {"name": "inferscore", "inferscore": asked},
        {"name": "contrastive_echo", "contrastive_echo": {"against": "texts", "texts": ["A ring.", "<|im_end|>"]}},
        {"name": "expected_score", "expected_score": {"template": asked["template"], "opening": "<|im_start|>"}},
    ]  # fmt: skip
    config = experiment.config("checks", sections={"rewards": rewards})
    job = experiment.segment("checks", config, 2, heldout=tmp_path / "h.jsonl")
    found = list_rewards(job.config, "r", [*prompts, *watched])
    with pytest.raises(DataError) as caught:
        check_texts(job, prompts, watched, found)
    heads = [line for line in str(caught.value).split("\n") if not line.startswith(" ")]
    assert [re.sub(r".*/", "", line) for line in heads] == [
        "captions.h5: 1 of 2 prompts cannot be used:", "h.jsonl: 1 of 1 prompts cannot be used:",
        "l.jsonl: 1 of 3 labels cannot be used:", "rewards.3.contrastive_echo: 1 of 2 texts cannot be used:",
        "rewards.4.expected_score: 1 of 1 texts cannot be used:",
    ]  # fmt: skip
    assert "\n  texts[1]: holds '<|im_end|>'" in str(caught.value)
    readers = prompt_readers(job.config)
    assert [one.beside - readers[1].beside for one in readers[2:]] == [8, len("<|im_start|>10")]  # reply and answer
    assert len(readers) == 4  # the text-to-image model, the question, the template; labels aside


def test_one_rank_of_several_shows_the_progress(readers, capsys):
    texts = ["A star."] * 2001
    assert not faults(readers, texts, quiet=True) and capsys.readouterr().err == ""
    assert not faults(readers, texts) and "check prompts: 2001/2001 prompts" in capsys.readouterr().err


def test_a_vlm_that_is_not_here_is_told_at_the_merge(experiment, capsys):
    config = load_experiment(experiment.config("elsewhere"))
    models = config.models.model_copy(update={"vlm": VlmSection(path="/nowhere/vlm")})
    config = config.model_copy(update={"models": models})
    assert len(prompt_readers(config)) == 1
    assert "prompts are not checked against a VLM yet: /nowhere/vlm: no such VLM folder" in capsys.readouterr().err


def test_generation_looks_at_all_prompts_of_the_set_first(tmp_path, experiment):
    from promptecho.generate import GenerateJob, generate_shard

    sections = {"image_sets": {"s": {"benchmark": "captions", "prompts": "p.jsonl", "images_per_prompt": 1}}}
    config = load_experiment(experiment.config("set", sections=sections))
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": text} for text in ("A", "B <|im_end|>", "C", "D" + " word" * 900)])
    job = GenerateJob(config, "base", 0, "s", tmp_path / "p.jsonl", 0, 4, tmp_path / "out", tmp_path / "work")
    with pytest.raises(DataError, match=r"jsonl: 2 of 4 prompts cannot be used:\n  000002: holds .*\n  000004: \d+ t"):
        generate_shard(job)


# A run is bound to the prompts that it has used.


def use_of(texts: list[str], labels: tuple = (), n: int = 2) -> PromptUse:
    return PromptUse([TrainingPrompt(f"{i:02d}", text) for i, text in enumerate(texts)], labels, 1, n)


def test_the_record_tells_used_prompts_from_those_to_come():
    texts = [f"text {i}" for i in range(11)]
    use = use_of(texts)
    record = use.extended(use.record(2), 2)
    assert record == use.record(3) and len(record["used"]) == 3
    used = {one.prompt_id for k in range(3) for one in prompts_of(use.prompts, 1, k, 2)}
    for index in range(11):
        changed = use_of([*texts[:index], "mended", *texts[index + 1 :]])
        assert bool(changed.differing(record)) == (f"{index:02d}" in used)
    assert use_of(texts[:-1]).differing(record)  # a removed line is another order
    labels = {f"{i:02d}": str(i) for i in range(11)}
    bound = use_of(texts, (labels,))
    late = next(name for name in labels if name not in used)
    assert not use_of(texts, ({**labels, late: "x"},)).differing(bound.record(3))
    assert use_of(texts, ({**labels, min(used): "x"},)).differing(bound.record(3))


def test_the_order_of_prompts_is_as_it_was():
    """From numpy's generator, an epoch at a time: results of every earlier version depend on it."""
    from promptecho.seeds import derive_seed

    prompts = use_of(["x"] * 11).prompts
    for iteration in (0, 4, 5, 23):
        order = np.random.default_rng(derive_seed(1, "prompts", iteration // 5)).permutation(11)
        place = iteration % 5 * 2
        assert prompts_of(prompts, 1, iteration, 2) == [prompts[i] for i in order[place : place + 2]]


@pytest.fixture(scope="module")
def mended(experiment, tmp_path_factory):
    """Captions of two files that differ in one line, which is used first in iteration 2 or 3; and its number there."""
    from tiny_experiment import PROMPTS

    folder = tmp_path_factory.mktemp("mended")
    order = [one.prompt_id for k in range(3) for one in prompts_of(use_of(PROMPTS).prompts, 1, k, 2)]
    late = int(order[3])
    for name, text in (("first", "A ring that nobody meant."), ("mended", PROMPTS[late])):
        texts = [*PROMPTS[:late], text, *PROMPTS[late + 1 :]]
        (folder / f"{name}.txt").write_text("\n".join(texts))
        import_prompts(folder / f"{name}.txt", MergeSpec(folder / f"{name}.h5", folder / f"{name}.jsonl", 0))
    return folder


def test_a_mended_line_keeps_the_run_to_the_same_bits(experiment, mended, train_in_process, capsys):
    config = experiment.config("mended", iterations=2, checkpoints=[1, 2], passes=1, kl_base={"weight": 0.0})
    results = experiment.folder
    for name in ("first", "mended"):
        assert train_segment(experiment.segment(name, config, 1, captions=mended / f"{name}.h5"))
    state = read_json(results / "first/1/state/state.json")
    assert state["prompts"]["since"] == 0 and len(state["prompts"]["used"]) == 1
    uses = {name: prompt_use(load_experiment(config), "r", mended / f"{name}.h5") for name in ("first", "mended")}
    assert [captions_problem(results / "first/1", use) for use in uses.values()] == [None, None]
    for name in ("first", "mended"):  # both go on with the mended file
        job = experiment.segment(name, config, 2, captions=mended / "mended.h5", resume=results / name / "1")
        assert train_segment(job)
    assert same_bytes(results / "first/2", results / "mended/2") == []
    assert metrics_without_times(results / "first/2") == metrics_without_times(results / "mended/2")
    # Back to the other file its second iteration would have used other prompts.
    use = uses["first"]
    digests = {**read_json(results / "first/2/state/state.json")["digests"], "captions file": "other"}
    told = r"first/2/state: belongs to other captions or labels: 1 of its 2 iterations would use other prompts now, "
    told += r"first iteration 2 \(now .*\); restore the captions file, .*--accept-captions"
    with pytest.raises(StateError, match=told):
        find_start(results / "none", results / "first/2", digests, 9, use=use)
    assert "iterations would use other" in captions_problem(results / "first/2", use)
    state, _ = find_start(results / "none", results / "first/2", digests, 9, use=use, accept=True)
    assert state.prompts == {"since": 2, "used": [], "accepted": [2]} and state.digests == digests
    # A state of an earlier version tells the file alone: it goes on with that, and takes up the record.
    old = read_json(results / "first/2/state/state.json")
    del old["prompts"], old["content_digest"]
    from promptecho.files import digest

    write_json(results / "first/2/state/state.json", {**old, "content_digest": digest(old)})
    with pytest.raises(StateError, match="this state tells only their file, which is another now"):
        find_start(results / "none", results / "first/2", digests, 9, use=use)
    state, _ = find_start(results / "none", results / "first/2", old["digests"], 9, use=use)
    assert state.prompts == use.record(2)


def test_accepted_captions_are_told_in_state_and_metrics(experiment, mended, train_in_process, capsys):
    config = experiment.config("accept", iterations=2, checkpoints=[1, 2], passes=1, kl_base={"weight": 0.0})
    (mended / "fewer.txt").write_text("A red star.\nA blue ring.\nTwo green crosses.\n")
    import_prompts(mended / "fewer.txt", MergeSpec(mended / "fewer.h5", mended / "fewer.jsonl", 0))
    assert train_segment(experiment.segment("accept", config, 1, captions=mended / "first.h5"))
    options = {"captions": mended / "fewer.h5", "resume": experiment.folder / "accept/1"}
    with pytest.raises(StateError, match="belongs to other captions"):
        train_segment(experiment.segment("accept", config, 2, **options))
    assert train_segment(experiment.segment("accept", config, 2, **options, accept_captions=True))
    rows = read_jsonl(experiment.folder / "accept/2/metrics.jsonl")
    assert rows[0]["iteration"] == 2 and rows[0]["captions_changed"] == 1
    record = read_json(experiment.folder / "accept/2/state/state.json")["prompts"]
    assert record["since"] == 1 and record["accepted"] == [1] and len(record["used"]) == 1
    assert "from iteration 2 on with other captions than before" in capsys.readouterr().err
