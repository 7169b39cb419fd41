"""Merge caption shards, or prompts from a file, into the training captions and the held-out ones."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from promptecho.captions.checks import CHUNK, faults
from promptecho.captions.cut import Cutter
from promptecho.captions.inputs import image_list
from promptecho.captions.prompts import read_prompts
from promptecho.captions.readers import PromptReader
from promptecho.captions.split import split_captions
from promptecho.captions.store import CaptionFile, CaptionRow, CaptionSource, read_captions, write_captions
from promptecho.errors import DataError, counted, listed
from promptecho.files import write_jsonl
from promptecho.progress import Progress


@dataclass(frozen=True)
class MergeSpec:
    """How captions are cut and split, and where the two files go. `tokenizer` None: tokens are not counted. `readers`
    are the models that will read the captions (captions/checks.py)."""

    out: Path
    heldout_out: Path
    heldout: int
    max_words: int = 200
    max_tokens: int | None = 512
    tokenizer: str | None = None
    max_rejected_share: float = 0.05
    seed: int = 0
    tokenizer_revision: str | None = None
    tokenizer_part: str = "tokenizer"
    readers: Sequence[PromptReader] = ()


def wanted_images(images: str | None, images_list: Path | None) -> dict[str, str | None] | None:
    """Image id -> hash, if it is known, of the list that the shards were made from; None where there is no list (of
    `images`)."""
    if images_list is None or not images_list.is_file():
        return None
    listed = image_list(images_list)
    if images is not None and listed.source != images:
        return None
    return {item.image_id: item.sha256 for item in listed.items}


def merge_shards(
    shards: Sequence[str | Path], spec: MergeSpec, wanted: dict[str, str | None] | None = None
) -> dict[str, Any]:
    """Merge shards in the order of image ids; rejected rows are dropped and counted by reason.

    Args:
        wanted: the images that must be there, each with its hash where it is known.

    Returns:
        {"training", "heldout", "rejected": {reason: count}, "cut", "kept_apart", "cut_by": {limit: count}, "repeated"};
        `kept_apart` counts rows in neither file, because they share an image or a text with a held-out one, `repeated`
        training captions with the text of an earlier one. A caption that a model could not read is rejected, with the
        reason `unusable`.

    Raises:
        DataError: a damaged or missing shard, shards of different sources, an image in two, too many rejected.
    """
    files = _read_alike(sorted(shards, key=str))
    source = next((file.source for file in files.values()), None)
    rows: dict[str, CaptionRow] = {}
    where: dict[str, str | Path] = {}
    seen: dict[int, int] = {}
    for path, file in files.items():
        if file.shard is not None:
            seen[file.shard[0]] = file.shard[1]
        for row in file.rows:
            if row.image_id in rows:
                raise DataError(f"{path}: image {row.image_id} is in {where[row.image_id]} too; give each shard once")
            rows[row.image_id], where[row.image_id] = row, path
    missing = sorted(set(range(max(seen.values(), default=0))) - set(seen))
    if missing or len(set(seen.values())) > 1:
        raise DataError(
            f"{Path(shards[0]).parent}: of {max(seen.values())} shards (numbered from 0) these are missing: "
            f"{', '.join(map(str, missing)) or 'none, but they are of different numbers'}; give all of one captioning"
        )
    if source is None or not rows:
        raise DataError(f"{', '.join(map(str, shards)) or 'no shards'}: no captions to merge; caption images first")
    if wanted is not None:
        _refuse_gaps(rows, wanted)
    return _write(source, [rows[image_id] for image_id in sorted(rows)], spec)


def _read_alike(shards: Sequence[str | Path]) -> dict[str | Path, CaptionFile]:
    """The shards' contents, all made by one model with one question and one way of sampling.

    Raises:
        DataError: some cannot be read, or were made otherwise than the first; names all of them.
    """
    files: dict[str | Path, CaptionFile] = {}
    problems = []
    for path in shards:
        try:
            file = read_captions(path)
        except DataError as error:
            problems.append(str(error))
            continue
        if file.merge:
            problems.append(f"{path}: is a merged file, not a shard; give shards only")
            continue
        first, source = next(((path, file.source) for path, file in files.items()), (path, file.source))
        files[path] = file
        for item in fields(CaptionSource):
            mine, others = getattr(file.source, item.name), getattr(source, item.name)
            # A model folder that moved is the same model: its revision is a hash of its files.
            moved = item.name == "vlm" and source.vlm_revision.startswith("files-")
            if mine != others and not moved:
                problems.append(f"{path}: {item.name} is {mine!r}, but {others!r} in {first}; caption both alike")
    if problems:
        raise DataError(listed(problems, "faulty shards"))
    return files


def _refuse_gaps(rows: dict[str, CaptionRow], wanted: dict[str, str | None]) -> None:
    groups = {
        "listed and in no shard": [name for name in wanted if name not in rows],
        "in a shard and not listed": [name for name in rows if name not in wanted],
        "captioned from another file than the listed one": [
            name for name, row in rows.items() if row.image_sha256 and wanted.get(name) not in (None, row.image_sha256)
        ],
    }
    problems = [
        f"{counted(len(names), 'image is', 'images are')} {what} "
        f"({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in groups.items() if names
    ]  # fmt: skip
    if problems:
        raise DataError(
            f"the shards are not of the listed images: {'; '.join(problems)}; run the workflow again, or "
            "caption these shards again"
        )


def import_prompts(path: str | Path, spec: MergeSpec) -> dict[str, Any]:
    """Make the same two files from prompts that a user brings; in place of the image's hash stands the text's.

    Returns and raises as `merge_shards`, and names all faulty prompts: none is left out.
    """
    return _write(CaptionSource("none", "none", "", {}), read_prompts(path), spec, prompts=str(path))


def _write(
    source: CaptionSource, rows: list[CaptionRow], spec: MergeSpec, prompts: str | None = None
) -> dict[str, Any]:
    if empty := [row.image_id for row in rows if row.rejected is None and not row.caption.strip()]:
        lines = [f"{name}: the caption is empty but not marked as rejected; caption its shard again" for name in empty]
        raise DataError(listed(lines, "empty captions"))
    place = (spec.tokenizer, spec.tokenizer_revision, spec.tokenizer_part)
    cutter = Cutter(spec.max_words, spec.max_tokens, *place, readers=spec.readers)
    whole = [row for row in rows if row.rejected is None]
    bar = Progress("merge: cut captions", len(whole), "captions") if len(whole) > CHUNK else None
    cuts = []
    for row in whole:
        cuts.append(cutter.cut(row.caption))
        if bar is not None:
            bar.advance()
    faulty = faults(spec.readers, [text for text, _ in cuts])
    faulty |= {index: "nothing is left of it after cutting" for index, (text, _) in enumerate(cuts) if not text}
    told = [f"  {whole[index].image_id}: {problem}" for index, problem in sorted(faulty.items())]
    if faulty and prompts is not None:
        raise DataError(f"{prompts}: {len(faulty)} of {len(rows)} prompts cannot be used:\n{listed(told, 'prompts')}")
    reasons = Counter(row.rejected for row in rows if row.rejected is not None)
    if faulty:
        reasons["unusable"] = len(faulty)
        print(f"merge: rejected as unusable:\n{listed(told, 'captions')}", file=sys.stderr)
    _check_share(rows, reasons, {whole[index].image_id for index in faulty}, spec)
    kept = [
        (row._replace(caption=text), by)
        for index, (row, (text, by)) in enumerate(zip(whole, cuts, strict=True))
        if index not in faulty
    ]
    cut_by = Counter(by for _, by in kept if by is not None)
    training, heldout = split_captions([row for row, _ in kept], spec.heldout, spec.seed)
    counts = {
        "training": len(training),
        "heldout": len(heldout),
        "rejected": dict(sorted(reasons.items())),
        "cut": cut_by.total(),
        "kept_apart": len(kept) - len(training) - len(heldout),
    }
    more = {"cut_by": dict(sorted(cut_by.items())), "repeated": len(training) - len({row.caption for row in training})}
    _tell(counts, more, len(rows))
    write_jsonl(spec.heldout_out, [{"data_id": row.image_id, "caption": row.caption} for row in heldout])
    limits = {"max_words": spec.max_words, "max_tokens": spec.max_tokens if spec.tokenizer else None}
    write_captions(spec.out, source, training, merge={**limits, "seed": spec.seed, **counts})
    return counts | more


def _check_share(rows: list[CaptionRow], reasons: Counter, faulty: set[str], spec: MergeSpec) -> None:
    if reasons.total() / len(rows) > spec.max_rejected_share:
        names = [row.image_id for row in rows if row.rejected is not None or row.image_id in faulty]
        raise DataError(
            f"{reasons.total()} of {len(rows)} captions are rejected "
            f"({', '.join(f'{reason}: {count}' for reason, count in sorted(reasons.items()))}; "
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}), more than max_rejected_share "
            f"{spec.max_rejected_share}; mend the images or raise it"
        )


def _tell(counts: dict[str, Any], more: dict[str, Any], total: int) -> None:
    if counts["rejected"]:
        rejected = counted(sum(counts["rejected"].values()), "rejected caption")
        print(f"merge: dropped {rejected} of {total}", file=sys.stderr)
    if counts["cut"]:
        limits = ", ".join(f"{count} at {limit}" for limit, count in more["cut_by"].items())
        print(f"merge: cut {counts['cut']} of {total} captions: {limits}", file=sys.stderr)
    if more["repeated"]:
        print(
            f"merge: {more['repeated']} of {counts['training']} training captions repeat an earlier one's text; they "
            "stay, so that text is trained on more often",
            file=sys.stderr,
        )
