"""DPG-Bench's image folder, and what the official evaluator reads of it.

    questions.jsonl          all questions, so that the folder can be scored by itself
    cells/ITEM_ID/00003.png  single images, as they are generated
    grids/ITEM_ID.png        one picture per prompt (grid.py), and nothing else

The official evaluator takes every file of a folder for a picture, and the name up to its first dot for the item_id:
give it `grids` as --image-root-path, the width of one image as --resolution, 1 or 4 as --pic-num, and --res-path
elsewhere. Scoring reads `grids` too, or a folder with pictures right in it, as the official evaluator has it. Where the
single images lie in archives (archives.py) there are no pictures, and scoring reads the single images.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from promptecho.archives import ImageFile, ImageStore
from promptecho.benchmarks.dpg.grid import COUNTS, cell_of, compose
from promptecho.benchmarks.dpg.questions import DpgPrompt, QuestionRow, prompts_of, read_rows
from promptecho.benchmarks.layout import missing_images, refuse_missing, refuse_mixed_sizes
from promptecho.benchmarks.limit import first_places
from promptecho.errors import DataError
from promptecho.files import atomic_path, write_jsonl
from promptecho.images import load_image

QUESTIONS, CELLS, GRIDS = "questions.jsonl", "cells", "grids"
SAFE_ID = re.compile(r"[\w-]{1,200}")  # no dot: the evaluator cuts there; no slash: it is a file name
REGENERATE = "delete it and rerun the generation"
ABANDONED_S = 3600.0  # an unfinished picture older than this was left by a killed shard


@functools.lru_cache(maxsize=4)  # the images of one prompt are read one after the other
def _picture(path: Path, changed: int) -> Image.Image:
    return load_image(path, fix=REGENERATE)


@dataclass(frozen=True)
class DpgImage:
    """One image to judge: cell `image_index` of the `count` images in the picture at `path`; or `cell`, where there is
    no picture, only its name."""

    prompt: DpgPrompt
    image_index: int
    count: int
    path: Path
    cell: ImageFile | None = None

    @property
    def single(self) -> ImageFile | None:
        """The file of this image; None where several make a picture, or would."""
        return (self.cell or self.path) if self.count == 1 else None

    def load(self) -> Image.Image:
        """The image, RGB.

        Raises:
            DataError: the picture is damaged or no grid of so many images.
        """
        changed = self.path.stat().st_mtime_ns if self.path.is_file() else 0
        try:
            if self.cell is not None:
                image = cell_of(load_image(self.cell, fix=REGENERATE), 1, 0)
            else:
                image = cell_of(_picture(self.path, changed), self.count, self.image_index)
        except DataError as error:
            message = str(error)
            raise DataError(message if str(self.path) in message else f"{self.path}: {message}") from None
        image.info["path"] = str(self.path)
        return image


def check_ids(prompts: Sequence[DpgPrompt], source: str | Path) -> None:
    """Raises:
    DataError: an item_id cannot be the name of a picture.
    """
    if bad := next((prompt.item_id for prompt in prompts if not SAFE_ID.fullmatch(prompt.item_id)), None):
        raise DataError(
            f"{source}: item_id {bad!r} cannot name a picture; use up to 200 letters, digits, underscores and dashes"
        )


def tag_of(prompt: DpgPrompt) -> str:
    """By what a limit is stratified: the data set that a prompt is from, with which its item_id begins."""
    found = re.match(r"[^\W\d_]*", prompt.item_id)
    return found[0] if found else ""


def lost_in_official(rows: Sequence[QuestionRow]) -> set[int]:
    """Places of prompts that a limit takes last: the first, where mode official drops its only question."""
    return {0} if sum(row.item_id == rows[0].item_id for row in rows) == 1 else set()


class DpgLayout:
    """`Layout` of DPG-Bench, for 1 or 4 images per prompt."""

    def __init__(self, prompts: Path, root: Path, images_per_prompt: int, limit: int | None = None):
        if images_per_prompt not in COUNTS:
            raise DataError(f"{root}: DPG-Bench takes 1 or 4 images per prompt, not {images_per_prompt}")
        self._root, self._count = root, images_per_prompt
        self._rows = read_rows(prompts)
        found = prompts_of(self._rows)
        check_ids(found, prompts)
        self.ids = [prompt.item_id for prompt in found]
        self.texts = [prompt.text for prompt in found]
        self.chosen = first_places(found, tag_of, limit, last=lost_in_official(self._rows))

    def image_path(self, p: int, i: int) -> Path:
        return self._root / CELLS / self.ids[p] / f"{i:05}.png"

    def grid_path(self, p: int) -> Path:
        return self._root / GRIDS / f"{self.ids[p]}.png"

    def remove_stale(self) -> None:
        known = {item_id: p for p, item_id in enumerate(self.ids)}
        for path in self._root.glob(f"{CELLS}/*"):
            if path.is_dir():
                self._remove_stale_cells(path, known.get(path.name))
                continue
            with contextlib.suppress(FileNotFoundError):  # another shard just finished this picture
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()
        for picture in self._root.glob(f"{GRIDS}/*"):
            p = known.get(picture.stem)
            if p is None or not all(path.is_file() for path in self._cells(p)):
                picture.unlink(missing_ok=True)

    def _remove_stale_cells(self, folder: Path, p: int | None) -> None:
        if p is None:
            shutil.rmtree(folder, ignore_errors=True)
            return
        images = [path for path in folder.glob("[0-9]*.png") if path.stem.isdecimal()]
        if extra := [path for path in images if int(path.stem) >= self._count]:
            self.grid_path(p).unlink(missing_ok=True)  # a grid of four, where now the picture is one image
            for path in extra:
                path.unlink(missing_ok=True)

    def _cells(self, p: int) -> list[Path]:
        return [self.image_path(p, i) for i in range(self._count)]

    def describe(self, prompts: Sequence[int]) -> None:
        write_jsonl(self._root / QUESTIONS, [row.cells for row in self._rows])
        for p in prompts:
            # The last shard to finish an image of a prompt sees all of them, however many run at once.
            while (state := self._state(p)) is not None:
                self._compose(p)
                # Another shard may have replaced an older image meanwhile, and this may have overwritten its picture.
                if self._state(p) == state:
                    break

    def _state(self, p: int) -> list[tuple[int, int, int]] | None:
        """Facts by which a change of a prompt's images is noticed; None while one is missing."""
        try:
            return [(s.st_ino, s.st_mtime_ns, s.st_size) for s in (path.stat() for path in self._cells(p))]
        except FileNotFoundError:
            return None

    def _compose(self, p: int) -> None:
        try:
            picture = compose([load_image(path, fix=REGENERATE) for path in self._cells(p)])
        except DataError as error:
            raise DataError(f"{self._root}: prompt {self.ids[p]}: {error}") from None
        # Finished elsewhere and moved: no unfinished file is ever in the folder whose files are all taken for pictures.
        ready = self._root / CELLS / f"{self.ids[p]}.{uuid.uuid4().hex[:8]}.png"
        with atomic_path(ready) as temporary:
            picture.save(temporary, format="PNG")
        self.grid_path(p).parent.mkdir(parents=True, exist_ok=True)
        os.replace(ready, self.grid_path(p))


