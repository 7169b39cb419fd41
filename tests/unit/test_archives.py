"""Images in ZIP files: read, refused, unpacked and scored like files."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import resource
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from promptecho.archives import Archive, DamagedArchiveError, ImageStore, write_archive
from promptecho.benchmarks.captions import layout as captions_layout
from promptecho.benchmarks.layout import DescribesPrompts
from promptecho.benchmarks.packing import discard, pack, unpack, unpacked
from promptecho.benchmarks.registry import load_layout, load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.benchmarks.tiif import layout as tiif_layout
from promptecho.cli import app
from promptecho.config.benchmarks import load_part
from promptecho.config.judges import JudgeSection
from promptecho.errors import DataError
from promptecho.files import read_jsonl, sha256_file, write_jsonl
from promptecho.image_output import ArchiveOutput, FileOutput
from promptecho.images import load_image
from promptecho.judges.base import Question
from promptecho.judges.prepare import Preparer
from promptecho.shapes.grammar import random_claim, scene_of, write
from promptecho.shapes.render import render

SHARDS = 3
BACKENDS = {"textocr": "rapidocr"}
SETS = [("geneval", 2), ("dpg", 1), ("dpg", 4), ("tiif", 1), ("textocr", 1), ("geneval2", 2), ("captions", 2)]
SETS += [("unigenbench", 2), ("t2icompbench", 2)]


def drawn(folder: Path, benchmark: str, count: int) -> tuple[Path, Path]:
    """An image set of the embedded world as files; returns its folder and its prompts."""
    prompts, root = folder / "prompts" / "metadata.jsonl", folder / "images" / "r" / "1" / benchmark
    rng = np.random.default_rng(sum(benchmark.encode()))
    if benchmark == "captions":
        claims = [random_claim(rng) for _ in range(6)]
        write_jsonl(prompts, [{"data_id": str(k), "caption": write(claim, k % 4)} for k, claim in enumerate(claims)])
    else:
        prompts.parent.mkdir(parents=True)
        load_part(benchmark, "shapes")(1, 0, prompts)
    layout = load_layout(benchmark, prompts, root, count)
    rows: list[list[dict]] = [[] for _ in range(SHARDS)]
    for k, (p, i) in enumerate((p, i) for p in range(len(layout.ids)) for i in range(count)):
        path = layout.image_path(p, i)
        path.parent.mkdir(parents=True, exist_ok=True)
        render(scene_of(random_claim(rng), rng), rng).save(path)
        about = {"prompt_id": layout.ids[p], "image_index": i, "prompt": layout.texts[p]}
        rows[k % SHARDS].append(about | {"filename": str(path.relative_to(root)), "sha256": sha256_file(path)})
    for shard, listed in enumerate(rows):
        write_jsonl(root / f"shards/{shard}.jsonl", listed)
    layout.describe(layout.chosen)
    return root, prompts


def archived(root: Path, benchmark: str, prompts: Path, count: int) -> Path:
    """The same images in archives, as generation leaves them."""
    copy = root.parent.parent / "2" / root.name
    shutil.copytree(root, copy)
    layout = load_layout(benchmark, prompts, copy, count)
    for shard in range(SHARDS):
        members = {}
        for row in read_jsonl(copy / f"shards/{shard}.jsonl"):
            if isinstance(layout, DescribesPrompts):
                members |= layout.prompt_files(layout.ids.index(row["prompt_id"]))
            members[row["filename"]] = (copy / row["filename"]).read_bytes()
        write_archive(copy / f"shards/{shard}.zip", members.items())
    for path in list(copy.iterdir()):
        if path.suffix == ".png":
            path.unlink()
        if path.is_dir() and path.name != "shards":
            shutil.rmtree(path)
    return copy


@pytest.mark.parametrize(("benchmark", "count"), SETS)
def test_scores_and_unpacked_folders_are_those_of_files(tmp_path, benchmark, count):
    root, prompts = drawn(tmp_path, benchmark, count)
    zipped = archived(root, benchmark, prompts, count)
    assert not list(zipped.rglob("*.png")) and len(list(zipped.rglob("*"))) <= 2 * SHARDS + 2
    scored = []
    for folder in (root, zipped):
        scorer = load_scorer(benchmark, ScoringOptions(BACKENDS.get(benchmark, "oracle")))
        scored.append(scorer.score(ImageFolder(folder, prompts)))
    assert scored[0] == scored[1] and not any(item.failed for item in scored[0].items)
    assert unpack(zipped, tmp_path / "out") == sum(len(read_jsonl(path)) for path in root.glob("shards/*.jsonl"))
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == files
    # An image too few is missed by its name, wherever the others are.
    name = read_jsonl(zipped / "shards/1.jsonl")[-1]["filename"]
    archive = Archive(zipped / "shards/1.zip")
    write_archive(zipped / "shards/1.zip", [(one, archive.read(one)) for one in archive.names if one != name])
    with pytest.raises(DataError, match=f"missing: .*{re.escape(name.removeprefix('cells/')[:6])}"):
        scorer.score(ImageFolder(zipped, prompts, count))


def test_pairs_may_lie_in_archives_and_in_files(tmp_path):
    root, prompts = drawn(tmp_path, "captions", 1)
    other, _ = drawn(tmp_path / "other", "captions", 1)
    names = [row["filename"] for row in read_jsonl(root / "metadata.jsonl")]
    for name, source in zip(names, reversed(names), strict=True):
        shutil.copyfile(root / source, other / name)
    zipped = archived(root, "captions", prompts, 1)
    scores = [
        load_scorer("densealign", ScoringOptions("oracle", seed=1)).score(ImageFolder(folder, prompts, 1, other))
        for folder in (root, zipped)
    ]
    assert scores[0] == scores[1]


def test_one_image_is_read_by_its_name(tmp_path):
    root, prompts = drawn(tmp_path, "captions", 2)
    zipped = archived(root, "captions", prompts, 2)
    store, name = ImageStore(zipped), "00003_00001.png"
    image = store.find(name)
    assert image.read_bytes() == (root / name).read_bytes() and image.name == name and store.exists(name)
    with image.open("rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    assert load_image(image).tobytes() == load_image(root / name).tobytes()
    assert store.names() == ImageStore(root).names() == {path.name for path in root.glob("*.png")}
    assert not store.exists("00099_00000.png") and store.find("00099_00000.png") == zipped / "00099_00000.png"


def test_a_judge_is_asked_with_the_same_bytes(tmp_path):
    """The keys of its answers are those of files, so that nothing is asked again."""
    root, prompts = drawn(tmp_path, "captions", 1)
    zipped = archived(root, "captions", prompts, 1)
    name, prepared = "00004_00000.png", []
    preparer = Preparer(JudgeSection(kind="openai", model="m", endpoint="http://127.0.0.1:9/v1"), "m")
    for folder in (root, zipped):
        question = preparer.prepare(Question("q", "Red?", (ImageStore(folder).find(name),), str))
        prepared.append((question.key, preparer.payload(question, 0)))
    assert prepared[0] == prepared[1]


def test_packing_leaves_archives_and_deleting_takes_them(tmp_path):
    root, prompts = drawn(tmp_path, "captions", 1)
    zipped = archived(root, "captions", prompts, 1)
    said = tmp_path / "packed.json"
    run = CliRunner().invoke(app, ["benchmarks", "pack", str(zipped), "--out", str(said)])
    assert run.exit_code == 0 and "shards/0.zip" in run.stdout and json.loads(said.read_text()) == {"images": 6}
    assert not (zipped / "images.tar").exists() and len(list(zipped.glob("shards/*.zip"))) == SHARDS
    archive = Archive(zipped / "shards/1.zip")
    write_archive(zipped / "shards/1.zip", [(name, archive.read(name) + b"\0") for name in archive.names])
    with pytest.raises(DataError, match="is not the image that was generated"):
        pack(zipped)
    assert discard(zipped) == 6 and not list(zipped.glob("shards/*"))


@pytest.mark.parametrize("part", [0.5, 0.98])
def test_an_archive_that_is_cut_short_is_refused_in_one_line(tmp_path, part):
    root, prompts = drawn(tmp_path, "captions", 1)
    zipped = archived(root, "captions", prompts, 1)
    path = zipped / "shards/2.zip"
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    words = ["score", "--benchmark", "captions", "--images", str(zipped), "--out", str(tmp_path / "s.json")]
    words += ["--experiment", "x", "--run", "r", "--step", "2"]
    run = CliRunner().invoke(app, words)
    told = str(run.exception)
    assert told.startswith(f"{path}: cut short or damaged (") and "delete it and 2.jsonl beside it" in told
    assert "\n" not in told and not (tmp_path / "s.json").exists()
    # A byte of an image that is another one is found when the image is read, and costs this image alone.
    index = content.index(b"IDAT") + 20
    path.write_bytes(content[:index] + bytes([content[index] ^ 255]) + content[index + 1 :])
    scored = load_scorer("captions", ScoringOptions("oracle")).score(ImageFolder(zipped, prompts, 1))
    assert [item.failed for item in scored.items] == [False, False, True, False, False, False]
    assert "is damaged" in next(row["reason"] for row in scored.raw if row["failed"])


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path):
    for number, name in enumerate(("../escaped.png", "/tmp/escaped.png", "a/../../escaped.png", "..\\escaped.png")):
        root = tmp_path / str(number) / "images"
        (root / "shards").mkdir(parents=True)
        with zipfile.ZipFile(root / "shards/0.zip", "w") as file:
            file.writestr(name, b"x")
        with pytest.raises(DataError, match="leads out of the folder"):
            unpack(root, tmp_path / str(number) / "out")
        with pytest.raises(DataError, match="leads out of the folder"):
            ImageStore(root).find("a.png")
    assert not list(tmp_path.rglob("escaped.png")) and not list(tmp_path.glob("*/out")) + list(tmp_path.rglob("*.tmp"))


def test_an_image_in_two_archives_is_told(tmp_path):
    for shard in (0, 3):
        write_archive(tmp_path / f"shards/{shard}.zip", [("00000_00000.png", b"x")])
    with pytest.raises(DataError, match=r"shards/0.zip and in .*shards/3.zip, which are of two numbers of shards"):
        ImageStore(tmp_path).find("00000_00000.png")


def test_nothing_is_unpacked_over_what_is_there(tmp_path):
    write_archive(tmp_path / "images/shards/0.zip", [("a.png", b"x")])
    run = CliRunner().invoke(app, ["benchmarks", "unpack", str(tmp_path / "images"), "--out", str(tmp_path)])
    assert "exists already" in str(run.exception)
    with pytest.raises(DataError, match="lies in the image folder"):
        unpack(tmp_path / "images", tmp_path / "images" / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no images to unpack"):
        unpack(tmp_path / "none", tmp_path / "out")
    run = CliRunner().invoke(app, ["benchmarks", "unpack", str(tmp_path / "images"), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0 and "1 image" in run.stdout and (tmp_path / "out/a.png").read_bytes() == b"x"


class Stale(io.BufferedReader):
    """A file on a network disk that another machine has replaced."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")


