"""HDF5 contract, journal, image lists and prompt files: written whole, read with validation, named when damaged."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap

import h5py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_vlm import image

from promptecho.captions.inputs import list_images, shard_of
from promptecho.captions.journal import Journal
from promptecho.captions.merge import MergeSpec, merge_shards
from promptecho.captions.prompts import read_prompts
from promptecho.captions.store import (
    CaptionRow,
    CaptionSource,
    DamagedCaptions,
    image_hashes,
    load_training_captions,
    read_captions,
    write_captions,
)
from promptecho.errors import DataError

SOURCE = CaptionSource("models/vlm", "files-0123", "Describe this image in detail.", {"temperature": 0.5, "seed": 1})
ROWS = [
    CaptionRow("a.png", "A red circle — 二つ 🟦\nand a star.", 9, "stop", "ab" * 32),
    CaptionRow("b.png", "", 0, "rejected:unreadable_image", ""),
    CaptionRow("c.png", "x" * 3000, 512, "length", "cd" * 32),
]


def test_what_is_written_is_read(tmp_path):
    write_captions(tmp_path / "a.h5", SOURCE, ROWS)
    file = read_captions(tmp_path / "a.h5")
    assert file.source == SOURCE and file.rows == ROWS and file.merge == {}
    assert [row.rejected for row in file.rows] == [None, "unreadable_image", None]


def test_plain_h5py_sees_the_contract(tmp_path):
    write_captions(tmp_path / "a.h5", SOURCE, ROWS)
    with h5py.File(tmp_path / "a.h5") as file:
        assert {"schema_version", "vlm", "vlm_revision", "query", "generation", "promptecho_version"} <= set(file.attrs)
        assert json.loads(file.attrs["generation"]) == SOURCE.generation
        assert set(file) == {"image_id", "caption", "n_tokens", "finish_reason", "image_sha256"}
        assert file["n_tokens"].dtype == "int32" and file["n_tokens"][...].tolist() == [9, 0, 512]
        start, end = file["caption/offsets"][0:2]
        assert file["caption/utf8"][start:end].tobytes().decode() == ROWS[0].caption


def old_file(path, rows=ROWS, **attributes) -> None:
    """A file of schema 1, as earlier versions wrote it."""
    content = hashlib.sha256()
    for row in rows:
        content.update(json.dumps(list(row)).encode() + b"\n")
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        file.attrs.update({"schema_version": 1, "vlm": SOURCE.vlm, "vlm_revision": SOURCE.vlm_revision})
        file.attrs.update({"query": SOURCE.query, "generation": json.dumps(SOURCE.generation)})
        file.attrs.update({"content_sha256": content.hexdigest(), **attributes})
        for name in CaptionRow._fields:
            values = [getattr(row, name) for row in rows]
            file.create_dataset(name, data=values, dtype="int32" if name == "n_tokens" else h5py.string_dtype("utf-8"))


def test_files_of_schema_1_are_read_and_checked(tmp_path):
    path = tmp_path / "a.h5"
    old_file(path, merge='{"seed": 0}', shard=1, num_shards=3)
    file = read_captions(path)
    assert file.source == SOURCE and file.rows == ROWS and (file.merge, file.shard) == ({"seed": 0}, (1, 3))
    assert image_hashes(path) == [(row.image_id, row.image_sha256) for row in ROWS]
    with pytest.raises(DataError, match=r"a\.h5: b\.png has no usable caption"):
        load_training_captions(path)
    old_file(path, content_sha256="0" * 64)
    with pytest.raises(DamagedCaptions, match="does not match its checksum"):
        read_captions(path)
    old_file(path, ROWS[::2])
    assert list(load_training_captions(path)) == [(row.image_id, row.caption) for row in ROWS[::2]]


def test_shards_of_both_schemas_are_merged(tmp_path):
    rows = [CaptionRow(f"{k}.png", f"caption {k} — 色", 3, "stop", f"{k:064x}") for k in range(9)]
    old_file(tmp_path / "0.h5", rows[::2], shard=0, num_shards=2)
    write_captions(tmp_path / "1.h5", SOURCE, rows[1::2], shard=(1, 2))
    spec = MergeSpec(tmp_path / "c.h5", tmp_path / "h.jsonl", heldout=2)
    assert merge_shards([tmp_path / "1.h5", tmp_path / "0.h5"], spec)["training"] == 7
    held = {json.loads(line)["data_id"] for line in (tmp_path / "h.jsonl").read_text().splitlines()}
    assert read_captions(tmp_path / "c.h5").rows == [row for row in rows if row.image_id not in held]
    assert sorted(os.listdir(tmp_path)) == ["0.h5", "1.h5", "c.h5", "h.jsonl"]


def test_files_of_other_writers_are_read(tmp_path):
    """The contract of schema 1 alone: fixed-length strings, no checksum."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update({"schema_version": 1, "vlm": b"v", "vlm_revision": "r", "query": "q", "generation": "{}"})
        for name in ("image_id", "caption", "finish_reason", "image_sha256"):
            file[name] = [b"stop", b"length"]
        file["n_tokens"] = [1, 2]
    file = read_captions(tmp_path / "a.h5")
    assert file.source.vlm == "v" and file.rows[1] == CaptionRow("length", "length", 2, "length", "length")


