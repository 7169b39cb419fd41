"""Examples that teach a VLM of the first world to write how well an image shows a prompt, besides describing it."""

from __future__ import annotations

import numpy as np
from transformers import Qwen2Tokenizer

from promptecho.shapes.grammar import Claim, corrupt, random_claim, scene_of, write
from promptecho.shapes.questions import SCORE_CORPUS, SCORE_QUERY, write_score
from promptecho.shapes.render import damage, render
from promptecho.shapes.tokenizer import build_tokenizer, shapes_corpus
from promptecho.shapes.train_vlm import Example, ReadingRecipe, sample
from promptecho.shapes.world import Scene, relation

SCORED = 0.4  # of the examples
WRONG_FACTS = (0.4, 0.3, 0.2, 0.1)  # how many facts of a prompt are made wrong: none to three
OTHER_PROMPT = 0.1


def facts_of(claim: Claim, scene: Scene) -> list[bool]:
    """Which facts of a claim a scene shows: for each group whether there is such a shape, how many there are and of
    what colour; and the relation."""
    facts, things = [], []
    for group in claim.groups:
        same = [thing for thing in scene.things if thing.shape == group.shape]
        facts += [bool(same), len(same) == group.count]
        if group.color:
            facts.append(bool(same) and all(thing.color == group.color for thing in same))
        things.append([thing for thing in same if group.color in (None, thing.color)])
    if claim.relation:
        facts.append(any(relation(a, b) == claim.relation for a in things[0] for b in things[1]))
    return facts


def scored(rng: np.random.Generator) -> Example:
    """A picture, a prompt that is true of it or wrong in some facts, and its score."""
    claim = random_claim(rng)
    scene = scene_of(claim, rng)
    if rng.random() < OTHER_PROMPT:
        claim = random_claim(rng)
    for _ in range(int(rng.choice(len(WRONG_FACTS), p=WRONG_FACTS))):
        claim = corrupt(claim, rng)
    facts = facts_of(claim, scene)
    image = render(scene, rng)
    return Example(
        damage(image, rng) if rng.random() < 0.5 else image,
        SCORE_QUERY.format(prompt=write(claim, int(rng.integers(4)))),
        write_score(sum(facts), len(facts)),
    )


def scoring_tokenizer() -> Qwen2Tokenizer:
    """The first world's tokenizer, which knows the words of the question for a score as well."""
    return build_tokenizer(corpus=[*shapes_corpus(), *SCORE_CORPUS * 40])


def sample_or_score(rng: np.random.Generator) -> Example:
    return scored(rng) if rng.random() < SCORED else sample(rng)


SCORING = ReadingRecipe(tokenizer=scoring_tokenizer, sample=sample_or_score, length=96)
