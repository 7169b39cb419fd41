"""Rewards from CLIP in its real class with tiny random weights: numbers of the authors' codes, heads, configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from clip_fixture import LONG, PROMPTS, SIZES, head_state, picture, save_clip, save_head
from safetensors.torch import save_file
from tiny_experiment import Experiment
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import load_experiment, slice_digest
from promptecho.config.inputs import inputs_of
from promptecho.errors import ConfigError, ModelError, RewardError
from promptecho.files import read_jsonl
from promptecho.models.required import required_models
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.aesthetic.reward import read_head
from promptecho.train.loop import train_segment

# What the authors' functions give for these weights, pictures and prompts, prompt by prompt: the preferences among
# the pictures by infer_example of yuvalkirstain/PickScore (11584a5), CLIPScores by get_clip_score of jmhessel/clipscore
# (459f821), and ratings by AestheticScore of THUDM/ImageReward (0f5fa3e), whose head is that of
# christophschuhmann/improved-aesthetic-predictor (3ade56d). They were run outside of this repository,
# with this tiny CLIP where they load OpenAI's package, and for the latter two with Pillow and NumPy doing what
# torchvision's transforms and scikit-learn's `normalize` do.
PREFERENCES = [
    [0.0012303065741434693, 0.9808135628700256, 0.017956236377358437],
    [0.34796226024627686, 0.2204441875219345, 0.43159353733062744],
    [0.016674857586622238, 0.9632447957992554, 0.020080387592315674],
    [0.6729257106781006, 0.29344114661216736, 0.03363308310508728],
    [0.04452862590551376, 0.8497758507728577, 0.10569551587104797],
]
CLIPSCORES = [
    [0.0, 0.0, 0.0],
    [0.0, 0.9637156128883362, 0.0],
    [0.0, 0.4638345539569855, 0.022152923047542572],
    [0.0, 0.0, 0.0],
    [0.5156732201576233, 0.7343342304229736, 0.08008375763893127],
]
RATINGS = [-2.1709113121032715, -2.0813775062561035, -2.1534054279327393]
PICTURES = [picture(index, size) for index, size in enumerate(SIZES)]
PAIRS = [(picture, prompt) for prompt in PROMPTS for picture in PICTURES]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def built(name: str, clip: Path, *, batch_size: int = 16, **options):
    from promptecho.config.descriptors import reward_named

    section = reward_named(name).options(path=str(clip), **options)
    return make_reward(name, RewardContext(options=section, batch_size=batch_size))


def of_all(reward) -> torch.Tensor:
    """Rewards [prompts, pictures]."""
    found = reward([picture for picture, _ in PAIRS], [prompt for _, prompt in PAIRS], ["p"] * len(PAIRS))
    return torch.tensor(found).reshape(len(PROMPTS), len(PICTURES))


def test_pickscore_prefers_as_the_authors_code_does(clip):
    found = of_all(built("pickscore", clip))
    assert torch.allclose(found.softmax(1), torch.tensor(PREFERENCES), atol=2e-4)
    assert torch.allclose(of_all(built("pickscore", clip, batch_size=4)), found, atol=1e-4)


def test_clipscore_is_the_authors(clip, capfd):
    assert torch.allclose(of_all(built("clipscore", clip)), torch.tensor(CLIPSCORES), atol=1e-4)
    assert "clipscore: 1 of 2 texts so far are longer than the 77 tokens" in capfd.readouterr().err
    assert not torch.allclose(of_all(built("clipscore", clip, prefix="")), torch.tensor(CLIPSCORES), atol=1e-2)


def test_the_aesthetic_score_is_the_authors_from_either_kind_of_file(clip, tmp_path):
    pickled, plain = save_head(tmp_path / "head.pth"), tmp_path / "head.safetensors"
    save_file(head_state(), plain)
    for head in (pickled, plain):
        found = of_all(built("aesthetic", clip, head=str(head)))
        assert torch.allclose(found, torch.tensor([RATINGS] * len(PROMPTS)), atol=1e-4)


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def test_heads_that_do_not_fit_or_run_code_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.zeros(1, 24), "bias": RunsCode()}, "code.pth")
    with pytest.raises(ModelError, match=r"aesthetic.head: code.pth: cannot read a head's weights"):
        read_head(Path("code.pth"), 24)
    assert not Path("was-run").exists()
    torch.save({"weight": torch.zeros(1, 24), "bias": torch.zeros(1)}, "one.pth")
    assert len(read_head(Path("one.pth"), 24)) == 1
    torch.save(head_state((8, 1), (0, 3)), "relu.pth")
    torch.save(head_state((8, 2), (0, 1)), "two.pth")
    for file, width, told in (("one.pth", 768, "on 768 numbers"), ("relu.pth", 24, "ReLU"), ("two.pth", 24, "gives 2"),
                              ("none.pth", 24, "cannot read")):  # fmt: skip
        with pytest.raises(ModelError, match=told):
            read_head(Path(file), width)


def test_numbers_that_are_not_finite_name_prompt_and_image(clip):
    reward = built("pickscore", clip)
    reward.function.encoder.model.visual_projection.weight.data[0] = float("nan")
    with pytest.raises(RewardError, match="prompt p1, image 0: the reward is not finite .pickscore nan"):
        reward(PICTURES[:1], ["A cat."], ["p1"])


def test_the_command_tells_of_texts_that_were_cut(clip, tmp_path):
    PICTURES[0].save(tmp_path / "a.png")
    words = ["reward", str(tmp_path / "a.png"), "--name", "pickscore", "--set", f"path={clip}", "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--label", LONG, "--json"])
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout.splitlines()[-1])
    assert found["truncated"] and found["tokens"] > 77
    assert found["reward"] == pytest.approx(of_all(built("pickscore", clip))[1, 0].item(), abs=1e-4)
    refused = CliRunner().invoke(app, [*words[:-4], "--set", f"path={tmp_path}", "--label", "x"])
    assert "no config.json" in str(refused.exception)


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("clipscore", {"path": "shapes"}, "path: shapes ships with the project, but is no model for this; give"),
        ("pickscore", {"path": "gallery-directions"}, "path: gallery-directions ships with the project"),
        ("aesthetic", {"path": "gallery"}, "give shapes-clip, a folder or a hub id"),
        ("imagereward", {"path": "shapes-clip"}, "path: shapes-clip ships with the project"),
        ("imagereward", {"tokenizer": "shapes"}, "no model for this; give a folder or a hub id"),
    ],
)
def test_an_embedded_model_of_another_kind_is_refused_where_it_is_named(tmp_path, name, options, line):
    entry = {"name": name, name: options}
    for key in ("rewards", "guards"):
        file = Experiment(tmp_path / key).config(sections={key: [entry]})
        with pytest.raises(ConfigError) as error:
            load_experiment(file)
        assert f"{key}.0.{name}" in str(error.value) and line in str(error.value)


def test_an_experiment_knows_the_models_and_trains_without_a_vlm(clip, tmp_path, train_in_process):
    head = save_head(tmp_path / "head.pth")
    rewards = [
        {"name": "clipscore", "clipscore": {"path": str(clip)}},
        {"name": "aesthetic", "weight": 0.1, "aesthetic": {"path": str(clip), "head": str(head)}},
    ]
    experiment = Experiment(tmp_path)
    file = experiment.config(sections={"rewards": rewards}, iterations=1, checkpoints=[1], kl_base={"weight": 0.0})
    config = load_experiment(file)
    [clips] = [model for model in required_models(config) if model.source == str(clip)]
    assert clips.keys == ("rewards.0.clipscore.path", "rewards.1.aesthetic.path")
    assert inputs_of(config, "train", "r")["rewards.0.clipscore.path"] == str(clip)
    before = slice_digest(config, "train", "r")
    head.rename(tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"rewards\.1\.aesthetic\.head: .*head.pth: cannot read"):
        slice_digest(config, "train", "r")
    torch.save({**head_state(), "layers.7.bias": torch.ones(1)}, head)
    assert slice_digest(config, "train", "r") != before
    (tmp_path / "other.pth").rename(head)
    assert slice_digest(config, "train", "r") == before
    train_segment(experiment.segment("run", file, 1))
    [row] = read_jsonl(next(tmp_path.rglob("metrics.jsonl")))
    assert row["reward_0_clipscore"] >= 0 and row["reward_mean"] == pytest.approx(
        row["reward_0_clipscore"] + 0.1 * row["reward_1_aesthetic"], abs=1e-5
    )