def test_a_read_error_is_not_damage(tmp_path, monkeypatch):
    root, prompts = drawn(tmp_path, "captions", 1)
    zipped = archived(root, "captions", prompts, 1)
    row, path = read_jsonl(zipped / "shards/0.jsonl")[0], zipped / "shards/0.zip"
    layout = load_layout("captions", prompts, zipped, 1)
    outputs = [ArchiveOutput(layout, zipped, 0, tmp_path / "x", [(0, 0)]) for _ in range(2)]
    archive, content = Archive(path), path.read_bytes()
    outputs[0].prepare()
    with monkeypatch.context() as patched:
        patched.setattr("promptecho.archives.open", lambda path, _: Stale(io.FileIO(path)), raising=False)
        for call in (
            lambda: Archive(path),
            lambda: archive.read(row["filename"]),
            lambda: outputs[0].holds((0, 0), [row]),
            outputs[1].prepare,
            FileOutput(layout, zipped, 0, tmp_path / "x", [(0, 0)]).prepare,
        ):
            with pytest.raises(DataError, match=r"0\.zip: cannot read \(Stale file handle\)") as caught:
                call()
            assert not isinstance(caught.value, DamagedArchiveError)
    assert path.read_bytes() == content and outputs[0].holds((0, 0), [row])
    write_archive(path, [(row["filename"], b"x")])
    with pytest.raises(DataError, match="another archive has taken its place"):
        archive.read(row["filename"])
    # Of the images of a shard that is not complete, too.
    (tmp_path / "done.images").mkdir()
    stored = {"sha256": "0", "offset": 0, "size": 1}
    for output in (
        ArchiveOutput(layout, zipped, 0, tmp_path / "done.images", [(0, 0)]),
        FileOutput(layout, zipped, 0, tmp_path / "done.images", [(0, 0)]),
    ):
        with pytest.raises(DataError, match=r"done\.images: cannot read"):
            output.holds((0, 0), [stored])