def compose_pictures(root: Path) -> None:
    """Make the pictures of a folder whose single images are there as files; nothing for a folder of another benchmark.

    Raises:
        DataError: the questions are faulty, or the images of a prompt are no cells of one picture.
    """
    if (root / QUESTIONS).is_file() and (root / CELLS).is_dir():
        prompts = prompts_of(read_rows(root / QUESTIONS))
        count = _images_per_prompt(root, prompts, ImageStore(root).names())
        DpgLayout(root / QUESTIONS, root, count).describe(range(len(prompts)))


def _grids_folder(root: Path) -> Path:
    return root / GRIDS if (root / GRIDS).is_dir() else root


def _images_per_prompt(root: Path, prompts: Sequence[DpgPrompt], images: set[str]) -> int:
    known = {prompt.item_id for prompt in prompts}
    holders = (name.split("/")[1] for name in images if re.fullmatch(rf"{CELLS}/[^/]+/[0-9][^/]*\.png", name))
    counts = Counter(holder for holder in holders if holder in known).values()
    if max(counts, default=0) not in COUNTS:
        raise DataError(
            f"{root}: how many images of a prompt are in a picture? The folder's single images ({CELLS}/) do not tell; "
            "give the number of images per prompt, 1 or 4"
        )
    return max(counts)


