"""Which images are captioned: folders and names of the real world, the list, and what happens when images change."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from permissions import obey_permissions
from PIL import Image
from tiny_vlm import image, shared_folder
from typer.testing import CliRunner

from promptecho.captions.captioner import GenerationSettings
from promptecho.captions.folders import told
from promptecho.captions.inputs import image_list, list_images, shard_of, with_hashes, write_list
from promptecho.captions.journal import Journal
from promptecho.captions.merge import MergeSpec, merge_shards, wanted_images
from promptecho.captions.renewal import LIST, renew
from promptecho.captions.shard import ShardSpec, caption_shard
from promptecho.captions.store import CaptionRow, CaptionSource, read_captions, row_to_dict, write_captions
from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.file_hashes import FileHashes
from promptecho.files import digest, sha256_file
from promptecho.images import HEIF_EXTRA
from promptecho.names import PREFIX, id_of, name_of

SOURCE = CaptionSource("vlm", "files-1", "Describe this image in detail.", {})
NAMES = [
    "Screenshot 2026-08-10 at 9.22.20\u202fPM.png", "sn\u00edmek v\u00a013.05.png", "\u5199\u771f\u3000001.png",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467.png", "a\u00adb.png", "\u200f\u05e9\u05dc.png", "a\nb.png",
    "a\tb.png", "\x1b[31mred.png", "line\u2028break.png", "caf\u00e9.png", "cafe\u0301.png", "x" * 250 + ".png",
    "it's \"a\" cat; $HOME `id` {x} 100%.png", "-n.png", "#.png", "back\\slash.png", "back\\u000Aslash.png",
    "A.PNG", "A.png", "\U0001f9ff.png",
]  # fmt: skip
BYTES = [b"caf\xe9.png", b"\xff\xfe.png", b"half\xc3.png"]


def put(folder: Path, *names: str | bytes, index: int = 0) -> None:
    for number, name in enumerate(names, start=index):
        path = folder / (os.fsdecode(name) if isinstance(name, bytes) else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        image(number).save(path, format="PNG")


def test_every_name_has_an_id_of_its_own(tmp_path):
    put(tmp_path, *NAMES, *BYTES)
    items = list_images(tmp_path)
    ids = [item.image_id for item in items]
    assert len(set(ids)) == len(NAMES) + len(BYTES) and ids == sorted(ids)
    for item in items:
        assert item.path.is_file() and name_of(item.image_id) == item.path.name
        item.image_id.encode("utf-8")
        assert len(item.image_id.splitlines()) == 1 and json.loads(json.dumps(item.image_id)) == item.image_id
        if item.path.name.isprintable():
            assert item.image_id == item.path.name  # as they always were
    assert {name for name in ids if name.startswith(PREFIX)} == {
        rf"{PREFIX}a\u000Ab.png", rf"{PREFIX}a\u0009b.png", rf"{PREFIX}\u001B[31mred.png",
        rf"{PREFIX}line\u2028break.png", rf"{PREFIX}caf\xE9.png", rf"{PREFIX}\xFF\xFE.png", rf"{PREFIX}half\xC3.png",
    }  # fmt: skip
    rows = [CaptionRow(name, "a", 1, "stop", "") for name in ids]
    write_captions(tmp_path / "a.h5", SOURCE, rows)
    assert read_captions(tmp_path / "a.h5").rows == rows
    write_list(tmp_path / "list.jsonl", image_list(tmp_path))
    assert [(i.image_id, i.path.name) for i in list_images(tmp_path / "list.jsonl")] == [
        (i.image_id, i.path.name) for i in items
    ]
    lines = [item.path.name for item in items if "\n" not in item.path.name]
    (tmp_path / "list.txt").write_bytes(b"\n".join(map(os.fsencode, lines)))
    assert {i.image_id for i in list_images(tmp_path / "list.txt")} == {id_of(name) for name in lines}
    (tmp_path / "windows.txt").write_bytes("A.PNG\r\ncaf\u00e9.png\r\n".encode("utf-16"))
    assert [i.image_id for i in list_images(tmp_path / "windows.txt")] == ["A.PNG", "caf\u00e9.png"]


@given(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12))
def test_ids_are_reversible_and_never_collide(one, other):
    names = [os.fsdecode(data.replace(b"\0", b"\n")) for data in (one, other)]
    ids = [id_of(name) for name in names]
    assert (ids[0] == ids[1]) == (names[0] == names[1])
    assert [name_of(i) for i in ids] == names and [id_of(i) for i in ids] == ids


@pytest.fixture
def messy(tmp_path) -> Path:
    """Three photographs of a person, and what programs put beside them."""
    folder = tmp_path / "photos"
    put(folder, "a.jpg", "b.JPEG", "trip/c.webp")
    put(folder, *(f"{tool}/x.png" for tool in (
        ".ipynb_checkpoints", ".thumbnails", ".Trash-1000/files", ".cache", "@eaDir/a.jpg", "trip/@eaDir", "__MACOSX",
        "lost+found", "#recycle", "$RECYCLE.BIN",
    )))  # fmt: skip
    put(folder, "._a.jpg", ".hidden.png")
    files = ("Thumbs.db", "notes.txt", "layers.psd", "draft.PSD", "raw.NEF", "IMG_0001", "clip.mp4", "trip/plan.pdf")
    for name in files:
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.png"))
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "again").symlink_to(".")
    (folder / "trip/up").symlink_to("..")
    (folder / "latest").symlink_to("trip")
    return folder


def test_a_folder_says_what_is_taken_and_why_the_rest_is_not(messy):
    listed = image_list(messy)
    assert [item.image_id for item in listed.items] == ["a.jpg", "b.JPEG", "trip/c.webp"]
    lines = list(told([item.image_id for item in listed.items], listed.left_out))
    for part in (
        "2 hidden files", "2 .psd (no format that can be read: an editor's file", "1 .nef (no format that can be read",
        "1 .txt (no image)", "1 without a suffix", "2 pipes, sockets or devices", "1 link that leads nowhere",
        "3 link to a folder that is there already", "2 folder @eaDir", "1 folder .ipynb_checkpoints",
    ):  # fmt: skip
        assert part in lines[0], (part, lines[0])
    counted = int(lines[0].split(" taken, ")[1].split()[0])
    assert counted == sum(some.total() for some in listed.left_out.values()) == 26
    assert lines[1].startswith("  .: 2 taken, 23 left out") and lines[2].startswith("  trip: 1 taken, ")


def test_all_suffixes_of_photographs_are_taken(tmp_path):
    suffixes = [".avif", ".jfif", ".jpe", ".jp2", ".mpo", ".tga", ".ppm", ".PGM", ".Tif", ".bmp", ".gif", ".qoi"]
    suffixes += [".apng", ".dib", ".j2k", ".pcx", ".sgi"]
    names = [f"a{suffix}" for suffix in suffixes]
    put(tmp_path, *names)
    assert sorted(item.image_id for item in list_images(tmp_path)) == sorted(names)
    (tmp_path / "b.heic").write_bytes(b"x")
    code = (
        "import sys; sys.modules['pillow_heif'] = None; import importlib.util as u\n"
        "find = u.find_spec; u.find_spec = lambda name: None if name == 'pillow_heif' else find(name)\n"
        "from promptecho.captions.inputs import image_list\nprint(*image_list('.').left_out[''])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert f".heic ({HEIF_EXTRA})" in done.stdout, done.stderr


def test_links_lead_to_each_photograph_once(tmp_path):
    put(tmp_path / "elsewhere", "far.png", "deep/near.png")
    put(tmp_path / "photos", "a.png")
    (tmp_path / "photos/linked.png").symlink_to(tmp_path / "elsewhere/far.png")
    (tmp_path / "photos/all").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/deep").symlink_to(tmp_path / "elsewhere/deep")
    ids = [item.image_id for item in list_images(tmp_path / "photos")]
    assert ids in (["a.png", "all/deep/near.png", "all/far.png", "linked.png"],
                   ["a.png", "all/far.png", "deep/near.png", "linked.png"])  # fmt: skip
    assert ids == [item.image_id for item in list_images(tmp_path / "photos")]


def bound(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that permissions bind."""
    head = f"import promptecho.captions.inputs, promptecho.captions.store\nFOLDER = {str(folder)!r}\n"
    body = f"try:\n    {code}\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    command = [sys.executable, "-c", head + body]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=obey_permissions)