def test_files_take_from_an_archive_what_is_sound_and_their_own(tmp_path, capsys):
    """Image 3 is another shard's, which may just be writing it."""
    root, prompts = drawn(tmp_path, "geneval", 2)
    layout, every = load_layout("geneval", prompts, root, 2), [(0, 0), (0, 1), (1, 0), (1, 1)]
    paths = [layout.image_path(*one) for one in every]
    content = [path.read_bytes() for path in paths]
    write_archive(root / "shards/0.zip", [(str(path.relative_to(root)), path.read_bytes()) for path in paths])
    for path in (*paths[1:], root / "00001/metadata.jsonl"):
        path.unlink()
    paths[0].write_bytes(b"newer")
    whole = (root / "shards/0.zip").read_bytes()
    index = whole.index(content[1]) + 50
    (root / "shards/0.zip").write_bytes(whole[:index] + bytes([whole[index] ^ 255]) + whole[index + 1 :])
    FileOutput(layout, root, 0, tmp_path / "x", every[:3]).prepare()
    assert [path.read_bytes() if path.exists() else None for path in paths] == [b"newer", None, content[2], None]
    assert (root / "00001/metadata.jsonl").read_bytes() == layout.prompt_files(1)["00001/metadata.jsonl"]
    assert not (root / "shards/0.zip").exists()
    assert "00000/samples/00001.png is damaged" in (said := capsys.readouterr().err) and said.count("\n") == 1


