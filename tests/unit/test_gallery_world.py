"""The gallery: captions and posters are read back, drawn as they say, and read by oracles that learn nothing."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptecho.errors import DataError
from promptecho.gallery.captions import (
    FACTS,
    WORDINGS,
    corrupt_dense,
    dense_scene_of,
    describe_dense,
    parse_dense,
    random_dense_claim,
    without_colors,
    write_dense,
    wrong_kinds,
)
from promptecho.gallery.drawing import draw_poster, draw_scene
from promptecho.gallery.glyphs import ALPHABET, HEIGHT, TITLE_HEIGHT, glyph
from promptecho.gallery.language import gallery_tokenizer
from promptecho.gallery.look_oracle import detect_things, facts_shown, judge_dense
from promptecho.gallery.pictures import caption, fine_picture, reading, reading_recipe, scored, subject
from promptecho.gallery.posters import (
    ROLES,
    Poster,
    is_poster_prompt,
    misspell,
    parse_prompt,
    random_poster,
    texts_of_label,
    write_label,
    write_prompt,
)
from promptecho.gallery.scenes import any_scene
from promptecho.gallery.text_oracle import judge_poster, read_poster
from promptecho.gallery.words import is_held_out, random_word
from promptecho.shapes.grammar import describe, random_claim, scene_of, write
from promptecho.shapes.questions import SCORE_QUERY
from promptecho.shapes.render import render
from promptecho.shapes.train_vlm import Batcher, token_weights
from promptecho.shapes.world import RELATIONS, wide_scene

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.booleans(), st.integers(0, WORDINGS - 1))
@settings(max_examples=50)
def test_every_dense_prompt_is_read_back(seed, colors, wording):
    claim = random_dense_claim(np.random.default_rng(seed), colors)
    assert 1 <= claim.clauses <= 4 and parse_dense(write_dense(claim, wording)) == claim


@given(seeds, st.integers(0, WORDINGS - 1), st.booleans())
@settings(max_examples=50)
def test_every_description_of_any_dense_scene_is_read_back(seed, wording, colors):
    rng = np.random.default_rng(seed)
    claim = describe_dense(any_scene(rng), rng)
    claim = claim if colors else without_colors(claim)
    assert parse_dense(write_dense(claim, wording)) == claim


@pytest.mark.parametrize(
    "text", ["a dog", "A small red.", "", "A red circle. There is no dog.", "A circle. The star is above the circle."]
)
def test_captions_outside_the_gallerys_language_are_named(text):
    with pytest.raises(DataError, match="caption .*(is not a phrase of the gallery|is not one of the objects)"):
        parse_dense(text)


def true_and_wrong(kind: str, n: int):
    """`n` true claims, their images, and each claim with one fact of `kind` wrong."""
    seed, found = 0, 0
    while found < n:
        rng = np.random.default_rng((seed, FACTS.index(kind)))
        claim = random_dense_claim(rng)
        seed += 1
        if kind in wrong_kinds(claim):
            found += 1
            yield claim, draw_scene(dense_scene_of(claim, rng), rng), corrupt_dense(claim, rng, kind)


@pytest.mark.parametrize("kind", FACTS)
def test_the_oracle_reads_every_kind_of_fact_and_rejects_it_wrong(kind):
    for claim, image, wrong in true_and_wrong(kind, 10):
        found = detect_things(image)
        assert judge_dense(claim, found) and not judge_dense(wrong, found), write_dense(claim, 0)
        assert parse_dense(write_dense(wrong, 0)) == wrong
        assert all(shown for _, shown in facts_shown(claim, found))
        changed = {name for name, shown in facts_shown(wrong, found) if not shown}
        opposite = {wrong.relations[i][1] for i, r in enumerate(claim.relations) if r != wrong.relations[i]}
        expected = {"swap": {"color"}, "missing": {"object"}}.get(kind, opposite or {kind})
        if not (kind == "texture" and changed == set()):  # a plain object is no fact that is said
            assert expected <= changed, (kind, changed)


def test_the_oracle_reads_any_dense_scene():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scene = any_scene(rng)
        found = detect_things(draw_scene(scene, rng))
        assert Counter(thing.look for thing in found) == Counter(thing.look for thing in scene.things), seed
        assert judge_dense(describe_dense(scene, rng), found), seed


@given(seeds, st.booleans(), st.booleans(), st.integers(0, 2))
@settings(max_examples=30)
def test_posters_are_read_back_from_prompt_label_and_image(seed, held_out, freely, wording):
    rng = np.random.default_rng(seed)
    poster = random_poster(rng, held_out, freely)
    prompt, label = write_prompt(poster, wording), write_label(poster)
    assert is_poster_prompt(prompt) and parse_prompt(prompt) == poster
    assert list(json.loads(label)) == list(ROLES) and texts_of_label(label) == poster.texts
    image = draw_poster(poster, rng)
    assert read_poster(image).poster == poster and judge_poster(poster, image)
    assert not judge_poster(misspell(poster, rng), image)


def test_prompts_and_labels_of_other_things_are_named():
    assert not is_poster_prompt("A red circle.")
    for text in ("A red circle.", 'A red poster with the title "lower".', "A red poster with nothing."):
        with pytest.raises(DataError, match="asks for no poster of the gallery"):
            parse_prompt(text)
    for text in ("", '{"main_title": []}', "[]"):
        with pytest.raises(DataError, match="is not JSON with the lists main_title"):
            texts_of_label(text)


def test_glyphs_differ_and_have_the_stated_heights():
    for title, height in ((False, HEIGHT), (True, TITLE_HEIGHT)):
        cells = [glyph(character, title) for character in ALPHABET]
        assert len({cell.tobytes() for cell in cells}) == len(ALPHABET) == 36
        assert all(np.flatnonzero(cell.any(1))[[0, -1]].tolist() == [0, height - 1] for cell in cells)


def test_held_out_words_are_a_tenth_of_all_and_no_training_sees_one():
    rng = np.random.default_rng(0)
    words = [random_word(rng, spelled_freely=bool(i % 2)) for i in range(2000)]
    assert not any(map(is_held_out, words)) and is_held_out(random_word(rng, held_out=True))
    assert 0.08 < np.mean([is_held_out(str(number)) for number in range(2000)]) < 0.12
    examples = [reading(rng) for _ in range(250)]
    texts = [text for one in examples for text in (one.query.split("shows: ")[-1], one.answer)]
    texts += [caption(subject(rng), rng) for _ in range(250)]
    asked = [parse_prompt(text) for text in texts if is_poster_prompt(text)]
    shown = [word for poster in asked for _, word in poster.texts]
    shown += [word for text in texts if text.startswith('{"main_title"') for _, word in texts_of_label(text)]
    assert len(shown) > 200 and not any(map(is_held_out, shown))


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def test_gallery_pictures_are_functions_of_their_seed():
    first, again = ([fine_picture(np.random.default_rng(seed)) for seed in range(12)] for _ in range(2))
    assert [image.tobytes() for image in first] == [image.tobytes() for image in again]
    assert all(image.size == (64, 64) and image.mode == "RGB" for image in first)
    assert len({image.tobytes() for image in first}) == 12


def test_the_first_world_is_drawn_and_told_as_before():
    """Its finished results stay comparable: these digests are older than the gallery."""
    images, texts = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scene = wide_scene(rng) if seed % 2 else scene_of(random_claim(rng), rng)
        texts.append(write(describe(scene, rng), seed % 4))
        images.append(render(scene, rng).tobytes())
    assert (digest(*images), digest("\n".join(texts).encode())) == ("6f890dd819a6b0d0", "f720a36ec092958a")


def test_every_word_and_every_letter_is_one_token():
    tokenizer = gallery_tokenizer()
    assert tokenizer.get_vocab() == gallery_tokenizer().get_vocab()
    for word in ("striped", "dotted", "small", "large", "poster", "title", "subtitle", "selling", "note", "triangles"):
        assert len(tokenizer(f"a {word}").input_ids) == 2, word
    for seed in range(50):
        poster = random_poster(np.random.default_rng(seed), spelled_freely=True)
        tokens = [tokenizer.decode([i]) for i in tokenizer(write_label(poster)).input_ids]
        letters = "".join(token for token in tokens if len(token) == 1 and token in ALPHABET)
        assert letters == "".join(word for role in ROLES for name, word in poster.texts if name == role)


def test_every_conversation_of_the_reading_recipe_fits():
    batcher, rng = Batcher(gallery_tokenizer(), reading_recipe()), np.random.default_rng(1)
    examples = [reading(rng, relations=0.3) for _ in range(100)]
    ids, labels, types = batcher([(one.query, one.answer) for one in examples])
    assert ids.shape == labels.shape == types.shape and ids.shape[1] <= reading_recipe().length - 8
    assert (types.sum(1) == 64).all() and (labels != -100).any(1).all()


def test_words_of_directions_can_count_more_in_the_loss():
    tokenizer = gallery_tokenizer()
    assert token_weights(tokenizer, reading_recipe(0.5)) is None
    weights = token_weights(tokenizer, replace(reading_recipe(0.5), directions=6.0))
    assert weights is not None and weights.shape == (len(tokenizer),) and set(weights.tolist()) == {1.0, 6.0}
    heavy = [tokenizer.decode([token]).strip() for token in (weights == 6.0).nonzero().flatten().tolist()]
    assert sorted(heavy) == sorted(RELATIONS)


def test_scores_count_the_facts_that_a_picture_shows():
    rng, seen = np.random.default_rng(3), Counter()
    for _ in range(150):
        one = scored(rng)
        prompt = one.query.removeprefix(SCORE_QUERY.format(prompt=""))
        score = json.loads(one.answer)["score"]
        if is_poster_prompt(prompt):
            shown, asked = read_poster(one.image).poster, parse_prompt(prompt)
            right = shown == asked
        else:
            right = all(ok for _, ok in facts_shown(parse_dense(prompt), detect_things(one.image)))
        seen[right == (score == 10)] += 1
    assert seen[True] >= 145, "the oracles may err on damaged pictures only"


def test_a_word_without_neighbours_among_held_out_ones_is_misspelled_too():
    """A short number often has none among numbers; looking for one would never end."""

    def neighbours(word):
        return [word[:i] + c + word[i + 1 :] for i in range(len(word)) for c in "0123456789" if c != word[i]]

    numbers = [word for word in (f"{number:02}" for number in range(100)) if is_held_out(word)]
    alone = [word for word in numbers if not any(map(is_held_out, neighbours(word)))]
    assert alone
    for word in alone:
        ((_, changed),) = misspell(Poster("red", (("main_title", word),)), np.random.default_rng(0)).texts
        assert is_held_out(changed) and sum(a != b for a, b in zip(word, changed, strict=True)) == 1
