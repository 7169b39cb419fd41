"""The image folder that GenEval's official evaluator reads: `00012/metadata.jsonl`, `00012/samples/00003.png`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptecho.archives import ImageFile, ImageStore
from promptecho.benchmarks.geneval.prompts import GenevalPrompt, parse_prompt, read_prompts
from promptecho.benchmarks.layout import refuse_missing, refuse_mixed_sizes
from promptecho.benchmarks.limit import first_places
from promptecho.errors import DataError
from promptecho.files import jsonl_text, read_jsonl, write_jsonl
from promptecho.text_files import json_rows

METADATA = "metadata.jsonl"
_IMAGE = re.compile(r"(?P<prompt>[0-9]+)/samples/(?P<image>[0-9]+)\.png")


@dataclass(frozen=True)
class GenevalImage:
    """One image to judge."""

    prompt_index: int
    image_index: int
    path: ImageFile
    prompt: GenevalPrompt

    @property
    def prompt_id(self) -> str:
        return f"{self.prompt_index:05}"


def tag_of(prompt: GenevalPrompt) -> str:
    """By what a limit is stratified."""
    return prompt.tag


def image_path(root: Path, prompt_index: int, image_index: int) -> Path:
    """Where the official layout keeps one image."""
    return root / f"{prompt_index:05}" / "samples" / f"{image_index:05}.png"


class GenevalLayout:
    """`Layout` of GenEval: a folder per prompt, named after the prompt's place in the prompt set."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None):
        self._root, self._images_per_prompt = root, images_per_prompt
        self._prompts = read_prompts(prompts)
        self.ids = [f"{p:05}" for p in range(len(self._prompts))]
        self.texts = [prompt.prompt for prompt in self._prompts]
        self.chosen = first_places(self._prompts, tag_of, limit)

    def image_path(self, p: int, i: int) -> Path:
        return image_path(self._root, p, i)

    def remove_stale(self) -> None:
        for folder in self._root.glob("[0-9]*"):
            if not folder.name.isdecimal() or not folder.is_dir():
                continue
            if int(folder.name) >= len(self._prompts):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for image in folder.glob("samples/[0-9]*.png"):
                if image.stem.isdecimal() and int(image.stem) >= self._images_per_prompt:
                    image.unlink(missing_ok=True)

    def describe(self, prompts: Sequence[int]) -> None:
        for p in prompts:
            write_jsonl(self._root / self.ids[p] / METADATA, [self._prompts[p].metadata()])

    def prompt_files(self, p: int) -> dict[str, bytes]:
        return {f"{self.ids[p]}/{METADATA}": jsonl_text([self._prompts[p].metadata()]).encode()}


def _read_folder_prompt(store: ImageStore, folder: str) -> GenevalPrompt:
    path = store.find(f"{folder}/{METADATA}")
    if isinstance(path, Path):
        rows = read_jsonl(path)
    else:
        rows = [row for _, row in json_rows(str(path), path.read_bytes().decode(errors="replace"))]
    if len(rows) != 1:
        raise DataError(f"{path}: expected one JSON object, found {len(rows)}; one folder holds one prompt's images")
    return parse_prompt(rows[0], f"{path}:1")


def list_images(
    root: str | Path, prompts: list[GenevalPrompt] | None = None, images_per_prompt: int | None = None,
    limit: int | None = None,
) -> list[GenevalImage]:  # fmt: skip
    """All images of a folder, by prompt, then image; with `limit` those of the first of `prompts` alone (limit.py).

    Missing images would silently leave the denominator of every score, so the folder must be whole: prompts 0..P-1
    and images 0..K-1 of each. P and K come from the arguments where given (then trailing gaps are seen as well),
    otherwise from the largest numbers found.

    Raises:
        DataError: folder or images are missing (named), or a folder's metadata is not that of `prompts`.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such image folder; generate the images first")
    store = ImageStore(root)
    images = [found for found in map(_IMAGE.fullmatch, sorted(store.names())) if found is not None]
    names = {f.name for f in root.iterdir() if f.is_dir()} | {image["prompt"] for image in images}
    folders = {int(name): name for name in sorted(names) if name.isascii() and name.isdigit()}
    if not folders:
        raise DataError(f"{root}: no prompt folders (00000, 00001, ...) in it; generate the images first")
    found: dict[int, dict[int, ImageFile]] = {number: {} for number in folders}
    for image in images:
        if folders[number := int(image["prompt"])] == image["prompt"]:
            found[number][int(image["image"])] = store.find(image[0])
    n_prompts = len(prompts) if prompts is not None else max(folders) + 1
    n_images = images_per_prompt or 1 + max((max(images, default=-1) for images in found.values()), default=-1)
    if n_images < 1:
        raise DataError(f"{root}: prompt folders without images (samples/00000.png, ...); generate the images first")
    chosen = first_places(prompts, tag_of, limit) if prompts is not None else range(n_prompts)
    wanted = [(p, i) for p in chosen for i in range(n_images)]
    missing = [str(image_path(Path(), p, i)) for p, i in wanted if i not in found.get(p, {})]
    refuse_missing(root, missing, len(wanted))
    extra = [p for p in folders if p >= n_prompts] + [p for p in found if any(i >= n_images for i in found[p])]
    if extra:
        raise DataError(
            f"{root / f'{extra[0]:05}'}: more than the {n_prompts} prompts x {n_images} images asked for; "
            "another prompt set was generated here"
        )
    entries = []
    for number in chosen:
        prompt = _read_folder_prompt(store, folders[number])
        if prompts is not None and prompt != prompts[number]:
            where = store.find(f"{folders[number]}/{METADATA}")
            raise DataError(
                f"{where}: prompt {prompt.prompt!r} is not number {number} of the prompt set "
                f"({prompts[number].prompt!r}); generate the images again"
            )
        entries += [GenevalImage(number, i, found[number][i], prompt) for i in range(n_images)]
    refuse_mixed_sizes(root, (entry.path for entry in entries))
    return entries