@pytest.mark.parametrize(("benchmark", "module"), [("captions", captions_layout), ("tiif", tiif_layout)])
def test_a_shard_does_not_fail_for_another_ones_archive(tmp_path, benchmark, module):
    root, prompts = drawn(tmp_path, benchmark, 1)
    zipped = archived(root, benchmark, prompts, 1)
    content = (zipped / "shards/1.zip").read_bytes()
    (zipped / "shards/1.zip").write_bytes(content[:-30])
    layout, listing = load_layout(benchmark, prompts, zipped, 1), (zipped / "metadata.jsonl").read_bytes()
    layout.remove_stale()
    layout.describe([])
    assert not (zipped / "metadata.jsonl").exists()
    with pytest.raises(DamagedArchiveError, match=r"1\.zip: cut short or damaged"):
        module.list_images(zipped)
    (zipped / "shards/1.zip").write_bytes(content)
    layout.describe([])
    assert (zipped / "metadata.jsonl").read_bytes() == listing


@contextmanager
def limited(kind: int, limit: int):
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_more_archives_than_a_process_may_have_open(tmp_path):
    for shard in range(60):
        write_archive(tmp_path / f"shards/{shard}.zip", [(f"{shard}.png", b"%d" % shard)])
    with limited(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) + 10):
        store = ImageStore(tmp_path)
        assert [store.find(f"{shard}.png").read_bytes() for shard in range(60)] == [b"%d" % k for k in range(60)]


def test_a_full_disk_is_told_in_one_line(tmp_path):
    root, out = tmp_path / "r" / "1" / "set", tmp_path / "out"
    (root / "shards").mkdir(parents=True)
    (root / "a.png").write_bytes(bytes(5000))
    write_jsonl(root / "shards/0.jsonl", [{"filename": "a.png", "sha256": hashlib.sha256(bytes(5000)).hexdigest()}])
    (root / "notes.txt").write_bytes(bytes(9000))
    with (
        limited(resource.RLIMIT_FSIZE, 8000),
        pytest.raises(DataError, match=rf"^{out}: cannot copy .*notes\.txt to it"),
    ):
        unpack(root, out)
    pack(root)
    told = r"cannot copy .*notes\.txt to it"
    with limited(resource.RLIMIT_FSIZE, 8000), pytest.raises(DataError, match=rf"^{out}: {told}"):
        unpack(root, out)
    pack(root)
    with limited(resource.RLIMIT_FSIZE, 8000), pytest.raises(DataError, match=told), unpacked(root):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