def test_same_content_same_bytes_also_when_empty(tmp_path):
    for rows in (ROWS, []):
        write_captions(tmp_path / "a.h5", SOURCE, rows)
        write_captions(tmp_path / "b.h5", SOURCE, rows)
        assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
        assert read_captions(tmp_path / "a.h5").rows == rows


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.builds(CaptionRow, TEXT, TEXT, st.integers(-1, 2**31 - 1), TEXT, TEXT), max_size=5))
def test_any_text_survives(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("h5") / "a.h5"
    write_captions(path, SOURCE, rows)
    assert read_captions(path).rows == rows


def test_damage_names_file_and_remedy(tmp_path):
    path = tmp_path / "a.h5"
    write_captions(path, SOURCE, ROWS)
    good = path.read_bytes()
    for damaged in (good[:100], good[: len(good) // 2], b"not HDF5 at all", b"", good[:-2000] + bytes(2000)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.h5: .*(move it away and rerun|not a caption file)") as caught:
            read_captions(path)
        assert "\n" not in str(caught.value)
    readers = {b"A red circle": (read_captions, load_training_captions), b"cdcdcd": (read_captions, image_hashes)}
    for place, reads in {good.index(text): reads for text, reads in readers.items()}.items():
        for changed in (good[place : place + 1].swapcase(), b"\xff"):
            path.write_bytes(good[:place] + changed + good[place + 1 :])
            for read in reads:
                with pytest.raises(DamagedCaptions, match=r"a\.h5: its content does not match its checksum"):
                    read(path)
    with pytest.raises(DataError, match="no such caption file"):
        read_captions(tmp_path / "none.h5")


def test_what_is_no_caption_file_at_all_is_not_called_damaged(tmp_path):
    path = tmp_path / "a.h5"
    for content, says in {
        b"<!doctype html><p>Sign in": "a web page, not captions; its address wants a login",
        b"\x1f\x8b\x08" + bytes(99): "compressed with gzip, so not captions; unpack it",
    }.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.h5: {says}") as caught:
            read_captions(path)
        assert not isinstance(caught.value, DamagedCaptions)  # which may be moved aside and made again
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(DataError, match=r"pipe\.h5: a pipe or device, not a plain file"):
        read_captions(tmp_path / "pipe.h5")


def test_foreign_schema_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["images"] = [1, 2]
    with pytest.raises(DataError, match="not a caption file .image_id, caption"):
        read_captions(path)
    write_captions(path, SOURCE, ROWS)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 3
    for read in (read_captions, image_hashes, load_training_captions):
        with pytest.raises(DataError, match="caption schema 3, this version reads 1 and 2"):
            read(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 2
        del file["n_tokens"]
        file["n_tokens"] = [1]
    for read in (read_captions, load_training_captions):
        with pytest.raises(DataError, match="columns of unequal length"):
            read(path)
    with h5py.File(path, "r+") as file:
        file["caption/offsets"][1] = 10**6
    with pytest.raises(DamagedCaptions, match="the offsets of caption do not fit its texts; if no other"):
        read_captions(path)


def test_what_another_program_has_packed_anew_is_read(tmp_path):
    """Such as `h5repack -f GZIP=1`: the texts have no place of their own in the file any more."""
    write_captions(tmp_path / "a.h5", SOURCE, ROWS[::2])
    with h5py.File(tmp_path / "a.h5") as old, h5py.File(tmp_path / "b.h5", "w") as new:
        new.attrs.update(old.attrs)
        for name, part in old.items():
            for inner, values in part.items() if isinstance(part, h5py.Group) else [("", part)]:
                new.create_dataset(f"{name}/{inner}".rstrip("/"), data=values, compression="gzip")
            new[name].attrs.update(part.attrs)
    assert read_captions(tmp_path / "b.h5").rows == ROWS[::2]
    assert list(load_training_captions(tmp_path / "b.h5")) == list(load_training_captions(tmp_path / "a.h5"))


def test_training_captions_stay_in_their_file(tmp_path):
    rows = [CaptionRow(f"{k:04d}", f"Farbe {k} — 色\n" * (k % 5 + 1), 1, "stop", "") for k in range(9000)]
    path = tmp_path / "a.h5"
    write_captions(path, SOURCE, rows, merge={})
    for check in (True, False):
        captions = load_training_captions(path, check=check)
        assert len(captions) == 9000 and list(captions) == [(row.image_id, row.caption) for row in rows]
        assert captions[-1] == captions[8999] == (rows[-1].image_id, rows[-1].caption)
        assert captions[5:4000:7] == [(row.image_id, row.caption) for row in rows[5:4000:7]] and captions[7:7] == []
        with pytest.raises(IndexError):
            captions[9000]
    write_captions(path, SOURCE, rows[:1])  # by another process, while a training runs
    assert captions[4321] == (rows[4321].image_id, rows[4321].caption)
    captions = load_training_captions(path, check=False)
    os.truncate(path, 3000)
    with pytest.raises(DamagedCaptions, match=r"a\.h5: damaged since it was opened \(it ends too early\)"):
        captions[0]


@pytest.mark.parametrize("text", [" ", "\n\t ", "\u3000" * 40])
def test_captions_of_white_space_are_refused(tmp_path, text):
    write_captions(tmp_path / "a.h5", SOURCE, [ROWS[0], CaptionRow("blank", text, 1, "stop", "")])
    with pytest.raises(DataError, match=r"a\.h5: blank has no usable caption"):
        load_training_captions(tmp_path / "a.h5")


def test_training_captions_are_usable_or_refused(tmp_path):
    write_captions(tmp_path / "good.h5", SOURCE, [ROWS[0]])
    [caption] = load_training_captions(tmp_path / "good.h5")
    assert (caption.prompt_id, caption.text) == ("a.png", ROWS[0].caption)
    write_captions(tmp_path / "shard.h5", SOURCE, ROWS)
    with pytest.raises(DataError, match=r"shard\.h5: b\.png has no usable caption"):
        load_training_captions(tmp_path / "shard.h5")
    write_captions(tmp_path / "empty.h5", SOURCE, [])
    with pytest.raises(DataError, match="holds no captions"):
        load_training_captions(tmp_path / "empty.h5")


def limited(tmp_path, code: str) -> subprocess.CompletedProcess:
    """Run `code` in a process whose files may not grow beyond 4,000 bytes: a real OSError from write."""
    head = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path
    )


def test_full_disk_leaves_the_old_file(tmp_path):
    write_captions(tmp_path / "a.h5", SOURCE, ROWS)
    before = (tmp_path / "a.h5").read_bytes()
    done = limited(
        tmp_path,
        """
        from promptecho.captions.store import *
        try:
            write_captions("a.h5", CaptionSource("v", "r", "q", {}), [CaptionRow("i", "x" * 9000, 1, "stop", "")])
        except DataError as error:
            print(error)
    """,
    )
    assert done.stdout.startswith("a.h5: cannot write (File too large)"), done.stderr
    assert (tmp_path / "a.h5").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.h5"]


def test_full_disk_while_a_merge_keeps_texts_is_told(tmp_path):
    write_captions(
        tmp_path / "0.h5", SOURCE, [CaptionRow(f"{k}", "x " * 50 + f"{k}", 1, "stop", "") for k in range(90)]
    )
    done = limited(
        tmp_path,
        """
        from pathlib import Path
        from promptecho.captions.merge import MergeSpec, merge_shards
        from promptecho.errors import DataError
        try:
            merge_shards(["0.h5"], MergeSpec(Path("out/c.h5"), Path("out/h.jsonl"), 0))
        except DataError as error:
            print(error)
    """,
    )
    assert done.stdout.startswith("out: cannot keep captions in a temporary file here (File too large)"), done.stderr
    assert os.listdir(tmp_path / "out") == []


def test_full_disk_loses_nothing_of_the_journal(tmp_path):
    done = limited(
        tmp_path,
        """
        from promptecho.captions.journal import Journal
        from promptecho.errors import DataError
        with Journal("j.jsonl", {"work": 1}) as journal:
            try:
                for number in range(100):
                    journal.append([{"n": number, "text": "x" * 300}])
            except DataError as error:
                print(number, error)
    """,
    )
    number, message = done.stdout.split(" ", 1)
    assert message.startswith("j.jsonl: cannot write (File too large)"), done.stderr
    with Journal(tmp_path / "j.jsonl", {"work": 1}) as journal:
        assert [row["n"] for row in journal.rows] == list(range(int(number)))
        journal.append([{"n": int(number)}])
    with Journal(tmp_path / "j.jsonl", {"work": 1}) as journal:
        assert len(journal.rows) == int(number) + 1


def test_journal_torn_at_any_byte_keeps_all_whole_lines(tmp_path):
    path = tmp_path / "j.jsonl"
    rows = [{"n": 0, "text": "é\n"}, {"n": 1}, {"n": 2}]
    with Journal(path, {"work": 1}) as journal:
        journal.append(rows[:2])
        journal.append(rows[2:])
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with Journal(path, {"work": 1}) as journal:
            kept = max(whole[:length].count(b"\n") - 1, 0)
            assert journal.rows == rows[:kept]
            journal.append(rows[kept:])
        assert path.read_bytes() == whole


def test_damaged_foreign_and_busy_journals_are_refused(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path, {"query": "a", "seed": 1}) as journal:
        journal.append([{"n": 0}, {"n": 1}])
        with pytest.raises(DataError, match="another process is working on it"):
            Journal(path, {"query": "a", "seed": 1})
    with pytest.raises(DataError, match=r"j\.jsonl: belongs to other work \(it differs in query\); delete it"):
        Journal(path, {"query": "b", "seed": 1})
    lines = path.read_bytes().split(b"\n")
    for damage in (b'{"n": 0', b"[1]", b"\0\0\0"):
        path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
        with pytest.raises(DataError, match=r"j\.jsonl:2: damaged line"):
            Journal(path, {"query": "a", "seed": 1})


def test_folder_and_lists_name_the_same_images(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    names = ["b.png", "a.JPG", "sub/c.webp"]
    for index, name in enumerate(names):
        image(index).save(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    folder = list_images(tmp_path / "images")
    assert [item.image_id for item in folder] == ["a.JPG", "b.png", "sub/c.webp"]
    assert all(item.path.is_file() for item in folder)
    (tmp_path / "list.txt").write_text("".join(f"images/{name}\n" for name in names) + "\n")
    (tmp_path / "list.jsonl").write_text(
        "".join(json.dumps({"image_id": name, "path": f"images/{name}"}) + "\n" for name in names)
    )
    assert [item.image_id for item in list_images(tmp_path / "list.txt")] == [f"images/{i.image_id}" for i in folder]
    listed = list_images(tmp_path / "list.jsonl")
    assert [(item.image_id, item.path.resolve()) for item in listed] == [(i.image_id, i.path.resolve()) for i in folder]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "no such image folder or list"),
        ("empty.txt", "\n", "holds no images"),
        ("twice.txt", "a.png\nb.png\na.png\n", "image_id 'a.png' occurs twice"),
        ("list.xlsx", "a.png", "give an image folder"),
        ("list.jsonl", '{"image_id": "a"}\n', "image 1 has no path"),
        ("list2.jsonl", '{"image_id": 3, "path": "a"}\n', "image 1 has no image_id"),
    ],
)
def test_bad_image_lists_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        list_images(tmp_path / name)


@given(st.integers(0, 50), st.integers(1, 12))
def test_shards_partition_the_images(count, num_shards):
    items = list(range(count))
    shards = [shard_of(items, index, num_shards) for index in range(num_shards)]
    assert sorted(sum(shards, [])) == items
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_shard_out_of_range_is_named():
    with pytest.raises(DataError, match="shard 3 of 3: shards are numbered from 0 to 2"):
        shard_of([1, 2, 3, 4], 3, 3)


def test_prompts_from_txt_and_jsonl(tmp_path):
    (tmp_path / "p.txt").write_text("A star\n\n  Two cats \n")
    assert [(row.image_id, row.caption) for row in read_prompts(tmp_path / "p.txt")] == [
        ("000001", "A star"),
        ("000003", "Two cats"),
    ]
    (tmp_path / "p.jsonl").write_text('{"caption": "A star"}\n{"data_id": 7, "caption": "Two cats"}\n')
    rows = read_prompts(tmp_path / "p.jsonl")
    assert [(row.image_id, row.caption) for row in rows] == [("000001", "A star"), ("7", "Two cats")]
    assert rows[0].image_sha256 == read_prompts(tmp_path / "p.txt")[0].image_sha256


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "\n \n", "holds no prompts"),
        ("p.json", "[]", "give prompts as"),
        ("p.csv", "a", "p.csv: holds no prompts; its first row must name the columns"),
        ("p.jsonl", '{"caption": "a"}\n{"caption": " "}\n', "prompt 2 .data_id '000002'.: the caption is empty"),
        ("q.jsonl", '{"data_id": 1, "caption": "a"}\n{"data_id": "1", "caption": "b"}\n', "prompt 2 .*occurs twice"),
        (
            "r.jsonl",
            '{"Prompt_en": "a"}\n',
            "r.jsonl: no caption, prompt or text in its rows, but .* 'Prompt_en'; rename",
        ),
        ("s.jsonl", '{"caption": "a\\ud800"}\n', "prompt 1 .*half a character"),
    ],
)
def test_bad_prompt_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / name)
