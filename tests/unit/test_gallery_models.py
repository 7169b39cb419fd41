"""The gallery's models by their shipped name, and what is measured of them; with random weights of the same classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_gallery import write_gallery

from promptecho.config.inputs import inputs_of
from promptecho.config.job_sizes import size_of
from promptecho.config.models import ExperimentConfig
from promptecho.gallery.captions import FACTS, dense_scene_of, random_dense_claim
from promptecho.gallery.drawing import draw_poster, draw_scene
from promptecho.gallery.posters import Poster
from promptecho.gallery.shown_text import ShownText, shown_texts
from promptecho.measure_gallery import PosterTally, SceneTally, _wins, _wrong_scene, measure
from promptecho.models.inventory import model_status
from promptecho.models.required import required_models
from promptecho.rewards.echo.reward import EchoReward
from promptecho.shipped import PACKAGE, is_shipped, model_path
from promptecho.vlm import load_vlm


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("package"))


def test_shipped_names_are_the_worlds(weights):
    assert is_shipped("shapes") and is_shipped("gallery") and not is_shipped("owner/gallery")
    assert model_path("gallery", "vlm", weights.parents[1]) == str(weights / "vlm")
    assert model_path("gallery", "t2i") == str(PACKAGE / "gallery/weights/t2i")
    assert model_path("/models/gallery", "t2i") == "/models/gallery"


def test_both_worlds_models_are_shipped_small_and_no_inputs_from_outside():
    config = ExperimentConfig.model_validate(
        {
            "experiment": "e", "models": {"t2i": {"path": "gallery"}, "vlm": {"path": "gallery"}},
            "captions": {"shapes": {"count": 40, "seed": 1}, "heldout": 0},
        }
    )  # fmt: skip
    assert size_of(config) == "small" and inputs_of(config, "caption") == {}
    found = required_models(config)
    assert [(one.source, one.on_hub) for one in found] == [("gallery", False)] * 2
    assert {model_status(one, None).where for one in found} == {"shipped"}


def test_texts_are_compared_within_their_roles():
    asked = (("main_title", "MOKA"), ("selling_points", "NEW"), ("selling_points", "20"))
    shown = (("main_title", "MOKE"), ("selling_points", "NEW"), ("other_text", "20"))
    found = {(one.role, one.asked, one.shown): one.edits for one in shown_texts(asked, shown)}
    assert found == {
        ("main_title", "MOKA", "MOKE"): 1,
        ("selling_points", "NEW", "NEW"): 0,
        ("selling_points", "20", ""): 2,
        ("other_text", "", "20"): 2,
    }
    assert ShownText("other_text", "", "").edits == 0


def test_tallies_count_what_the_oracles_read():
    rng = np.random.default_rng(3)
    posters, scenes = PosterTally(), SceneTally()
    right = Poster("red", (("main_title", "MOKA"), ("other_text", "20")))
    assert posters.add(right, draw_poster(right))
    assert not posters.add(right, draw_poster(Poster("blue", (("main_title", "MOKE"), ("subtitle", "AB")))))
    told = posters.told("p")
    assert (told["p"]["value"], told["p_ground"]["value"], told["p_main_title"]["value"]) == (0.5, 0.5, 0.5)
    assert told["p_other_text"]["value"] == 0.5
    assert told["p_character_error_rate"] == {"value": round((1 + 2 + 2) / 12, 4), "characters": 12}
    claim = random_dense_claim(rng)
    assert scenes.add(claim, draw_scene(dense_scene_of(claim, rng), rng))
    assert all(fact["value"] == 1 for fact in scenes.told("s").values())


def test_everything_is_measured_and_parts_need_no_other_models(weights):
    """Random weights: only what is counted is looked at."""
    some = {"images": 2, "steps": 1, "guidance_scale": 1.0, "grid": None, "seed": 0}
    facts = measure("/nowhere", str(weights / "t2i"), drawings=2, pairs=0, prompts=0, **some)
    assert facts["vae_posters"]["n"] == facts["vae_scenes"]["n"] == 2 and facts["vae_tiif_questions"]["n"] > 4
    facts = measure(str(weights / "vlm"), "/nowhere", drawings=0, pairs=1, prompts=0, **some)
    assert sorted(facts) == sorted(f"vlm_true_beats_wrong_{kind}" for kind in (*FACTS, "letter", "letter_in_prompt"))
    facts = measure(str(weights / "vlm"), str(weights / "t2i"), drawings=0, pairs=0, prompts=2, **some)
    assert facts["base_posters"]["n"] == facts["base_scenes"]["n"] == 2
    assert {"reward_auc_within_prompt_scenes", "reward_auc_within_prompt_posters"} <= set(facts)


def test_the_vlm_that_was_taught_directions_tells_left_from_right():
    """Measured: 98 % of 200 pairs of each kind; by the world's VLM 86 and 94.5 %."""
    reward = EchoReward(load_vlm("gallery-directions"), batch_size=30)
    made = [_wrong_scene(kind, index) for kind in ("left", "right") for index in range(30)]
    assert _wins(reward, made)["value"] > 0.95
