"""Captions with images as people keep them, and the images of experiments with their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from promptecho.audit.edits import KINDS, RULES, CaptionEdit
from promptecho.audit.material import Ask, AuditImage, Captioned, FactPair, JudgedImage, Pairs, captioned_file
from promptecho.captions.folders import IMAGE_SUFFIXES
from promptecho.errors import DataError, listed
from promptecho.figures.samples import read_column
from promptecho.scores import read_scores
from promptecho.seeds import derive_seed
from promptecho.text_files import TABLES, differing, read_rows, read_text, suffix_of, value_of

IMAGE_KEYS = ("image", "file_name", "filename", "path", "data_id", "image_id")
TEXT_KEYS = ("caption", "prompt", "text", "label")
LISTINGS = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv")


def read_captioned(source: Path, images: Path | None = None) -> list[Captioned]:
    """Images with captions: a .jsonl or .csv with an image and a caption in each row, or a folder of images that holds
    such a file (`metadata.jsonl`, ...) or a text file of the same name beside each image. Sorted by name.

    Args:
        images: folder that the rows' image names count from; None: that of the file.

    Raises:
        DataError: something is missing, empty or there twice; names all of it.
    """
    if source.is_dir():
        listing = next((source / name for name in LISTINGS if (source / name).is_file()), None)
        found = _beside(source) if listing is None else _rows(listing, source)
    elif suffix_of(source) in TABLES and source.is_file():
        found = _rows(source, images or source.parent)
    elif not source.exists():
        raise DataError(
            f"{source}: no such file or folder; give shapes, gallery, posters, a .jsonl or .csv, or a folder of images"
        )
    else:
        raise DataError(f"{source}: give captions as a .jsonl or .csv of image and caption, or a folder of images")
    return sorted(found, key=lambda one: one.id)


def _rows(source: Path, images: Path) -> list[Captioned]:
    found: dict[str, Captioned] = {}
    problems = []
    for number, row in read_rows(source):
        image, text = value_of(row, IMAGE_KEYS), value_of(row, TEXT_KEYS)
        if not image or not text or not isinstance(text[1], str) or not text[1].strip() or not image[1]:
            problems.append(f"{source}:{number}: needs an image ({', '.join(IMAGE_KEYS[:4])}) and a caption")
            continue
        name = str(image[1])
        if problem := differing(row, TEXT_KEYS):
            problems.append(f"{source}:{number}: {problem}")
        elif name in found:
            problems.append(f"{source}:{number}: {name} has a caption already; keep one of them")
        elif not (images / name).is_file():
            problems.append(f"{source}:{number}: {images / name}: no such image file; give --caption-images FOLDER")
        else:
            found[name] = captioned_file(images / name, name, text[1].strip())
    if problems:
        raise DataError(listed(problems, "faulty rows"))
    if not found:
        raise DataError(f"{source}: holds no captions; each row is an image and its caption")
    return list(found.values())


def _beside(folder: Path) -> list[Captioned]:
    found, problems = [], []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        text = path.with_suffix(".txt")
        caption = " ".join(read_text(text).split()) if text.is_file() else ""
        if not caption:
            why = "is empty" if text.is_file() else "is missing"
            problems.append(f"{path}: its caption {text.name} {why}")
            continue
        found.append(captioned_file(path, path.name, caption))
    if problems:
        raise DataError(listed(problems, "images without a caption"))
    if not found:
        raise DataError(f"{folder}: holds no images with captions; put NAME.txt beside NAME.png, or a metadata.jsonl")
    return found


def chosen(captioned: Sequence[Captioned], n: int, seed: int) -> list[Captioned]:
    """At most `n` of them, drawn by the seed, in their order."""
    if len(captioned) <= n:
        return list(captioned)
    rng = np.random.default_rng(derive_seed(seed, "audit captions"))
    return [captioned[i] for i in sorted(rng.choice(len(captioned), n, replace=False).tolist())]


def rule_pairs(captioned: Sequence[Captioned], source: str, seed: int) -> Pairs:
    """Pairs by the rules for edits: each caption against itself with one fact changed."""
    made = Pairs(source=source, n_captions=len(captioned))
    for one in captioned:
        for kind in KINDS:
            rng = np.random.default_rng(derive_seed(seed, "audit edit", kind, one.id))
            add_edit(made, one, kind, RULES[kind](one.caption, rng))
    return made


def add_edit(made: Pairs, one: Captioned, kind: str, edit: CaptionEdit | str) -> None:
    """Count an edit, or why there is none."""
    if isinstance(edit, str):
        made.count(kind, edit)
        return
    made.count(kind, "made")
    true, false = Ask(one.id, one.image, one.caption), Ask(one.id, one.image, edit.text)
    made.pairs.append(FactPair(kind, "text", true, false))


def read_verdicts(folders: Sequence[Path], scores: Sequence[Path]) -> list[JudgedImage]:
    """Images of results/E/images/R/N/SET, each with the verdict of results/E/scores/BENCH/R/N.json.

    Raises:
        DataError: not a score file for each folder, scores of other images, or of comparisons.
    """
    if len(folders) != len(scores):
        raise DataError(
            f"{len(folders)} image folders but {len(scores)} score files; give one --scores for each --images"
        )
    found = []
    for folder, file in zip(folders, scores, strict=True):
        column = read_column(folder, file)
        if column.difference:
            raise DataError(
                f"{file}: its verdicts compare two checkpoints; give scores of a benchmark that judges images"
            )
        if not column.verdicts.keys() & column.images.keys():
            raise DataError(f"{file}: scores none of the images of {folder}; give the scores of this image set")
        benchmark = read_scores(file).provenance.benchmark
        for (prompt_id, index), listed_image in sorted(column.images.items()):
            outcome = column.verdicts.get((prompt_id, index))
            if outcome is None:
                continue
            image = AuditImage(f"{column.label}/{prompt_id}/{index}", listed_image.path)
            ask = Ask(f"{benchmark}/{prompt_id}", image, listed_image.prompt)
            found.append(JudgedImage(benchmark, column.label, ask, index, float(outcome)))
    return found