def test_folders_without_permission_are_named_all(tmp_path):
    put(tmp_path / "photos", "a.png", "locked/b.png", "more/shut/c.png")
    for name in ("locked", "more/shut"):
        (tmp_path / "photos" / name).chmod(0)
    try:
        done = bound("promptecho.captions.inputs.list_images(FOLDER)", tmp_path / "photos")
    finally:
        for name in ("locked", "more/shut"):
            (tmp_path / "photos" / name).chmod(0o755)
    assert "DataError" in done.stdout and "these cannot be read" in done.stdout, (done.stdout, done.stderr)
    assert "photos/locked (Permission denied)" in done.stdout and "shut (Permission denied)" in done.stdout


def test_a_sound_caption_file_out_of_reach_is_not_called_damaged(tmp_path):
    path = tmp_path / "a.h5"
    write_captions(path, SOURCE, [CaptionRow("a", "b", 1, "stop", "")])
    path.chmod(0)
    done = bound("promptecho.captions.store.read_captions(FOLDER)", path)
    path.chmod(0o644)
    assert "a.h5: cannot read (Permission denied)" in done.stdout, (done.stdout, done.stderr)
    assert "damaged" not in done.stdout and "delete" not in done.stdout
    hold = f"import h5py, sys; f = h5py.File({str(path)!r}, 'r+', **{{}}); print('open', flush=True); sys.stdin.read()"
    for locking in ("TRUE", "BEST_EFFORT", "FALSE"):
        environment = {**os.environ, "HDF5_USE_FILE_LOCKING": locking}
        with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=environment, text=True) as holder:  # fmt: skip
            assert holder.stdout.readline() == "open\n"
            code = f"from promptecho.captions.store import read_captions; print(read_captions({str(path)!r}).rows)"
            read = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            holder.stdin.close()
        assert "image_id='a'" in read.stdout, read.stderr
    with pytest.raises(DataError, match="cannot read"):
        read_captions(tmp_path)


