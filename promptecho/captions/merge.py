"""Merge caption shards, or prompts from a file, into the training captions and the held-out ones."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from promptecho.captions.checks import CHUNK, faults
from promptecho.captions.cut import Cutter
from promptecho.captions.inputs import image_list
from promptecho.captions.kept import KeptCaptions
from promptecho.captions.packed import pack
from promptecho.captions.prompts import read_prompts
from promptecho.captions.readers import PromptReader
from promptecho.captions.shard_state import ANSWERED_BY, AS_SERVED, as_asked
from promptecho.captions.sources import MARK, check_images, check_sources, keep, read_sources
from promptecho.captions.split import split
from promptecho.captions.store import (
    COLUMNS,
    TEXT_COLUMNS,
    CaptionHead,
    CaptionSource,
    image_hashes,
    read_columns,
    rejection,
    write_columns,
)
from promptecho.config.families import Family
from promptecho.errors import DataError, counted, listed
from promptecho.files import write_jsonl
from promptecho.progress import Progress
from promptecho.source_images import KEY, SourceImage


@dataclass(frozen=True)
class MergeSpec:
    """How captions are cut and split, and where the two files go. `tokenizer` None: tokens are not counted. `readers`
    are the models that will read the captions (captions/checks.py); `family`: of the text-to-image model, where it is
    known."""

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
    family: Family | None = None
    keeps_images: bool = True  # False: only look whether all could be written


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
    kept = KeptCaptions(spec.out.parent)
    source = _survey(sorted(shards, key=str), wanted, kept)
    if source is None:
        raise DataError(f"{', '.join(map(str, shards)) or 'no shards'}: no captions to merge; caption images first")
    return _write(source, kept, spec)


def _survey(
    shards: Sequence[str | Path], wanted: dict[str, str | None] | None, kept: KeptCaptions
) -> CaptionSource | None:
    """Look at all shards and keep their rows, before anything is made of them; what made them (None: no rows).

    Raises:
        DataError: some cannot be read, or were made otherwise than the first; names all of them. Or an image is in two,
            shards are missing, a caption is empty, or the images are not those of `wanted`.
    """
    others: list[str] = []  # captioned from another file than the wanted one
    heads: dict[str | Path, CaptionHead] = {}
    problems, empty, found = [], [], 0
    for path in shards:
        try:
            head, n_tokens, texts = read_columns(path)
        except DataError as error:
            problems.append(str(error))
            continue
        problems += _unlike(path, head, heads)
        if head.merge:
            continue
        heads[path] = head
        kept.add(n_tokens, texts)
        for place in texts["caption"].blank():
            if rejection(texts["finish_reason"].text(place)) is None:
                empty.append(texts["image_id"].text(place))
        if wanted:
            names, hashes = texts["image_id"].texts(), texts["image_sha256"].texts()
            found += sum(name in wanted for name in names)
            others += [
                name for name, sha256 in zip(names, hashes, strict=True)
                if sha256 and wanted.get(name) not in (None, sha256)
            ]  # fmt: skip
    if problems:
        raise DataError(listed(problems, "faulty shards"))
    if len(kept) and kept.ranks.max() + 1 < len(kept):
        _refuse_twice(path for path in shards if path in heads)
    seen = dict(head.shard for head in heads.values() if head.shard is not None)
    missing = sorted(set(range(max(seen.values(), default=0))) - set(seen))
    if missing or len(set(seen.values())) > 1:
        raise DataError(
            f"{Path(shards[0]).parent}: of {max(seen.values())} shards (numbered from 0) these are missing: "
            f"{', '.join(map(str, missing)) or 'none, but they are of different numbers'}; give all of one captioning"
        )
    if len(kept) and wanted is not None and (others or not len(kept) == found == len(wanted)):
        _refuse_gaps(dict.fromkeys(name for path in heads for name, _ in image_hashes(path)), others, wanted)
    if empty:
        lines = [f"{name}: the caption is empty but not marked as rejected; caption its shard again" for name in empty]
        raise DataError(listed(sorted(lines), "empty captions"))
    if not len(kept):
        return None
    sources = [head.source for head in heads.values()]
    return next((source for source in sources if source.generation.get(ANSWERED_BY)), sources[0])


def _refuse_twice(shards: Iterable[str | Path]) -> None:
    """Look for an image that is in two shards.

    Raises:
        DataError: there is one.
    """
    where: dict[str, str | Path] = {}
    for path in shards:
        for name, _ in image_hashes(path):
            if name in where:
                raise DataError(f"{path}: image {name} is in {where[name]} too; give each shard once")
            where[name] = path


def _unlike(path: str | Path, head: CaptionHead, heads: dict[str | Path, CaptionHead]) -> list[str]:
    """Why a shard is none, or was not made as the first one of `heads`: by one model with one question and one way of
    sampling. A shard of which the server answered nothing does not say which model it has."""
    if head.merge:
        return [f"{path}: is a merged file, not a shard; give shards only"]
    problems = []
    for first, other in list(heads.items())[:1]:
        for item in fields(CaptionSource):
            mine, others = (getattr(as_asked(one.source), item.name) for one in (head, other))
            # A model folder that moved is the same model: its revision is a hash of its files.
            moved = item.name == "vlm" and other.source.vlm_revision.startswith("files-")
            if mine != others and not moved:
                problems.append(f"{path}: {item.name} is {mine!r}, but {others!r} in {first}; caption both alike")
    model = head.source.generation.get(ANSWERED_BY)
    if model and head.source.vlm_revision == AS_SERVED:  # other weights are known by their revision
        for first, other in heads.items():
            if (others := other.source.generation.get(ANSWERED_BY)) and not other.merge:
                if others != model:
                    told = f"{ANSWERED_BY} is {model!r}, but {others!r} in {first}"
                    problems.append(f"{path}: {told}; caption both alike")
                break
    return problems


def _refuse_gaps(found: Collection[str], others: list[str], wanted: dict[str, str | None]) -> None:
    groups = {
        "listed and in no shard": [name for name in wanted if name not in found],
        "in a shard and not listed": [name for name in found if name not in wanted],
        "captioned from another file than the listed one": others,
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
    """Make the same two files from prompts that a user brings; in place of the image's hash stands the text's, or that
    of the source image where prompts have one, of which a copy is kept beside each file (captions/sources.py).

    Returns and raises as `merge_shards`, and names all faulty prompts: none is left out.
    """
    import numpy as np

    rows, kept, sources = read_prompts(path), KeptCaptions(spec.out.parent), read_sources(path, spec.family)
    check_sources(spec.family, [row.image_id for row in rows], sources, path)
    check_images(sources, path)
    if sources:
        rows = [row._replace(image_sha256=sources[row.image_id].sha256) for row in rows]
    for start in range(0, len(rows), CHUNK):
        values = dict(zip(COLUMNS, zip(*rows[start : start + CHUNK], strict=True), strict=True))
        kept.add(np.array(values["n_tokens"], np.int32), {name: pack(values[name]) for name in TEXT_COLUMNS})
    return _write(CaptionSource("none", "none", "", {}), kept, spec, str(path), sources)


def _write(
    source: CaptionSource, kept: KeptCaptions, spec: MergeSpec, prompts: str | None = None,
    sources: Mapping[str, SourceImage] = MappingProxyType({}),
) -> dict[str, Any]:  # fmt: skip
    """Write both files. Rows of a model's captions come in any order and are put into that of their ids; those of
    `prompts`, a user's file, stay as they are. With `sources` a prompt is told from others by its image, not by its
    text: one instruction may be for many images, on both sides of the split."""
    import numpy as np

    total, ranks = len(kept), kept.ranks
    reasons, cut_by = Counter[str](), Counter[str]()
    left_out = np.zeros(total, bool)
    for reason, found in kept.by_reason():
        if (why := rejection(reason)) is not None:
            left_out[found] = True
            reasons[why] += len(found)
    faulty: list[tuple[str, str]] = []  # id, why
    tokenizer = (spec.tokenizer, spec.tokenizer_revision, spec.tokenizer_part)
    cutter = Cutter(spec.max_words, spec.max_tokens, *tokenizer, readers=spec.readers)
    bar = Progress("merge: cut and check captions", total, "captions") if total > CHUNK else None
    for rows, whole in kept.groups():
        places = np.flatnonzero(~(left_out[rows] | cutter.untouched(whole))).tolist()
        cuts = [cutter.cut(whole.text(index)) for index in places]
        unusable = faults(spec.readers, [text for text, _ in cuts], quiet=True)
        unusable |= {index: "nothing is left of it after cutting" for index, (text, _) in enumerate(cuts) if not text}
        faulty += [(kept.name(rows.start + places[index]), problem) for index, problem in sorted(unusable.items())]
        left_out[[rows.start + places[index] for index in unusable]] = True
        good = {index: cut for index, cut in enumerate(cuts) if index not in unusable}
        cut_by.update(by for _, by in good.values() if by is not None)
        kept.cut(rows, whole, {places[index]: text for index, (text, _) in good.items()})
        if bar is not None:
            bar.advance(len(whole))
    if prompts is None:
        faulty.sort()
    told = [f"  {name}: {problem}" for name, problem in faulty]
    if faulty and prompts is not None:
        raise DataError(f"{prompts}: {len(faulty)} of {total} prompts cannot be used:\n{listed(told, 'prompts')}")
    if faulty:
        reasons["unusable"] = len(faulty)
        print(f"merge: rejected as unusable:\n{listed(told, 'captions')}", file=sys.stderr)
    out = np.flatnonzero(left_out)
    _check_share(total, reasons, [kept.name(row) for row in out[np.argsort(ranks[out])][:4].tolist()], spec)
    stay = np.flatnonzero(~left_out)
    texts, (images, hashes) = kept.numbers()[stay], kept.hashes.numbered(stay)
    texts = images if sources else texts
    chosen = split(texts, images, hashes, ranks[stay], spec.heldout, spec.seed)
    repeated = 0 if sources else len(chosen[0]) - np.count_nonzero(np.bincount(texts[chosen[0]]))
    training, held = (stay[part] for part in chosen)
    if prompts is None:
        training, held = (part[np.argsort(ranks[part])] for part in (training, held))
    counts = {
        "training": len(training),
        "heldout": len(held),
        "rejected": dict(sorted(reasons.items())),
        "cut": cut_by.total(),
        "kept_apart": len(stay) - len(training) - len(held),
    }
    more = {"cut_by": dict(sorted(cut_by.items())), "repeated": int(repeated)}
    _tell(counts, more, total)
    heldout = [{"data_id": name, "caption": text} for name, text in kept.captions(held)]
    if sources and spec.keeps_images:
        heldout = [row | {KEY: keep(sources[row["data_id"]], spec.heldout_out.parent)} for row in heldout]
        for row in training.tolist():
            keep(sources[kept.name(row)], spec.out.parent)
    write_jsonl(spec.heldout_out, heldout)
    limits = {"max_words": spec.max_words, "max_tokens": spec.max_tokens if spec.tokenizer else None}
    n_tokens, columns = kept.columns(training)
    marks = {MARK: True} if sources else {}
    write_columns(spec.out, source, n_tokens, columns, merge={**limits, "seed": spec.seed, **counts, **marks})
    return counts | more


def _check_share(total: int, reasons: Counter[str], names: list[str], spec: MergeSpec) -> None:
    if reasons.total() / total > spec.max_rejected_share:
        raise DataError(
            f"{reasons.total()} of {total} captions are rejected "
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
