"""Families of text-to-image models from outside: what their descriptors may say, and mistakes told in one line."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from promptecho.config import load_experiment
from promptecho.config.families import DEFAULT, FAMILIES, Family, TextEncoder, available_families, family_in, misfit
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import write_json
from promptecho.t2i.comfyui import export, family_note
from promptecho.t2i.registry import load_family

ROOT = Path(__file__).resolve().parents[2]
OURS = {"title": "Ours", "pipeline_class": "OurPipeline", "transformer_class": "OurTransformer"}
DESCRIPTOR = """
from promptecho.t2i import Family

FAMILY = Family(
    name="NAME", title="Ours", model="MODULE_model:Ours", pipeline_class="OurPipeline",
    transformer_class="OurTransformer", lora_attention=("to_q",), height=512, guidance_scale=2.5,
)
"""
CODE = """
class Ours:
    @classmethod
    def load(cls, descriptor, path, **options):
        BODY
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FAMILIES, "named", {})
    monkeypatch.setattr(FAMILIES, "_loaded", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    importlib.invalidate_caches()


def family(folder: Path, module: str = "ours", name: str = "ours", body: str = "return cls()") -> Path:
    """Write the two modules of a family; returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(DESCRIPTOR.replace("NAME", name).replace("MODULE", module))
    (folder / f"{module}_model.py").write_text(CODE.replace("BODY", body))
    return folder


def experiment(folder: Path, t2i: dict | None = None, specs: list | None = None, **sections) -> Path:
    content = {
        "models": {"t2i": {"path": "t2i", **({"family": "ours"} if t2i is None else t2i)}, "vlm": {"path": "vlm"}},
        "captions": {"prompts": "prompts.txt", "heldout": 2},
        "runs": {"r": {}, "own": {"sampling": {"guidance_scale": 1.0}}},
        "image_sets": {"a": {"benchmark": "captions", "heldout": 2}, "b": {"benchmark": "geneval", "prompts": "p"}},
        "plugins": ["ours:FAMILY"] if specs is None else specs,
        **sections,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "e.yaml").write_text(yaml.safe_dump(content))
    return folder / "e.yaml"


def refusal(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"name": "Our Own"}, "name 'Our Own': take lower-case letters, digits, _ and -"),
        ({"model": "model.py"}, "model 'model.py': expected MODULE:OBJECT"),
        ({"version": 0}, "version 0: count from 1"),
        ({"text_encoders": (TextEncoder(starts_only=True),)}, "text_encoders: exactly one gets the whole prompt"),
        ({"text_encoders": (TextEncoder(), TextEncoder(part="b"))}, "text_encoders: exactly one gets the whole prompt"),
        ({"lora_attention": "to_q"}, "lora_attention 'to_q': expected several texts"),
        ({"lora_attention": ()}, "lora_attention, lora_feed_forward: tuples of name endings, not both empty"),
        ({"takes": {"padding"}}, "takes padding: choose of pad_prompts"),
        ({"height": 512.0}, "height 512.0: expected a whole number"),
        ({"guidance_scale": "4"}, "guidance_scale '4': expected a number"),
    ],
)
def test_a_descriptor_that_cannot_be_used_says_which_key_is_wrong(keys, told):
    with pytest.raises(ValueError, match="^Family: ") as caught:
        Family(**{"name": "ours", "model": "a:B", "lora_attention": ("to_q",), **OURS, **keys})
    assert told in str(caught.value)


def test_what_is_left_out_is_as_the_family_has_it(tmp_path):
    family(tmp_path)
    config = load_experiment(experiment(tmp_path))
    assert (config.models.t2i.height, config.models.t2i.width) == (512, 1024)
    assert {name: run.sampling.guidance_scale for name, run in config.runs.items()} == {"r": 2.5, "own": 1.0}
    assert [one.guidance_scale for one in config.image_sets.values()] == [2.5, 2.5]
    config = load_experiment(experiment(tmp_path, {"family": DEFAULT}))
    assert (config.models.t2i.height, config.runs["r"].sampling.guidance_scale) == (1024, 3.5)
    assert config.image_sets["a"].guidance_scale == 4.0


def test_names_that_there_are_not_and_settings_that_it_does_not_heed_are_told(tmp_path):
    family(tmp_path)
    for name, more in (("ous", "did you mean ours?"), ("sdxl", "a family from outside is installed, or named in")):
        [line] = refusal(experiment(tmp_path, {"family": name}))
        known = "'zimage', 'qwenimage', 'qwenimage_edit', 'flux', 'sd3', 'flux2', 'wan' or 'ours'"
        expected = f"input should be {known} (found {name!r}); {more}"
        assert line.startswith(f"models.t2i.family: {expected}")
    [line] = refusal(experiment(tmp_path, {"family": "ours", "pad_prompts": "masked"}))
    assert line == "models.t2i.pad_prompts: ours has no such choice; remove it (it is for qwenimage)"
    # A plugin that fails is the reason for all that it would have brought.
    (tmp_path / "broken.py").write_text("1 / 0\n")
    [line] = refusal(experiment(tmp_path, {"family": "nothing"}, specs=["broken:FAMILY"]))
    assert line.startswith("plugins.0: broken:FAMILY: its import fails: ZeroDivisionError")


def test_prompts_are_planned_as_long_as_the_family_takes_them(tmp_path):
    from promptecho.plan.settings import usual_prompt_tokens

    family(tmp_path)
    prompts = {"prompts": "prompts.txt", "heldout": 2, "max_words": 1000, "max_tokens": 1000}
    for name, tokens in (("ours", 512 - 16), ("zimage", 504), ("qwenimage", 1000)):
        assert usual_prompt_tokens(load_experiment(experiment(tmp_path, {"family": name}, captions=prompts))) == tokens


def test_the_example_is_read_where_there_is_no_torch():
    """As experiment files are where Snakemake starts: what is heavy stays unloaded."""
    code = (
        "import sys; from promptecho.config import load_experiment; "
        "config = load_experiment(sys.argv[1]); heavy = {'torch', 'diffusers', 'transformers'} & set(sys.modules); "
        "print(config.models.t2i.family, sorted(heavy))"
    )
    (tmp := Path("family")).symlink_to(ROOT / "examples/family")  # below the folder where we are
    done = subprocess.run([sys.executable, "-c", code, tmp / "shapes-auraflow.yaml"], capture_output=True, text=True)
    assert done.stdout == "auraflow []\n", done.stderr


def test_two_of_one_name_are_refused_by_both_their_names(tmp_path):
    for package in ("one", "two"):
        site = family(tmp_path / package, module=f"of_{package}")
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[promptecho.families]\nours = of_{package}:FAMILY\n")
        sys.path.append(str(site))
    importlib.invalidate_caches()
    [line] = refusal(experiment(tmp_path, specs=[]))
    assert "families: two are called ours: of_one:FAMILY of one 1.0 and of_two:FAMILY of two 1.0; uninstall" in line


def test_a_folder_is_recognised_by_the_classes_of_its_pipeline(tmp_path):
    family(tmp_path)
    load_experiment(experiment(tmp_path))  # nothing lies at `t2i` yet, which is told when it is looked for
    ours, zimage = FAMILIES.find("ours").thing, FAMILIES.find("zimage").thing

    def holds(pipeline: str, transformer: str) -> None:
        index = {"_class_name": pipeline, "transformer": ["diffusers", transformer]}
        write_json(tmp_path / "t2i/model_index.json", index)

    (tmp_path / "t2i").mkdir()
    holds("OurPipeline", "OurTransformer")
    assert family_in("t2i") == "ours" and misfit(ours, "t2i") is None
    load_experiment(experiment(tmp_path))
    [line] = refusal(experiment(tmp_path, {"family": "zimage"}))
    told = "holds a OurPipeline with a OurTransformer, not a Z-Image pipeline; set models.t2i.family: ours, or correct"
    assert line == f"models.t2i.path: t2i: {told} models.t2i.path"
    holds("OurPipeline", "AnotherTransformer")
    assert family_in("t2i") is None and "no family that is at hand reads it" in misfit(zimage, "t2i")
    for text in ("{", "[]", '{"_class_name": 3}', '{"_class_name": "OurPipeline"}'):
        (tmp_path / "t2i/model_index.json").write_text(text)
        assert misfit(zimage, "t2i") is None  # whoever loads it says what is wrong


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return options['nothing']", "load fails: KeyError: 'nothing'; --debug shows where"),
        ("import no_such_thing", "load fails: ModuleNotFoundError: No module named 'no_such_thing'; --debug"),
        ("return cls()", "its models lack latent_shape, encode_prompts, negative, velocity, guided_velocity"),
    ],
)
def test_code_that_fails_is_told_with_the_name_of_the_family(tmp_path, body, told):
    load_experiment(experiment(family(tmp_path, body=body)))
    (tmp_path / "t2i").mkdir()
    with pytest.raises(ModelError) as caught:
        load_family("ours", str(tmp_path / "t2i"))
    assert str(caught.value).startswith(f"family ours (ours:FAMILY of {tmp_path}/e.yaml: plugins.0): {told}")


def test_code_that_is_not_there_is_told_as_such(tmp_path):
    load_experiment(experiment(family(tmp_path)))
    (tmp_path / "ours_model.py").write_text("class Other: pass\n")
    with pytest.raises(ConfigError, match=r"family ours \(.*\): ours_model:Ours: .*ours_model.py has no Ours"):
        load_family("ours", "t2i")


def test_an_adapter_whose_names_in_comfyui_are_unknown_is_not_exported(tmp_path):
    load_experiment(experiment(family(tmp_path)))
    [(name, note)] = family_note(FAMILIES.find("ours").thing).items()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / name).write_text(json.dumps(note))
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    import torch
    from safetensors.torch import save_file

    halves = {"to_q.lora_A.weight": torch.ones(2, 4), "to_q.lora_B.weight": torch.ones(4, 2)}
    save_file(halves, tmp_path / "adapter/adapter_model.safetensors")
    with pytest.raises(DataError, match="family.json: has no comfyui_prefix: what ComfyUI calls"):
        export([tmp_path / "adapter"])
    assert not (tmp_path / "adapter/comfyui_lora.safetensors").exists()


def test_the_papers_need_no_word_beside_an_adapter_and_no_two_read_the_same_folders():
    ours = [found.thing for found in available_families(ours_only=True)]
    assert [family_note(one) for one in ours[:3]] == [{}, {}, {}]
    assert {family_note(one)["family.json"]["comfyui_prefix"] for one in ours[3:]} == {"transformer.", None}
    assert len({one.classes for one in ours}) == len(ours) == len(FAMILIES.built_in)
    assert all(path.is_file() for one in ours for path in one.sizes)
