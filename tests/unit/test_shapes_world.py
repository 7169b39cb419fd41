"""The embedded world: language, drawing, oracle, tokenizer and data sets fit each other and never change."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from promptecho.benchmarks.geneval.prompts import TAGS, read_prompts
from promptecho.benchmarks.geneval.shapes import geneval_prompts, write_geneval_prompts
from promptecho.errors import DataError
from promptecho.files import sha256_file
from promptecho.shapes.datasets import render_images
from promptecho.shapes.grammar import Claim, Group, corrupt, describe, parse, plural, random_claim, scene_of, write
from promptecho.shapes.oracle import detect, judge
from promptecho.shapes.render import damage, render
from promptecho.shapes.tokenizer import QUERY, build_tokenizer
from promptecho.shapes.world import COLORS, IMAGE_SIZE, KINDS, NUMBERS, OPPOSITE, SHAPES, relation, wide_scene
from promptecho.shipped import WEIGHTS, WORLDS, weights_of

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@given(seeds, st.sampled_from(KINDS), st.booleans(), st.integers(0, 3))
def test_every_prompt_is_read_back(seed, kind, colors, wording):
    claim = random_claim(np.random.default_rng(seed), kind, colors)
    assert claim.kind == kind and parse(write(claim, wording)) == claim


@given(seeds, st.integers(0, 3))
def test_every_description_of_any_scene_is_read_back(seed, wording):
    rng = np.random.default_rng(seed)
    claim = describe(wide_scene(rng), rng)
    assert parse(write(claim, wording)) == claim


def test_every_geneval_prompt_is_read_back():
    for row in geneval_prompts(1000, 0):
        claim = parse(row["prompt"])
        assert sorted((g.shape, g.count, g.color) for g in claim.groups) == sorted(
            (i["class"], i["count"], i.get("color")) for i in row["include"]
        )


@pytest.mark.parametrize("text", ["a dog", "a red circle on a blue square", "", "five thousand stars", "A red."])
def test_text_outside_the_language_is_named(text):
    with pytest.raises(DataError, match="is not a phrase of the shapes language"):
        parse(text)


def facts(claim: Claim) -> list:
    return [x for group in claim.groups for x in (group.count, group.shape, group.color)] + [claim.relation]


@given(seeds, st.sampled_from(KINDS), st.booleans())
def test_a_corrupted_claim_has_exactly_one_fact_wrong(seed, kind, colors):
    rng = np.random.default_rng(seed)
    claim = random_claim(rng, kind, colors)
    wrong = corrupt(claim, rng)
    changed = [i for i, (a, b) in enumerate(zip(facts(claim), facts(wrong), strict=True)) if a != b]
    if len(changed) == 2:  # the swap of two objects' colours is one fact
        assert [i % 3 for i in changed] == [2, 2]
        assert (claim.groups[0].color, claim.groups[1].color) == (wrong.groups[1].color, wrong.groups[0].color)
    else:
        assert len(changed) == 1
    assert wrong.kind == kind and parse(write(wrong, 0)) == wrong


@given(seeds, st.sampled_from(KINDS))
def test_scenes_fulfil_their_claim_inside_the_image_without_overlap(seed, kind):
    rng = np.random.default_rng(seed)
    claim = random_claim(rng, kind)
    things = scene_of(claim, rng).things
    assert len(things) == sum(group.count for group in claim.groups)
    assert all(t.radius < x < IMAGE_SIZE - t.radius for t in things for x in (t.x, t.y))
    for i, a in enumerate(things):
        assert all(np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius for b in things[:i])
    if claim.relation:
        assert relation(things[0], things[1]) == claim.relation
        assert relation(things[1], things[0]) == OPPOSITE[claim.relation]


def test_the_oracle_reads_renders_and_rejects_one_wrong_fact():
    n, right, wrong_accepted = 400, 0, 0
    for seed in range(n):
        rng = np.random.default_rng(seed)
        claim = random_claim(rng, colors=bool(seed % 3))
        found = detect(render(scene_of(claim, rng), rng))
        right += judge(claim, found)
        wrong_accepted += judge(corrupt(claim, rng), found)
    assert right >= 0.99 * n and wrong_accepted == 0, (right, wrong_accepted)


def test_the_oracle_reads_the_wide_world():
    n, right = 300, 0
    for seed in range(n):
        rng = np.random.default_rng(seed)
        scene = wide_scene(rng)
        right += judge(describe(scene, rng), detect(render(scene, rng)))
    assert right >= 0.99 * n, right


def test_the_oracle_sees_nothing_in_an_empty_image_and_no_order_in_one_object():
    assert detect(Image.new("RGB", (64, 64), (240, 240, 240))) == []
    rng = np.random.default_rng(0)
    claim = Claim((Group(1, "circle", "red"),))
    found = detect(render(scene_of(claim, rng), rng))
    assert judge(claim, found) and not judge(Claim(()), found)
    assert not judge(Claim((Group(1, "circle", "red"), Group(1, "star", "blue"))), found)


def pixels_digest(images) -> str:
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()[:16]


def some_images(damaged: bool = False) -> list[Image.Image]:
    images = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        image = render(wide_scene(rng), rng)
        images.append(damage(image, rng) if damaged else image)
    return images


def test_renders_are_functions_of_their_seed():
    for damaged in (False, True):
        first = some_images(damaged)
        assert pixels_digest(first) == pixels_digest(some_images(damaged))
        assert all(image.size == (64, 64) and image.mode == "RGB" for image in first)
        assert len({image.tobytes() for image in first}) == 12


def test_rendered_data_sets_are_functions_of_their_seed(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        render_images(5, seed, tmp_path / name)
    files = {name: [p.read_bytes() for p in sorted((tmp_path / name).iterdir())] for name in "abc"}
    assert files["a"] == files["b"] and files["a"] != files["c"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [f"{i:05}.png" for i in range(5)]
    render_images(3, 3, tmp_path / "shorter")
    assert [p.read_bytes() for p in sorted((tmp_path / "shorter").iterdir())] == files["a"][:3]


@pytest.mark.parametrize("per_tag", [1, 12, 10**6])
def test_geneval_prompts_are_valid_and_distinct(tmp_path, per_tag):
    path = tmp_path / "metadata.jsonl"
    n = write_geneval_prompts(per_tag, 5, path)
    prompts = read_prompts(path)
    assert len(prompts) == n == len({prompt.prompt for prompt in prompts})
    assert [tag for tag in TAGS if any(p.tag == tag for p in prompts)] == list(TAGS)
    assert all(sum(p.tag == tag for p in prompts) <= per_tag for tag in TAGS)
    if per_tag == 12:
        assert [sum(p.tag == tag for p in prompts) for tag in TAGS] == [6, 12, 12, 12, 12, 12]
    write_geneval_prompts(per_tag, 5, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_every_word_is_one_token(tokenizer):
    words = [*COLORS, *SHAPES, *map(plural, SHAPES), *NUMBERS[2:], "left", "right", "above", "below", "photo", "image"]
    broken = [word for word in words if len(tokenizer(f"a {word}").input_ids) != 2]
    assert broken == []
    assert len(tokenizer(QUERY).input_ids) == len(QUERY.rstrip(".").split()) + 1


def test_tokens_spell_the_text_and_the_tokenizer_is_built_the_same_each_time(tokenizer, tmp_path):
    texts = [QUERY, "The image shows a red circle to the left of a blue square.", "a photo of Ünïcode 漢字 42"]
    for text in texts:
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    again = build_tokenizer()
    assert again.get_vocab() == tokenizer.get_vocab()
    assert [again(text).input_ids for text in texts] == [tokenizer(text).input_ids for text in texts]
    for name, one in (("a", tokenizer), ("b", again)):
        one.save_pretrained(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("world", [world for world in WEIGHTS if weights_of(world).is_dir()])
def test_shipped_weights_are_the_ones_that_were_measured(world):
    folder = weights_of(world)
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").split("\n")[:-1]
    listed = dict(reversed(line.split("  ./")) for line in lines)
    assert set(listed) == {
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS"
    }
    for name, expected in listed.items():
        assert sha256_file(folder / name) == expected, name
    sizes = {p.relative_to(folder).parts[0]: p.stat().st_size for p in folder.rglob("*.safetensors")}
    assert sizes.keys() >= ({"t2i", "vlm"} if world in WORLDS else {"vlm"}) and sum(sizes.values()) < 30_000_000
