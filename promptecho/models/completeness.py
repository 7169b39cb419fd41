"""Whether a model's folder holds all of its weights, as far as names and sizes tell: no weight is read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from promptecho.errors import DataError
from promptecho.files import read_json
from promptecho.models.required import ModelKind
from promptecho.models.selection import INDEX, PICKLES, is_wanted
from promptecho.pointers import pointer_problem

SHARDS = ".safetensors.index.json"
AGAIN = "fetch or copy the model again"
SINGLE = "model.safetensors"
DIFFUSERS_SINGLE = "diffusion_pytorch_model.safetensors"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
# Parts of a pipeline that have no weights are known by these.
WITHOUT_WEIGHTS = {"tokenizer_config.json", "preprocessor_config.json", "processor_config.json"}


def incompleteness(folder: Path, kind: ModelKind, files: Sequence[str] = ()) -> str | None:
    """What is missing or cut short in the folder of a model, with the fix; None where nothing is, or where the kind has
    no form that is known here. `files`: what it must hold, of the kinds that name it."""
    if files:
        told = ((folder / name, _unusable(folder / name)) for name in files)
        return next((f"{path}: {problem}; {AGAIN}" for path, problem in told if problem), None)
    if kind == "transformers":
        if not (folder / "config.json").is_file():
            return f"{folder}: has no config.json; {AGAIN}"
        parts = [folder]
    elif kind == "pipeline":
        if not (folder / INDEX).is_file():
            return f"{folder}: has no {INDEX}; {AGAIN}"
        try:
            parts = [folder / name for name in _parts(folder / INDEX)]
        except DataError as error:
            return f"{error}; {AGAIN}"
        if absent := [part.name for part in parts if not part.is_dir()]:
            return f"{folder}: {INDEX} names {', '.join(absent)}, and there is no such folder; {AGAIN}"
    elif kind == "adapter":
        cut = {folder / name: _cut_short(folder / name) for name in ADAPTER_WEIGHTS if (folder / name).is_file()}
        return next((f"{path}: {problem}; {AGAIN}" for path, problem in cut.items() if problem), None)
    else:
        return None
    problems = [problem for part in parts for problem in _weights(part, of_pipeline=kind == "pipeline")]
    more = f" (and {len(problems) - 1} more of its files)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}; {AGAIN}" if problems else None


def _parts(index: Path) -> Iterator[str]:
    """Folders of a pipeline's parts that it loads."""
    value = read_json(index)
    for name, what in value.items() if isinstance(value, dict) else ():
        if isinstance(what, list) and len(what) == 2 and all(isinstance(one, str) for one in what):
            yield name


def _weights(part: Path, of_pipeline: bool) -> Iterator[str]:
    """What is wrong with the weights of one part that are loaded."""
    names = {path.name for path in part.iterdir()}
    if not names:
        yield f"{part}: is empty"
        return
    indices = sorted(name for name in names if name.endswith(SHARDS) and is_wanted(name, code=False))
    there = {name for name in names if name.endswith(".safetensors") and is_wanted(name, code=False)}
    if SINGLE in names:  # transformers takes it, whatever an index beside it says
        indices, there = [], {SINGLE}
    elif indices:
        there = set()
    elif DIFFUSERS_SINGLE in names:
        there = {DIFFUSERS_SINGLE}
    for name in indices:
        try:
            value: Any = read_json(part / name)
            shards = {str(shard) for shard in value["weight_map"].values()}
        except (DataError, AttributeError, KeyError, TypeError):
            yield f"{part / name}: cannot be read, or has no weight_map"
            continue
        there |= shards & names
        for shard in sorted(shards - names):
            yield f"{part / shard}: is not there, and {name} names it"
    pickled = any(Path(name).suffix in PICKLES for name in names)
    weightless = of_pipeline and ("config.json" not in names or names & WITHOUT_WEIGHTS)
    if not (there or indices or pickled or weightless):
        yield f"{part}: holds no weights"
    for name in sorted(there):
        if problem := _cut_short(part / name):
            yield f"{part / name}: {problem}"


def _unusable(path: Path) -> str | None:
    """Why a file that is named is not there or not whole, as far as is seen without reading it."""
    if not path.is_file():
        return "is not there"
    if problem := pointer_problem(path):
        return problem
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"  # as torch writes; its index is at the end
    return "is cut short" if zipped and not zipfile.is_zipfile(path) else None


def _cut_short(path: Path) -> str | None:
    """Why a safetensors file is not whole: its head says how long it must be."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                return f"is cut short or no safetensors file ({size} bytes)"
            header = json.loads(file.read(length))
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "is damaged: its head is no safetensors head"
    whole = 8 + length + max(ends, default=0)
    return None if size == whole else f"has {size} of {whole} bytes"
