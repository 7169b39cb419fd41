"""What the gallery's models are trained on: pictures, questions with answers, and prompts for images."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from promptecho.gallery.captions import (
    WORDINGS,
    DenseClaim,
    corrupt_dense,
    dense_scene_of,
    describe_dense,
    random_dense_claim,
    without_colors,
    write_dense,
    write_look_places,
)
from promptecho.gallery.drawing import draw_poster, draw_scene
from promptecho.gallery.language import gallery_tokenizer
from promptecho.gallery.look_oracle import as_detected, facts_shown
from promptecho.gallery.posters import READ_QUERY, Poster, misspell, random_poster, write_label, write_prompt
from promptecho.gallery.scenes import any_scene
from promptecho.shapes.questions import PLACES_QUERY, SCORE_QUERY, write_score
from promptecho.shapes.render import damage
from promptecho.shapes.tokenizer import QUERY
from promptecho.shapes.train_t2i import PaintingRecipe
from promptecho.shapes.train_vlm import Example, ReadingRecipe


def fine_picture(rng: np.random.Generator) -> Image.Image:
    """A scene or a poster, as often, with much that a VAE may lose: three texts spelled freely, and textures."""
    if rng.random() < 0.5:
        return draw_poster(random_poster(rng, spelled_freely=True, count=3), rng)
    scene = any_scene(rng)
    if rng.random() < 0.6:
        while all(thing.look.texture == "plain" for thing in scene.things):
            scene = any_scene(rng)
    return draw_scene(scene, rng)


SCORED = 0.2  # of the VLM's examples


def _share_shown(asked: Poster, shown: Poster) -> tuple[int, int]:
    """How many of a poster's facts another one shows, and of how many: the ground, and each character in its place."""
    there = {(role, place): word for place, (role, word) in enumerate(shown.texts)}
    pairs = [
        (character, index < len(there.get((role, place), "")) and there[role, place][index])
        for place, (role, word) in enumerate(asked.texts)
        for index, character in enumerate(word)
    ]
    return sum(a == b for a, b in pairs) + (asked.ground == shown.ground), len(pairs) + 1


def scored(rng: np.random.Generator) -> Example:
    """A picture, a prompt, and how well the one shows the other: half of the prompts are wrong in one to three facts,
    one in ten is another's."""
    wrong = int(rng.choice(4, p=np.array([8, 5, 3, 2]) / 18))
    other = bool(rng.random() < 0.1)
    if rng.random() < 0.36:
        poster = random_poster(rng)
        image, asked = draw_poster(poster, rng), random_poster(rng) if other else poster
        for _ in range(wrong):
            asked = misspell(asked, rng)
        shares, prompt = _share_shown(asked, poster), write_prompt(asked, int(rng.integers(3)))
    else:
        claim = random_dense_claim(rng)
        scene = dense_scene_of(claim, rng)
        image, claim = draw_scene(scene, rng), random_dense_claim(rng) if other else claim
        for _ in range(wrong):
            claim = corrupt_dense(claim, rng)
        facts = [shown for _, shown in facts_shown(claim, [as_detected(thing) for thing in scene.things])]
        shares, prompt = (sum(facts), len(facts)), write_dense(claim, int(rng.integers(WORDINGS)))
    return Example(
        damage(image, rng) if rng.random() < 0.4 else image, SCORE_QUERY.format(prompt=prompt), write_score(*shares)
    )


def related(rng: np.random.Generator) -> Example:
    """A dense scene of few objects, and a caption that says where they lie as seen from each other, or what is not
    there: a word or two in captions of thirty, and so what a VLM learns last."""
    claim = random_dense_claim(rng)
    while not (claim.relations or claim.absent):
        claim = random_dense_claim(rng)
    image = draw_scene(dense_scene_of(claim, rng), rng)
    image = damage(image, rng) if rng.random() < 0.4 else image
    return Example(image, QUERY, write_dense(claim, int(rng.integers(3))))


def reading(rng: np.random.Generator, relations: float = 0.0) -> Example:
    """A picture, a question and the true answer, for the VLM. One in five asks for a score; a share of `relations` are
    `related`. Of the others a third are posters, half of them spelled freely, whose text is read in two of three; a
    third of the scenes with few objects ask for their places."""
    kind = rng.random()
    if kind < SCORED:
        return scored(rng)
    if kind < SCORED + relations:
        return related(rng)
    if rng.random() < 0.36:
        poster = random_poster(rng, spelled_freely=bool(rng.random() < 0.5))
        image = draw_poster(poster, rng)
        if rng.random() < 0.67:
            query, answer = READ_QUERY, write_label(poster)
        else:
            query, answer = QUERY, write_prompt(poster, int(rng.integers(3)))
    else:
        scene = any_scene(rng) if rng.random() < 0.5 else dense_scene_of(random_dense_claim(rng), rng)
        image = draw_scene(scene, rng)
        if 1 <= len(scene.things) <= 4 and rng.random() < 0.35:
            query, answer = PLACES_QUERY, write_look_places(scene, rng)
        else:
            claim, wording = describe_dense(scene, rng), int(rng.integers(3))
            if claim.groups and rng.random() < 0.1:
                wording = 3
                if rng.random() < 0.5:
                    claim = without_colors(claim)
            query, answer = QUERY, write_dense(claim, wording)
    return Example(damage(image, rng) if rng.random() < 0.4 else image, query, answer)


def reading_recipe(relations: float = 0.0) -> ReadingRecipe:
    """What the VLM is trained on, with a share of `relations` among its examples."""
    return ReadingRecipe(
        tokenizer=gallery_tokenizer, sample=partial(reading, relations=relations),
        queries=(QUERY, PLACES_QUERY, READ_QUERY), merge=1, length=192,
    )  # fmt: skip


WRONG_CAPTIONS = 0.3  # in one fact: see `promptecho.shapes.train_t2i`
MISSPELLED = 0.3
NO_CAPTION = 0.1


def subject(rng: np.random.Generator, posters: float = 0.4) -> Poster | DenseClaim:
    """What an image for the text-to-image model shows: a share of `posters`, a fifth of them spelled freely."""
    if rng.random() < posters:
        return random_poster(rng, spelled_freely=bool(rng.random() < 0.2))
    return random_dense_claim(rng)


def draw_subject(what: Poster | DenseClaim, rng: np.random.Generator) -> Image.Image:
    if isinstance(what, Poster):
        return draw_poster(what, rng)
    return draw_scene(dense_scene_of(what, rng), rng)


def caption(what: Poster | DenseClaim, rng: np.random.Generator) -> str:
    """A caption for an image that shows `what`: true, wrong in one fact or one letter, or none at all."""
    if rng.random() < NO_CAPTION:
        return ""
    if isinstance(what, Poster):
        return write_prompt(misspell(what, rng) if rng.random() < MISSPELLED else what, int(rng.integers(3)))
    if rng.random() < WRONG_CAPTIONS:
        what = corrupt_dense(what, rng)
    wording = int(rng.integers(4))
    if wording == 3 and rng.random() < 0.5:
        what = without_colors(what)
    return write_dense(what, wording)


def painting(posters: float = 0.4) -> PaintingRecipe:
    """What the text-to-image model is trained on, with a share of `posters` among the images."""
    return PaintingRecipe(
        tokenizer=gallery_tokenizer, subject=partial(subject, posters=posters), draw=draw_subject, caption=caption,
        from_noise=0.5,
    )  # fmt: skip
