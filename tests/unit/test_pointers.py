"""Pointers of Git LFS and git-annex in the place of files: named as what they are, wherever a file is read."""

from __future__ import annotations

import json

import pytest

from promptecho.benchmarks.packing import PACKED, unpacked
from promptecho.captions.prompts import read_prompts
from promptecho.captions.store import image_hashes, read_captions
from promptecho.errors import DataError, PromptEchoError
from promptecho.files import read_json, read_jsonl
from promptecho.images import load_image
from promptecho.models.inventory import model_status
from promptecho.models.locate import locate_model
from promptecho.models.required import RequiredModel
from promptecho.t2i.lora_files import read_tensors
from promptecho.templates import read_template
from promptecho.text_files import read_rows

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
ANNEX = b"/annex/objects/SHA256E-s12345--4d7a214614ab2935c943f9e0ff69d22e.bin\n"


def unpack(path):
    path.rename(path.parent / PACKED)
    with unpacked(path.parent):
        pass


READERS = {
    "captions.h5": read_captions, "00000.h5": image_hashes, "a.png": load_image, "a.jpg": load_image,
    "lora.safetensors": read_tensors, "prompts.txt": read_prompts, "prompts.csv": read_prompts, "rows.jsonl": read_rows,
    "metrics.jsonl": read_jsonl, "scores.json": read_json, "template.txt": read_template, "images.tgz": unpack,
}  # fmt: skip


TOLD = {LFS: "Git LFS, .* `git lfs pull`", ANNEX: "git-annex, .* `git annex get`"}


@pytest.mark.parametrize("content", TOLD, ids=["lfs", "annex"])
@pytest.mark.parametrize("name", READERS)
def test_a_pointer_is_named_as_what_it_is(tmp_path, name, content):
    path = tmp_path / "a" / name
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a pointer of {TOLD[content]} where it came from") as caught:
        READERS[name](path)
    assert "\n" not in str(caught.value) and "damaged" not in str(caught.value) and "delete" not in str(caught.value)
    assert str(path.parent) in str(caught.value)


def test_prompts_about_pointers_are_prompts(tmp_path):
    (tmp_path / "p.txt").write_text("version https is a strange prompt\n/annex is another\n")
    assert len(read_prompts(tmp_path / "p.txt")) == 2


def model(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


WEIGHTS = (2).to_bytes(8, "little") + b"{}"  # of no tensors
PIPELINE = {"model_index.json": json.dumps({"transformer": ["diffusers", "X"], "vae": ["diffusers", "Y"]}).encode(),
            "transformer/config.json": b"{}", "vae/config.json": b"{}"}  # fmt: skip
MODELS = [  # files, the one that is named, how many more
    ("transformers", {"config.json": b"{}", "a.safetensors": LFS, "b.safetensors": LFS, "c.safetensors": WEIGHTS},
     "a.safetensors and 1 more of it"),
    ("transformers", {"config.json": b"{}", "tokenizer.json": LFS, "a.safetensors": WEIGHTS}, "tokenizer.json"),
    ("pipeline", {**PIPELINE, "transformer/d.safetensors": LFS, "vae/d.safetensors": WEIGHTS},
     "transformer/d.safetensors"),
    ("pipeline", {"model_index.json": LFS, "vae/d.safetensors": LFS}, "model_index.json"),
    # What is not loaded needs not be there.
    ("transformers", {"config.json": b"{}", "a.safetensors": WEIGHTS, "flax_model.msgpack": LFS, "b.bin": LFS,
                      "consolidated.safetensors": LFS, "a.fp16.safetensors": LFS, "onnx/config.json": LFS}, None),
    ("pipeline", {**PIPELINE, "all_in_one.safetensors": LFS, "vae/d.safetensors": WEIGHTS,
                  "transformer/d.safetensors": WEIGHTS, "assets/config.json": LFS}, None),
    ("adapter", {"adapter_config.json": b"{}", "optimizer.safetensors": LFS}, None),
]  # fmt: skip


@pytest.mark.parametrize("kind, files, named", MODELS)
def test_models_with_pointers_are_refused_before_they_are_loaded(tmp_path, kind, files, named):
    folder = model(tmp_path / "my model", files)
    found = model_status(RequiredModel(folder, kind, None, ("models.vlm",)), None)
    if named is None:
        assert locate_model(folder) == folder and found.problem is None
        return
    with pytest.raises(PromptEchoError, match=f"my model/{named}: a pointer of Git LFS, not the file") as caught:
        locate_model(folder)
    assert found.problem == str(caught.value)