def test_the_list_command_reads_only_what_is_new(tmp_path):
    put(tmp_path / "photos", "a.png", "sub/b.png")
    (tmp_path / "photos/c.psd").write_bytes(b"x")
    for file in (tmp_path / "photos").rglob("*.png"):
        os.utime(file, (1, 1))
    arguments = ["caption", "list", "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "list.jsonl")]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["images"] == 2 and sum(facts["left_out"].values()) == 1
    listed = image_list(tmp_path / "list.jsonl")
    assert [(i.image_id, i.sha256, i.size) for i in listed.items] == [
        (name, sha256_file(tmp_path / "photos" / name), (tmp_path / "photos" / name).stat().st_size)
        for name in ("a.png", "sub/b.png")
    ]
    assert "images: 2 taken, 1 left out: 1 .psd" in CliRunner().invoke(app, arguments).stdout


def captioned(folder: Path, source: Path, num_shards: int) -> None:
    """Shards as captioning leaves them, with the hashes of the files as they are."""
    listed = folder / LIST
    items = image_list(listed if listed.is_file() else source).items
    for k in range(num_shards):
        mine = shard_of(items, k, num_shards)
        rows = [CaptionRow(item.image_id, "A star.", 3, "stop", sha256_file(item.path)) for item in mine]
        write_captions(folder / f"shards/{k:05d}.h5", SOURCE, rows, shard=(k, num_shards))


def replace_quietly(path: Path, index: int) -> None:
    """Another picture of the same size in bytes and time of change, as `cp -p` may leave it: only ctime tells."""
    facts, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 1 + index
    path.write_bytes(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))


def test_changed_images_are_listed_anew_and_their_shards_made_again(tmp_path):
    photos, folder = tmp_path / "photos", tmp_path / "captions"
    put(photos, *(f"{k}.png" for k in range(6)))

    def look(write: bool = True):
        renewal = renew(photos, folder, 3, FileHashes())
        if write:
            renewal.write(folder)
        return renewal

    assert look(write=False).new and look().shards == [] and not look().new
    captioned(folder, photos, 3)
    assert not (same := look()).new and same.told("E") == []
    os.utime(photos / "3.png")  # the same picture
    assert look().shards == [] and not look().new
    replace_quietly(photos / "4.png", 1)
    for _ in range(2):  # also if the workflow is stopped before the shard is made
        assert look().shards == [1]
    captioned(folder, photos, 3)
    assert look().shards == [] and not look().new
    put(photos, "new/7.png", index=7)
    added = look()
    assert added.shards == [0] and "1 added (new/7.png); captioned again: shard 0" in added.told("E")[0]
    captioned(folder, photos, 3)
    (photos / "0.png").unlink()
    gone = look(write=False)
    assert gone.shards == [0, 1, 2] and "1 gone (0.png)" in gone.told("E")[0]
    assert look(write=False).shards == [0, 1, 2]  # a dry run leaves nothing
    for shard in (folder / "shards").iterdir():
        shard.unlink()
    assert look().shards == []


def test_what_is_taken_out_of_a_list_of_paths_is_not_captioned_any_more(tmp_path):
    paths, folder = tmp_path / "photos.txt", tmp_path / "captions"
    put(tmp_path, *(f"{k}.png" for k in range(3)))
    paths.write_text("0.png\n1.png\n2.png\n")
    renew(paths, folder, 1, FileHashes()).write(folder)
    captioned(folder, paths, 1)
    assert not renew(paths, folder, 1, FileHashes()).new
    paths.write_text("0.png\n2.png\n")  # the photograph itself stays
    found = renew(paths, folder, 1, FileHashes())
    assert [item.image_id for item in found.listed.items] == ["0.png", "2.png"] and found.shards == [0]
    assert "1 gone (1.png); captioned again: shard 0" in found.told("E")[0]


