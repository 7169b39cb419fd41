"""The image tree that TIIF-Bench's official evaluator reads: `TYPE/MODEL/short_description/INDEX.png`, and `long_`.

MODEL is always `model` here, so that a tree may be moved or renamed: tell the official evaluator `--eval_model model`.
`metadata.jsonl` beside the attributes' folders, which it does not look at, is the packed prompt file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptecho.archives import ImageFile, ImageStore
from promptecho.benchmarks.layout import missing_images, refuse_missing, refuse_mixed_sizes
from promptecho.benchmarks.limit import first_places
from promptecho.benchmarks.tiif.attributes import LENGTHS
from promptecho.benchmarks.tiif.prompts import TiifPrompt, read_prompts, write_prompts
from promptecho.errors import ConfigError, DataError

MODEL = "model"
METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class TiifImage:
    """One image to judge."""

    prompt: TiifPrompt
    length: str
    path: ImageFile

    @property
    def group(self) -> str:
        """Sub-task in score files."""
        return f"{self.length}:{self.prompt.type}"

    @property
    def image_id(self) -> str:
        return f"{self.length}/{self.prompt.prompt_id}"


def image_path(root: Path, prompt: TiifPrompt, length: str, model: str = MODEL) -> Path:
    """Where the official layout keeps one image."""
    return root / _name(prompt, length, model)


def _name(prompt: TiifPrompt, length: str, model: str = MODEL) -> str:
    return f"{prompt.type}/{model}/{length}_description/{prompt.index}.png"


def tag_of(prompt: TiifPrompt) -> str:
    """By what a limit is stratified."""
    return prompt.type


def check_images_per_prompt(count: int | None) -> None:
    """TIIF-Bench has one image for each description.

    Raises:
        ConfigError: another number.
    """
    if count not in (None, 1):
        raise ConfigError(f"images_per_prompt is {count}: TIIF-Bench has one image per prompt; set it to 1")


class TiifLayout:
    """`Layout` of TIIF-Bench; ids are `TYPE/LENGTH/INDEX`, each prompt's short description before its long one."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None):
        check_images_per_prompt(images_per_prompt)
        self._root = root
        self._prompts = read_prompts(prompts)
        self._entries = [(prompt, length) for prompt in self._prompts for length in LENGTHS]
        self.ids = [f"{prompt.type}/{length}/{prompt.index}" for prompt, length in self._entries]
        self.texts = [prompt.text(length) for prompt, length in self._entries]
        places = first_places(self._prompts, tag_of, limit)
        self._chosen_prompts = [self._prompts[place] for place in places]
        self.chosen = [place * len(LENGTHS) + k for place in places for k in range(len(LENGTHS))]

    def image_path(self, p: int, i: int) -> Path:
        return image_path(self._root, *self._entries[p])

    def _is_whole(self) -> bool:
        return ImageStore(self._root).has_all(_name(*self._entries[p]) for p in self.chosen)

    def remove_stale(self) -> None:
        wanted = {self.image_path(p, 0) for p in range(len(self.ids))}
        for image in self._root.glob(f"*/{MODEL}/*_description/[0-9]*.png"):
            if image not in wanted:
                image.unlink(missing_ok=True)
        # A listing that exists is true: one of other prompts, or with images yet to come, goes.
        listing = self._root / METADATA
        if listing.is_file() and not (self._is_whole() and _same(listing, self._chosen_prompts)):
            listing.unlink(missing_ok=True)

    def describe(self, prompts: Sequence[int]) -> None:
        if self._is_whole():  # the last shard to finish sees that, however many run at once
            write_prompts(self._root / METADATA, self._chosen_prompts)


def _same(listing: Path, prompts: list[TiifPrompt]) -> bool:
    try:
        return read_prompts(listing) == prompts
    except DataError:  # damaged, or of another benchmark: not ours either way
        return False


def _model_of(root: Path, images: set[str]) -> str:
    """The one model whose images a tree holds, whatever its name: a tree may come from elsewhere."""
    found = {folder.parent.name for folder in root.glob("*/*/*_description") if folder.is_dir()}
    names = sorted(found | {parts[1] for parts in map(_parts, images) if parts is not None})
    if len(names) != 1:
        told = f"images of several models ({', '.join(names)})" if names else "no TYPE/MODEL/short_description in it"
        raise DataError(f"{root}: {told}; give a folder with the images of one model")
    return names[0]


def _parts(name: str) -> tuple[str, str] | None:
    """Type and model of an image's name; None for other names."""
    parts = name.split("/")
    return (parts[0], parts[1]) if len(parts) == 4 and parts[2].endswith("_description") else None


def list_images(
    root: str | Path, prompts: list[TiifPrompt] | None = None, only: list[TiifPrompt] | None = None
) -> list[TiifImage]:
    """All images of a tree, by prompt, the short description's first.

    Missing images would silently leave the denominators, so the tree must be whole. `prompts` None takes the tree's
    own listing; a tree made elsewhere has none and needs them. `only`: those of `prompts` whose images are wanted.

    Raises:
        DataError: the tree or images are missing (named), there are more, or the listing has other prompts.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such image folder; generate the images first")
    listing = root / METADATA
    store = ImageStore(root)
    if prompts is None and not listing.is_file():
        store.names()  # tells of a damaged archive, where that is why there is no listing
        raise DataError(f"{listing}: no such file; generate the images (all shards), or give --prompts")
    own, prompts = prompts is None, read_prompts(listing) if prompts is None else prompts
    wanted = prompts if only is None else only
    if not own and listing.is_file():
        listed = read_prompts(listing)
        if only is not None:  # the listing of another limit, or of none, has others of the same set
            known, ids = {prompt.prompt_id: prompt for prompt in prompts}, {prompt.prompt_id for prompt in only}
            listed = [one for one in listed if one.prompt_id in ids or known.get(one.prompt_id) != one]
        if listed != wanted:
            other = next((f for f, e in zip(listed, wanted, strict=False) if f != e), (listed or wanted)[-1])
            raise DataError(
                f"{listing}: its {len(listed)} prompts are not the {len(wanted)} of the prompt set, e.g. "
                f"{other.prompt_id}; generate the images again"
            )
    images = store.names()
    model = _model_of(root, images)
    every = {
        (prompt.prompt_id, length): TiifImage(prompt, length, store.find(_name(prompt, length, model)))
        for prompt in prompts
        for length in LENGTHS
    }
    entries = [every[prompt.prompt_id, length] for prompt in wanted for length in LENGTHS]
    missing = missing_images(root, (entry.path for entry in entries))
    refuse_missing(root, missing, len(entries))
    found = {name for name in images if (parts := _parts(name)) is not None and parts[1] == model}
    if extra := sorted(found - {_name(prompt, length, model) for prompt in prompts for length in LENGTHS}):
        raise DataError(
            f"{root / extra[0]}: no image of the {len(prompts)} prompts; another prompt set was generated here"
        )
    refuse_mixed_sizes(root, (entry.path for entry in entries))
    return entries
