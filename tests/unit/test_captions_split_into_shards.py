"""A merge is a function of the captions: however they lie in shards, both files have the same bytes."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptecho.captions.cut import Cutter
from promptecho.captions.kept import KeptCaptions, PackedTexts
from promptecho.captions.merge import MergeSpec, merge_shards
from promptecho.captions.packed import pack
from promptecho.captions.store import CaptionRow, CaptionSource, read_captions, write_captions
from promptecho.errors import DataError

SOURCE = CaptionSource("models/vlm", "files-0123", "Describe.", {"temperature": 0.0})
TEXTS = ["a red circle", "ein grüner Kreis", "赤い丸", "two  squares\tand a dot", "a red circle", "x y z w"]
text = st.text(st.sampled_from("ab é\u3000\t\n\x1c\x85\u2009"), max_size=20)


def rows_of(count: int) -> list[CaptionRow]:
    return [
        CaptionRow(
            f"{'é' if index % 5 == 0 else 'i'}{index * 7 % count}", TEXTS[index % len(TEXTS)] + f" {index // 8}",
            index, "rejected:nsfw" if index % 11 == 3 else ("stop", "length")[index % 2],
            hashlib.sha256(b"%d" % (index // 2)).hexdigest(),
        )
        for index in range(count)
    ]  # fmt: skip


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=40, max_size=40))
def test_any_split_into_shards_gives_the_same_bytes(places):
    made = []
    for dealt in ([0] * 40, places):
        with tempfile.TemporaryDirectory() as name:
            folder, numbers = Path(name), sorted(set(dealt))
            for number in numbers:
                rows = [row for row, place in zip(rows_of(40), dealt, strict=True) if place == number]
                write_captions(folder / f"{number}.h5", SOURCE, rows)
            spec = MergeSpec(folder / "c.h5", folder / "h.jsonl", 5, max_words=4, max_rejected_share=0.5)
            told = merge_shards([folder / f"{number}.h5" for number in numbers], spec)
            made.append((told, spec.out.read_bytes(), spec.heldout_out.read_bytes()))
            merged = read_captions(spec.out).rows
    assert made[0] == made[1]
    assert [row.image_id for row in merged] == sorted(row.image_id for row in merged)
    known = {row.image_id: row for row in rows_of(40)}
    for row in merged:
        before = known[row.image_id]
        assert row == before._replace(caption=Cutter(4)(before.caption)) and before.rejected is None


@settings(max_examples=200, deadline=None)
@given(text, st.integers(1, 5))
def test_words_are_counted_as_split_counts_them(whole, most):
    """The quick look at a text's length in words must never let one through that is too long."""
    assert Cutter(most)(whole).split() == whole.split()[:most]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=9), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_packed_texts_come_out_in_any_order(texts, rng):
    packed = PackedTexts()
    packed.add(pack(texts[:3]))
    packed.add(pack(texts[3:]))
    chosen = np.array(rng.choices(range(len(texts)), k=7), np.int64)
    wanted = [texts[index].encode() for index in chosen.tolist()]
    assert packed.bytes(chosen) == wanted
    column = packed.column(chosen)
    assert b"".join(column.parts()) == b"".join(wanted) and column.offsets[-1] == len(b"".join(wanted))
    if (every := packed.array()) is not None:
        assert every.tolist() == [one.encode() for one in texts]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab\x00é\U0001f600", max_size=5), min_size=1, max_size=9, unique=True))
def test_rows_are_ordered_as_their_ids_are(names):
    with tempfile.TemporaryDirectory() as folder:
        kept = KeptCaptions(Path(folder))
        same = {name: pack([name] * len(names)) for name in ("caption", "finish_reason", "image_sha256")}
        kept.add(np.ones(len(names), np.int32), same | {"image_id": pack(names)})
        assert [names[index] for index in np.argsort(kept.ranks).tolist()] == sorted(names)


def test_an_image_in_two_shards_is_named_with_both(tmp_path):
    for number in range(3):
        rows = [CaptionRow(f"{number}{index}", f"text {number}{index}", 1, "stop", "") for index in range(4)]
        rows += [CaptionRow("01", "again", 1, "stop", "")] if number == 2 else []
        write_captions(tmp_path / f"{number}.h5", SOURCE, rows)
    with pytest.raises(DataError, match=r"2\.h5: image 01 is in .*0\.h5 too; give each shard once"):
        merge_shards(sorted(tmp_path.glob("*.h5")), MergeSpec(tmp_path / "c.h5", tmp_path / "h.jsonl", 1))


def test_one_shard_given_twice_is_refused(tmp_path):
    path = tmp_path / "0.h5"
    write_captions(path, SOURCE, [CaptionRow("a", "text", 1, "stop", "")])
    with pytest.raises(DataError, match=r"0\.h5: image a is in .*0\.h5 too; give each shard once"):
        merge_shards([path, path], MergeSpec(out=tmp_path / "c.h5", heldout_out=tmp_path / "h.jsonl", heldout=0))