def test_captions_older_than_lists_are_adopted(tmp_path):
    photos, folder = tmp_path / "photos", tmp_path / "captions"
    put(photos, *(f"{k}.png" for k in range(5)), ".thumbnails/0.png")
    old = [f"{k}.png" for k in range(5)] + [".thumbnails/0.png"]  # by the rules of that time
    for k in range(2):
        rows = [CaptionRow(name, "A star.", 3, "stop", sha256_file(photos / name)) for name in sorted(old)[k::2]]
        write_captions(folder / f"shards/{k:05d}.h5", SOURCE, rows, shard=(k, 2))
    put(photos, "other.avif")
    first = renew(photos, folder, 2, FileHashes())
    assert first.shards == [] and first.listed.unlisted == ["other.avif"] and first.changes == []
    assert "1 more is there (other.avif)" in first.told("E")[-1]
    first.write(folder)
    again = renew(photos, folder, 2, FileHashes())
    assert not again.new and again.shards == []
    put(photos, "sub/later.png")
    assert renew(photos, folder, 2, FileHashes()).shards != []
    (photos / "sub/later.png").unlink()
    replace_quietly(photos / "2.png", 5)
    (folder / LIST).unlink()  # replaced before there was a list: its hash tells
    assert renew(photos, folder, 2, FileHashes()).shards == [1]


def spec(source: Path, folder: Path, **options) -> ShardSpec:
    settings = GenerationSettings(max_new_tokens=4, batch_size=8)
    values = dict(vlm=str(shared_folder()), images=str(source), query="What is it?", shard=0, num_shards=1,
                  out=folder / "shards/00000.h5", work=folder / "work", settings=settings)  # fmt: skip
    return ShardSpec(**(values | options))


def test_a_shard_captions_what_is_listed_or_names_what_is_not_so(tmp_path):
    photos, folder = tmp_path / "photos", tmp_path / "captions"
    put(photos, "a.png", "b.png", "c.png")
    renew(photos, folder, 1, FileHashes()).write(folder)
    put(photos, "late.png")  # arrives between two shards
    listed = folder / LIST
    done = caption_shard(spec(photos, folder, images_list=listed))
    assert [row.image_id for row in read_captions(done["out"]).rows] == ["a.png", "b.png", "c.png"]
    options = dict(out=tmp_path / "m.h5", heldout_out=tmp_path / "h.jsonl", heldout=0)
    merge_shards([done["out"]], MergeSpec(**options), wanted_images(str(photos), listed))
    write_list(listed, with_hashes(image_list(photos), FileHashes()))
    with pytest.raises(DataError, match=r"1 image is listed and in no shard \(late\.png\)"):
        merge_shards([done["out"]], MergeSpec(**options), wanted_images(str(photos), listed))
    replace_quietly(photos / "a.png", 3)
    (photos / "b.png").unlink()
    with pytest.raises(DataError, match=r"since the images were listed .*a\.png has changed, .*b\.png is gone; run"):
        caption_shard(spec(photos, folder, images_list=listed))
    with pytest.raises(DataError, match=r"1 image is captioned from another file .*\(a\.png\)"):
        rows = read_captions(done["out"]).rows
        late = CaptionRow("late.png", "x", 1, "stop", sha256_file(photos / "late.png"))
        write_captions(done["out"], read_captions(done["out"]).source,
                       [CaptionRow("a.png", "x", 1, "stop", "0" * 64), *rows[1:], late])  # fmt: skip
        merge_shards([done["out"]], MergeSpec(**options), wanted_images(str(photos), listed))


