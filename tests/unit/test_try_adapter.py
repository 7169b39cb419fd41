"""`promptecho try`: the same noise with and without an adapter, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_t2i
import torch
from forked import ended
from PIL import Image
from tiny_vlm import shared_folder

from promptecho.config.training_parts import LoraSection
from promptecho.files import read_json
from promptecho.t2i.lora import add_lora, save_adapter, trained_parameters
from promptecho.t2i.registry import load_family
from promptecho.try_adapter import side_by_side

PROMPT = "A red circle."
SMALL = ["--steps", "2", "--guidance", "1", "--height", "32", "--width", "32", "--threads", "1"]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> Path:
    """`strong/adapter`, as a checkpoint has it, and `nothing/adapter`, which changes nothing."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, scale in (("strong", 0.2), ("nothing", 0.0)):
        family = load_family("zimage", str(tiny_t2i.shared_folder()))
        model = add_lora(family.transformer, LoraSection(rank=4, alpha=8), 1, family.lora_targets)
        draw = torch.Generator().manual_seed(0)
        weights = {key: scale * torch.randn(p.shape, generator=draw) for key, p in trained_parameters(model).items()}
        save_adapter(model, weights, folder / name / "adapter", family.descriptor)
    return folder


def tried(adapter: Path, out: Path, *words: str) -> Path:
    model = ["--model", str(tiny_t2i.shared_folder()), "--adapter", str(adapter), "--out", str(out)]
    ended(["try", PROMPT, *model, *SMALL, "--images", "2", *words])
    return out


def pixels(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{name}.png"))


def test_images_differ_by_the_adapter_alone_and_have_their_rewards(adapters, tmp_path):
    vlm = str(shared_folder())
    strong = tried(adapters / "strong", tmp_path / "strong", "--vlm", vlm)
    nothing = tried(adapters / "nothing/adapter", tmp_path / "nothing")
    names = {"side-by-side.png", "try.json", *(f"{side}-{i}.png" for side in ("base", "adapter") for i in range(2))}
    assert {path.name for path in strong.iterdir()} == names
    for index in range(2):
        base = pixels(strong, f"base-{index}")
        assert np.array_equal(base, pixels(nothing, f"base-{index}"))
        assert np.array_equal(base, pixels(nothing, f"adapter-{index}"))
        assert not np.array_equal(base, pixels(strong, f"adapter-{index}"))
    assert not np.array_equal(pixels(strong, "base-0"), pixels(strong, "base-1"))
    told = read_json(strong / "try.json")
    assert (told["prompt"], told["seed"], told["vlm"]) == (PROMPT, 0, vlm)
    files = [str(strong / f"{side}-{i}.png") for side in ("base", "adapter") for i in range(2)]
    rows = json.loads(ended(["reward", "--vlm", vlm, *files, "--label", PROMPT, "--json"])[0])
    assert [row["reward"] for row in rows] == pytest.approx(told["rewards"]["base"] + told["rewards"]["adapter"])
    assert read_json(nothing / "try.json")["rewards"] is None
    assert Image.open(strong / "side-by-side.png").width > 2 * 256


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapter", "no/such/place"], "no/such/place: no such folder or file, and no hub id"),
        (["--adapter", ".", "--vlm", "/no/vlm"], "/no/vlm"),
        (["--adapter", ".", "--out", "."], ".: exists already; give another folder to --out"),
    ],
)
def test_what_is_missing_is_said(words, message):
    assert message in ended(["try", PROMPT, "--model", "shapes", *words], code=1)[1]


def test_nothing_is_left_of_a_failure(adapters, tmp_path):
    model = ["--model", "shapes", "--adapter", str(adapters / "strong"), "--out", str(tmp_path / "out")]
    assert "the adapter does not fit" in ended(["try", PROMPT, *model, *SMALL, "--images", "1"], code=1)[1]
    assert list(tmp_path.iterdir()) == []


def test_the_picture_has_room_for_everything():
    images = {side: [Image.new("RGB", (64, 48), color)] * 3 for side, color in (("base", "red"), ("adapter", "blue"))}
    picture = side_by_side("one two " * 60 + "\nlast line", images, {"base": [-1.0] * 3, "adapter": [0.5] * 3})
    assert (
        picture.size == side_by_side("one two " * 60 + "\nlast line", images, {side: [0.0] * 3 for side in images}).size
    )
    colors = {color: count for count, color in picture.getcolors(1 << 20)}
    assert colors[255, 0, 0] == colors[0, 0, 255] == 3 * 256 * 192
    assert side_by_side("x", images).height < picture.height
