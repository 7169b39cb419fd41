"""ImageReward with tiny random weights in transformers' classes: the authors' numbers, refusals, configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import Hub, folder_files
from test_guards import draw_images, guard_words, guarded
from test_reward_clip import RunsCode
from tiny_experiment import Experiment
from tiny_imagereward import LONG, PICTURES, PROMPTS, imagereward_state, med_config, save_imagereward
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import load_experiment
from promptecho.config.inputs import inputs_of
from promptecho.errors import ModelError, RewardError
from promptecho.files import read_json, read_jsonl
from promptecho.hub_record import RECORD
from promptecho.models.completeness import incompleteness
from promptecho.models.inventory import model_status
from promptecho.models.required import required_models
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.imagereward.model import build_model
from promptecho.rewards.imagereward.options import ImageRewardSection
from promptecho.train.loop import train_segment

# What `score` of THUDM/ImageReward (its package image-reward 1.5, whose `score` is that of the repository at c0b9080)
# gives for these weights, pictures and prompts, prompt by prompt. It ran outside of this repository with its own pins
# timm 0.6.13, fairscale 0.4.13 and transformers 4.27.4, and torchvision 0.29.1; the sizes alone were set to these.
SCORES = [
    [-0.7363309860229492, 0.09137149900197983, 0.09305574744939804, -0.3113200068473816, 0.012377527542412281],
    [-0.4667809307575226, 0.17051953077316284, 0.23235826194286346, -0.4047350287437439, 0.2619050443172455],
    [-0.7708916068077087, -0.013713072054088116, -0.05445745214819908, -0.43068379163742065, -0.17924873530864716],
    [-0.9621103405952454, -0.00027019489789381623, -0.021745994687080383, -0.41398972272872925, -0.2950616478919983],
    [-0.4667809307575226, 0.17051953077316284, 0.23235826194286346, -0.4047350287437439, 0.2619050443172455],
]
PAIRS = [(picture, prompt) for prompt in PROMPTS for picture in PICTURES]


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict[str, str]:
    return save_imagereward(tmp_path_factory.mktemp("imagereward"))


def built(options: dict[str, str], *, batch_size: int = 16, **more):
    return make_reward(
        "imagereward", RewardContext(options=ImageRewardSection(**options, **more), batch_size=batch_size)
    )


def of_all(reward, pairs=PAIRS) -> torch.Tensor:
    return torch.tensor(reward([image for image, _ in pairs], [prompt for _, prompt in pairs], ["p"] * len(pairs)))


def test_the_scores_are_the_authors_whatever_the_batch(options, capfd):
    state = torch.get_rng_state()
    found = of_all(built(options))
    assert torch.allclose(found.reshape(len(PROMPTS), -1), torch.tensor(SCORES), atol=1e-5)
    assert "imagereward: 1 of 2 texts so far are longer than the 35 tokens that ImageReward" in capfd.readouterr().err
    assert torch.equal(torch.get_rng_state(), state), "loading draws no random numbers"
    alone, backwards = built(options, batch_size=1), built(options, batch_size=7)
    assert torch.allclose(of_all(alone, PAIRS[::4]), found[::4], atol=1e-5)
    assert torch.allclose(of_all(backwards, PAIRS[::-1]).flip(0), found, atol=1e-5)
    assert alone([], [], []) == []
    assert torch.allclose(of_all(built(options, dtype="bfloat16"), PAIRS[::4]), found[::4], atol=0.1)


def test_the_command_says_which_texts_were_cut(options, tmp_path):
    PICTURES[0].save(tmp_path / "a.png")
    words = ["reward", str(tmp_path / "a.png"), "--name", "imagereward", "--device", "cpu", "--label", LONG]
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(app, [*words, *sets, "--json"])
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout.splitlines()[-1])
    assert found["truncated"] and found["tokens"] == 84
    assert found["reward"] == pytest.approx(SCORES[1][0], abs=1e-5)


def test_a_pickle_that_runs_code_and_files_that_are_not_there_are_refused(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = save_imagereward(tmp_path / "own")
    weights, vocabulary = Path(own["path"]) / "ImageReward.pt", Path(own["tokenizer"]) / "vocab.txt"
    torch.save({**imagereward_state(), "mlp.more": RunsCode()}, weights)
    with pytest.raises(ModelError, match=r"imagereward.path: .*own/model: cannot read ImageReward's weights"):
        built(own)
    assert not Path("was-run").exists()
    torch.save([torch.zeros(1)], weights)
    with pytest.raises(ModelError, match="it does not hold tensors by name alone"):
        built(own)
    whole = (Path(options["path"]) / "ImageReward.pt").read_bytes()
    weights.write_bytes(whole[:-100])
    assert "is cut short" in str(incompleteness(Path(own["path"]), "files", ("ImageReward.pt",)))
    with pytest.raises(ModelError, match="cannot read ImageReward's weights"):
        built(own)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match="a pointer of Git LFS"):
        built(own)
    weights.unlink()
    with pytest.raises(
        ModelError, match=r"imagereward.path: .*own/model: the ImageReward folder has no ImageReward.pt"
    ):
        built(own)
    weights.write_bytes(whole)
    vocabulary.write_text(vocabulary.read_text() + "horse\n")
    with pytest.raises(
        ModelError, match=r"imagereward.tokenizer: .*its vocab.txt makes 146 tokens .*the model has 145"
    ):
        built(own)
    vocabulary.unlink()
    with pytest.raises(ModelError, match=r"imagereward.tokenizer: .*the tokenizer folder has no vocab.txt"):
        built(own)
    with pytest.raises(ModelError, match=r"imagereward.tokenizer: \./nowhere: no such tokenizer folder"):
        built({**own, "tokenizer": "./nowhere"})


def test_tensors_that_are_missing_or_too_many_are_named():
    query = "blip.text_encoder.encoder.layer.1.crossattention.self.query.weight"
    norm, position = "blip.visual_encoder.blocks.0.norm1.bias", "blip.visual_encoder.pos_embed"
    for changes, told in (
        ({query: None, norm: None}, f"lacks {query}, {norm}"),
        ({"blip.more.weight": torch.zeros(1)}, "holds blip.more.weight, which it has no place for"),
        ({query: torch.zeros(8, 48)}, f"{query} is of shape [8, 48], not [48, 48]"),
        ({position: None}, f"lacks {position}"),
        ({position: torch.zeros(1, 51, 128)}, "no vision transformer of square images"),
        ({position: torch.zeros(5)}, "no vision transformer of square images"),
        ({"mlp.layers.7.bias": None}, "mlp.*: is no chain of linear layers"),
        ({f"mlp.layers.{number}.{part}": None for number in (0, 2, 4, 6, 7) for part in ("weight", "bias")},
         "mlp.*: is no chain of linear layers"),
    ):  # fmt: skip
        state = {name: tensor for name, tensor in (imagereward_state() | changes).items() if tensor is not None}
        with pytest.raises(ModelError) as error:
            build_model(state, med_config(), "here")
        assert told in str(error.value) and str(error.value).startswith("here: ")
    unread = ("blip.vision_proj", "blip.text_proj", "blip.text_encoder.embeddings.position_ids")
    build_model(
        {name: one for name, one in imagereward_state().items() if not name.startswith(unread)}, med_config(), ""
    )
    with pytest.raises(ModelError, match=r"here: its med_config.json lacks hidden_act, pad_token_id"):
        build_model(
            imagereward_state(),
            {k: v for k, v in med_config().items() if k not in ("pad_token_id", "hidden_act")},
            "here",
        )
    with pytest.raises(ModelError, match="here: cannot make a model of these sizes"):
        build_model(imagereward_state(), med_config() | {"num_attention_heads": 5}, "here")


def test_a_score_that_is_not_finite_names_prompt_and_image(options):
    reward = built(options)
    reward.function.head[0][0][:] = float("nan")
    with pytest.raises(RewardError, match="prompt p1, image 0: the reward is not finite .imagereward nan"):
        reward(PICTURES[:1], ["A cat."], ["p1"])


def test_it_trains_without_a_vlm(options, tmp_path, train_in_process):
    rewards = [{"name": "imagereward", "imagereward": options}]
    experiment = Experiment(tmp_path)
    file = experiment.config(sections={"rewards": rewards}, iterations=1, checkpoints=[1], kl_base={"weight": 0.0})
    config = load_experiment(file)
    keys = {model.keys: (model.source, model.files) for model in required_models(config)}
    assert keys["rewards.0.imagereward.path",] == (options["path"], ("ImageReward.pt", "med_config.json"))
    assert keys["rewards.0.imagereward.tokenizer",] == (options["tokenizer"], ("vocab.txt",))
    inputs = inputs_of(config, "train", "r")
    assert {f"rewards.0.imagereward.{key}" for key in options} <= {*inputs}
    train_segment(experiment.segment("run", file, 1))
    [row] = read_jsonl(next(tmp_path.rglob("metrics.jsonl")))
    assert row["reward_std"] > 0 and -3 < row["reward_mean"] < 3


def test_it_guards(options, tmp_path):
    config, images = guarded(tmp_path, [{"name": "imagereward", "imagereward": options}]), draw_images(tmp_path, 4)
    words = [*guard_words(tmp_path, "imagereward", config, images), "--out", str(tmp_path / "guard.json")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    written = read_json(tmp_path / "guard.json")
    assert written["provenance"]["judge_model"] == options["path"] and written["provenance"]["unit"] == "ImageReward"
    assert len({item["outcome"] for item in written["items"]}) == 4
    assert {f"guards.0.imagereward.{key}" for key in options} <= {
        *inputs_of(load_experiment(config), "guard", guard="imagereward", image_set="set")
    }


def test_both_models_are_fetched_without_what_else_is_there(options, tmp_path):
    model, tokenizer = folder_files(Path(options["path"])), folder_files(Path(options["tokenizer"]))
    others = {"LICENSE": b"terms", "other.bin": b"x", "model.safetensors": b"x", "config.json": b"{}"}
    guard = {"name": "imagereward", "imagereward": {"tokenizer": "owner/bert"}}
    content = {"models": {"t2i": {"path": "shapes"}, "vlm": {"path": "shapes"}}, "guards": [guard]}
    content |= {"captions": {"shapes": {"count": 4, "seed": 1}, "heldout": 0}, "runs": {"r": {}}}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(content))
    with Hub({"THUDM/ImageReward": {**model, **others}, "owner/bert": {**tokenizer, **others}}) as hub:
        words = ["models", "fetch", "--config", str(tmp_path / "one.yaml"), "--root", str(tmp_path / "models")]
        done = CliRunner().invoke(app, [*words, "--endpoint", hub.url])
        assert done.exit_code == 0, done.output
        del hub.repositories["owner/bert"]["vocab.txt"]
        refused = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "again"), "--endpoint", hub.url])
        assert "owner/bert: has no vocab.txt" in str(refused.exception)
    for place, wanted in (("THUDM/ImageReward", model), ("owner/bert", tokenizer)):
        assert {*folder_files(tmp_path / "models" / place)} == {*wanted, "LICENSE", RECORD}
    wanted = [one for one in required_models(load_experiment(tmp_path / "one.yaml")) if one.files]
    assert [model_status(one, tmp_path / "models").problem for one in wanted] == [None, None]
    (tmp_path / "models/THUDM/ImageReward/med_config.json").unlink()
    assert "med_config.json: is not there" in str(model_status(wanted[0], tmp_path / "models").problem)