def test_forty_photographs_of_all_kinds_and_names_are_captioned(tmp_path, capsys, monkeypatch):
    """What the model gets, photograph by photograph, against colours that this test computes by itself."""
    side = 24
    rng = np.random.default_rng(7)
    photos, expected = tmp_path / "photos", {}

    def add(name: str, picture: Image.Image, colours: np.ndarray, tolerance: int = 0, **options) -> None:
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)
        expected[id_of(name)] = (np.broadcast_to(colours, (side, side, 3)).astype(int), tolerance)

    def noise(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, (side, side, *shape), dtype=np.uint8)

    flat = np.array([200, 90, 40], dtype=np.uint8)
    solid = np.broadcast_to(flat, (side, side, 3)).copy()
    for name in (*(n for n in NAMES if len(n) < 200), *map(os.fsdecode, BYTES)):
        colours = noise(3)
        add(f"names/{name}", Image.fromarray(colours), colours, format="PNG")
    for suffix in ("jfif", "jpe", "JPG", "mpo"):
        add(f"plain.{suffix}", Image.fromarray(solid), flat, 2, format="JPEG", quality=95)
    for suffix in ("avif", "jp2", "webp"):
        add(f"plain.{suffix}", Image.fromarray(solid), flat, 3)
    for suffix in ("tga", "ppm", "bmp", "qoi", "tif"):
        colours = noise(3)
        add(f"exact.{suffix}", Image.fromarray(colours), colours)
    grey, alpha, colours = noise(), noise(), noise(3)
    three = grey[..., None].repeat(3, axis=2)
    add("wide.png", Image.fromarray(grey.astype(np.uint16) * 257), three)
    add("wide.tiff", Image.fromarray(grey.astype(np.uint16) * 257), three)
    add("float.tif", Image.fromarray((grey / 255).astype(np.float32)), three)
    blended = np.floor(colours * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255) + 0.5)
    add("cutout.png", Image.fromarray(np.dstack([colours, alpha])), blended)
    add("logo.png", Image.new("RGBA", (side, side)), np.array([255, 255, 255]))
    add("one.png", Image.fromarray(grey > 99), (three > 99) * 255)
    put(photos, ".thumbnails/t.png")
    for name in ("a.psd", "b.psd", "notes.txt"):
        (photos / name).write_bytes(b"x")
    Image.fromarray(grey.astype(np.float32) * 9).save(photos / "heat.tif")
    assert len(expected) >= 40

    shown = {}
    from promptecho.captions import shard as module

    caption = module.caption_images

    def seen(vlm, images, ids, query, settings):
        shown.update((i, np.asarray(p).astype(int)) for i, p in zip(ids, images, strict=True))
        return caption(vlm, images, ids, query, settings)

    monkeypatch.setattr(module, "caption_images", seen)
    folder = tmp_path / "captions"
    renewal = renew(photos, folder, 1, FileHashes())
    renewal.write(folder)
    [line] = [line for line in renewal.told("E") if "taken" in line][:1]
    assert line.startswith(f"E: images: {len(expected) + 1} taken, 4 left out: 2 .psd (no format that can be read:")
    assert "1 .txt (no image), 1 folder .thumbnails" in line
    done = caption_shard(spec(photos, folder, images_list=folder / LIST))
    log = capsys.readouterr().err
    assert done["rejected"]["unreadable_image"] == 1 and "heat.tif: floating-point pixels from" in log
    assert done["converted"] == {"floating point": 1, "more than 8 bits": 2, "transparency": 2}
    assert "these were converted: 1 floating point, 2 more than 8 bits, 2 transparency" in log
    assert set(shown) == set(expected)
    for image_id, (colours, tolerance) in expected.items():
        np.testing.assert_allclose(shown[image_id], colours, rtol=0, atol=tolerance, err_msg=image_id)
    assert {row.image_id for row in read_captions(done["out"]).rows} == {*expected, "heat.tif"}


def test_a_replaced_photograph_loses_its_row_of_the_journal(tmp_path):
    photos, work = tmp_path / "photos", tmp_path / "work"
    put(photos, "a.png", "b.png")
    one = spec(photos, tmp_path)
    caption_shard(one)
    rows = read_captions(one.out).rows
    header = {
        "journal": 1, "vlm_revision": read_captions(one.out).source.vlm_revision, "query": one.query,
        "generation": one.identity(), "shard": "0/1",
        "images": digest([[name, (photos / name).stat().st_size] for name in ("a.png", "b.png")]),
    }  # fmt: skip
    with Journal(work / "00000.journal.jsonl", header) as journal:  # killed before the second was done
        journal.append([row_to_dict(rows[0])])
    one.out.unlink()
    replace_quietly(photos / "a.png", 2)
    caption_shard(one)
    assert [row.image_sha256 for row in read_captions(one.out).rows] == [
        sha256_file(photos / name) for name in ("a.png", "b.png")
    ]


def test_large_photographs_are_captioned_small(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    image(1, (400, 300)).save(photos / "large.png")
    small = spec(photos, tmp_path, max_pixels=100 * 75)
    assert caption_shard(small)["converted"] == {"shrunk": 1}
    assert read_captions(small.out).source.generation["max_pixels"] == 7500
    shutil.rmtree(tmp_path / "shards")
    assert "max_pixels" not in spec(photos, tmp_path).identity()  # as captions that are older than the key