def read_questions(root: Path, questions: Path | None) -> list[QuestionRow]:
    """The questions of a file, or where that is None those that came with the images.

    Raises:
        DataError: they are missing or faulty.
    """
    if questions is None and not (root / QUESTIONS).is_file():
        raise DataError(f"{root / QUESTIONS}: no such file, so there are no questions to ask; give the question file")
    return read_rows(questions or root / QUESTIONS)


def list_images(
    root: str | Path,
    rows: Sequence[QuestionRow],
    images_per_prompt: int | None = None,
    only: Sequence[DpgPrompt] | None = None,
) -> list[DpgImage]:
    """All images of a folder, by prompt in the order of the questions, then cell; `only`: of some of the prompts.

    Officially, prompts without a picture silently leave the mean and other files are skipped. Here the folder must hold
    exactly the prompts' pictures; with `only` those of others may be there or not.

    Raises:
        DataError: the folder or pictures are missing (named), other files lie among them, the images were generated
            from other prompts, or `images_per_prompt` is neither given nor to be seen.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such image folder; generate the images first")
    prompts = prompts_of(rows)
    check_ids(prompts, root)
    if (root / QUESTIONS).is_file():
        asked_about = set(prompts)
        generated = prompts_of(read_rows(root / QUESTIONS))
        if other := next((prompt for prompt in generated if prompt not in asked_about), None):
            raise DataError(
                f"{root / QUESTIONS}: the images are of other prompts, e.g. {other.item_id} ({other.text!r}); "
                "generate the images again"
            )
    wanted = prompts if only is None else only
    store = ImageStore(root)
    if any(name.startswith(f"{CELLS}/") for archive in store.archives for name in archive.names):
        return _list_cells(store, prompts, images_per_prompt, wanted)
    folder, known = _grids_folder(root), {f"{prompt.item_id}.png" for prompt in prompts}
    found = {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}
    refuse_missing(folder, [name for name in (f"{p.item_id}.png" for p in wanted) if name not in found], len(wanted))
    if extra := sorted(name for name in found - known if folder != root or name.endswith(".png")):
        raise DataError(f"{folder / extra[0]}: not a picture of any of the {len(prompts)} prompts; remove it")
    count = images_per_prompt or _images_per_prompt(root, wanted, store.names())
    if count not in COUNTS:
        raise DataError(f"{root}: DPG-Bench takes 1 or 4 images per prompt, not {count}")
    refuse_mixed_sizes(root, (folder / f"{prompt.item_id}.png" for prompt in wanted))
    return [DpgImage(p, i, count, folder / f"{p.item_id}.png") for p in wanted for i in range(count)]


def _list_cells(
    store: ImageStore, prompts: Sequence[DpgPrompt], images_per_prompt: int | None, wanted: Sequence[DpgPrompt]
) -> list[DpgImage]:
    """`list_images` where single images are in archives, and pictures of several were never made."""
    root, names = store.root, store.names()
    count = images_per_prompt or _images_per_prompt(root, wanted, names)
    if count not in COUNTS:
        raise DataError(f"{root}: DPG-Bench takes 1 or 4 images per prompt, not {count}")
    known = {prompt.item_id for prompt in prompts}
    cells = sorted(name for name in names if name.startswith(f"{CELLS}/") and name.count("/") == 2)
    if extra := [name for name in cells if name.split("/")[1] not in known]:
        raise DataError(
            f"{store.find(extra[0])}: not an image of any of the {len(prompts)} prompts; generate them again"
        )
    entries = [
        DpgImage(
            prompt, i, count, root / GRIDS / f"{prompt.item_id}.png",
            store.find(f"{CELLS}/{prompt.item_id}/{i:05}.png"),
        )
        for prompt in wanted
        for i in range(count)
    ]  # fmt: skip
    images = [entry.cell for entry in entries if entry.cell is not None]
    refuse_missing(root, missing_images(root, images), len(images))
    refuse_mixed_sizes(root, images)
    return entries
