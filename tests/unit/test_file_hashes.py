"""Hashes of files: what changed is read again, what did not is not, and a store that is lost costs time only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from promptecho import file_hashes
from promptecho.errors import DataError
from promptecho.file_hashes import FileHashes, files_below


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Files of these tests are seconds old: count them as settled."""
    monkeypatch.setattr(file_hashes, "UNSETTLED_S", -1.0)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_unchanged_files_are_not_read_again(tmp_path):
    files = [tmp_path / name for name in ("a.png", "it's ü.png", os.fsdecode(b"raw-\xff.png"))]
    for file in files:
        file.write_text(file.name.encode(errors="surrogateescape").hex())
    with FileHashes(tmp_path / "below/store.json") as first:
        expected = first.of(files)
    assert first.read == 3 and expected[files[0]] == sha256(files[0].read_text())
    again = FileHashes(tmp_path / "below/store.json")
    assert again.of(files) == expected and list(again.of(files)) == files and again.read == 0
    assert again.sha256(files[1]) == expected[files[1]] and again.read == 0


def edited(file, other):
    file.write_text("new")


def same_size_and_time(file, other):
    facts = file.stat()
    file.write_text("two")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def older_copied_over(file, other):
    other.write_text("two")
    os.utime(other, (1, 1))
    shutil.copy2(other, file)  # cp -p


def older_renamed_over(file, other):
    other.write_text("two")
    os.utime(other, (1, 1))
    os.replace(other, file)  # rsync -t


def same_time_renamed_over(file, other):
    other.write_text("two")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    os.replace(other, file)


def link_turned(file, other):
    other.write_text("two")
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize(
    "change",
    [edited, same_size_and_time, older_copied_over, older_renamed_over, same_time_renamed_over, link_turned],
)
def test_a_replaced_file_is_read_again(tmp_path, change):
    file, other, store = tmp_path / "a", tmp_path / "b", tmp_path / "store.json"
    file.write_text("one")
    with FileHashes(store) as hashes:
        assert hashes.of([file]) == {file: sha256("one")}
    change(file, other)
    with FileHashes(store) as hashes:
        assert hashes.of([file]) == {file: sha256(file.read_text())} != {file: sha256("one")}
    assert hashes.read == 1
    assert FileHashes(store).sha256(file) == sha256(file.read_text())


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, monkeypatch):
    """Its next change may get the same time."""
    monkeypatch.setattr(file_hashes, "UNSETTLED_S", 1e6)
    file, store = tmp_path / "a", tmp_path / "store.json"
    file.write_text("one")
    with FileHashes(store) as hashes:
        assert hashes.sha256(file) == hashes.sha256(file) == sha256("one")
    assert hashes.read == 2 and not store.exists()


def test_files_below_a_folder_without_hidden_ones(tmp_path):
    folder = tmp_path / "adapter"
    (folder / "deep/.hidden").mkdir(parents=True)
    for name in ("a", "deep/b", "deep/.hidden/c", ".d"):
        (folder / name).write_text(name)
    assert sorted(files_below(folder)) == [folder / "a", folder / "deep/b"]
    with pytest.raises(DataError, match="no-folder: cannot read"):
        files_below(tmp_path / "no-folder")


def test_what_cannot_be_read_is_told_together(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "there").write_text("x")
    names = [*(f"none-{k:02d}" for k in range(12)), "pipe", "there"]
    with pytest.raises(DataError) as caught:
        FileHashes().of([tmp_path / name for name in names])
    lines = str(caught.value).splitlines()
    assert len(lines) == 11 and lines[-1] == "... and 3 more"
    assert lines[0] == f"{tmp_path / 'none-00'}: cannot read (No such file or directory)"
    with pytest.raises(DataError, match="not a plain file"):
        FileHashes().of([tmp_path / "pipe"])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"schema_version": 0, "files": {}}',
        '{"schema_version": 1}',
        '{"schema_version": 1, "files": []}',
        b"\xff",
    ],
)
def test_a_damaged_store_costs_time_only(tmp_path, content):
    file, store = tmp_path / "a", tmp_path / "store.json"
    file.write_text("one")
    store.write_bytes(content if isinstance(content, bytes) else content.encode())
    with FileHashes(store) as hashes:
        assert hashes.sha256(file) == sha256("one")
    assert list(json.loads(store.read_text())["files"]) == [str(file)]


def test_a_store_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "a").write_text("one")
    hashes = FileHashes(tmp_path / "a" / "store.json")  # below a file
    assert hashes.sha256(tmp_path / "a") == sha256("one")
    assert hashes.save() is False


PROCESS = """\
import sys
from promptecho import file_hashes
file_hashes.UNSETTLED_S = -1.0
for path in sys.argv[2:]:
    with file_hashes.FileHashes(sys.argv[1]) as hashes:
        hashes.sha256(path)
"""


def test_processes_share_a_store(tmp_path):
    """Whatever one overwrites of another's, the store stays whole and every hash in it true."""
    files = []
    for k in range(120):
        files.append(tmp_path / f"{k}")
        files[-1].write_text(str(k))
    store = tmp_path / "store.json"
    command = [sys.executable, "-c", PROCESS, str(store)]
    processes = [subprocess.Popen([*command, *map(str, files[k::3])]) for k in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    entries = json.loads(store.read_text())["files"]
    assert len(entries) >= 40 and set(entries) <= set(map(str, files))
    with FileHashes(store) as hashes:
        assert hashes.of(files) == {file: sha256(file.name) for file in files}
    assert hashes.read == len(files) - len(entries)


def test_long_work_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(file_hashes, "SAY_FROM", 2)
    for name in "ab":
        (tmp_path / name).write_text(name)
    hashes = FileHashes()
    hashes.of([tmp_path / "a", tmp_path / "b"], "photographs")
    told = capsys.readouterr().err
    assert "hashes of photographs: 2 files" in told and "2/2 files" in told
    hashes.of([tmp_path / "a", tmp_path / "b"], "photographs")
    assert capsys.readouterr().err == ""
