"""Copies of models on a node's disk: made once, whole or not there, and never in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.models import staging as module
from promptecho.models.staging import MARGIN, staged

PLENTY = 1 << 50
# A process that stages, tells where, and lives on until its input ends.
PROCESS = "import sys; from promptecho.models.staging import staged; print(staged(*sys.argv[1:]), flush=True); input()"


@pytest.fixture(autouse=True)
def not_in_use(monkeypatch):
    """This process has taken up no copy yet, and lets go of those of one test."""
    monkeypatch.setattr(module, "_in_use", held := {})
    yield
    for descriptor in held.values():
        os.close(descriptor)


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "network" / "model"
    (folder / "transformer").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "transformer" / "weights.safetensors").write_bytes(os.urandom(3 << 20))
    (folder / ".cache").mkdir()
    (folder / ".cache" / "notes").write_text("not the model's")
    return folder


@pytest.fixture
def disk(tmp_path) -> Path:
    return tmp_path / "disk"


def content(folder: str | Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def process(model: Path, disk: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(model), str(disk)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_one_copy_for_all_processes_of_a_node(model, disk):
    both = [process(model, disk), process(model, disk)]
    copies = [one.stdout.readline().strip() for one in both]
    told = [one.communicate("\n")[1] for one in both]
    assert copies[0] == copies[1] and content(copies[0]) == content(model)
    assert Path(copies[0]).is_relative_to(disk)
    assert sum("MB" in text for text in told) == 1  # one copied; the other found it, perhaps after waiting
    home = Path(copies[0]).parent
    assert home.stat().st_mode & 0o777 == 0o700 and [path.name for path in home.glob("[!.]*")] == [Path(copies[0]).name]
    inode = (Path(copies[0]) / "config.json").stat().st_ino
    assert staged(str(model), disk) == copies[0]  # a later segment
    assert (Path(copies[0]) / "config.json").stat().st_ino == inode


def test_without_staging_nothing_is_copied(model, disk):
    assert staged(str(model), None) == str(model)
    assert staged("owner/name", disk) == "owner/name"
    assert not disk.exists()


def test_killed_while_it_copies_it_leaves_nothing_that_looks_whole(model, disk):
    large = model / "large.safetensors"
    with open(large, "wb") as file:
        file.truncate(1 << 30)  # a hole in the source; the copy is written in full
    one = process(model, disk)
    while not list(disk.glob("*/.*.tmp/large.safetensors")):
        assert one.poll() is None
        time.sleep(0.005)
    one.send_signal(signal.SIGKILL)
    one.communicate()
    assert not list(disk.glob("*/model-*"))
    (temporary,) = disk.glob("*/.*.tmp")
    first = (temporary / "config.json").stat().st_ino
    large.unlink()  # so that the test ends soon; it is then another model, and the rest of the old one goes
    copy = staged(str(model), disk, free=PLENTY)
    assert content(copy) == content(model) and not list(disk.glob("*/.*.tmp"))
    assert (Path(copy) / "config.json").stat().st_ino != first


def test_a_copy_that_was_begun_is_finished(model, disk, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            staged(str(model), disk)
    (temporary,) = disk.glob("*/.*.tmp")
    (temporary / "transformer" / "weights.safetensors").write_bytes(b"half")
    (temporary / "foreign").write_text("x")
    whole = (temporary / "config.json").stat().st_ino
    copy = staged(str(model), disk)
    assert content(copy) == content(model)
    assert (Path(copy) / "config.json").stat().st_ino == whole  # was not copied again


@pytest.mark.parametrize("name", ["config.json", "transformer/weights.safetensors"])
def test_a_source_that_changed_is_copied_anew(model, disk, name):
    old = staged(str(model), disk)
    path = model / name
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    new = staged(str(model), disk)
    assert new != old and content(new) == content(model)


def test_a_damaged_copy_is_replaced_unless_it_is_in_use(model, disk, capfd):
    user = process(model, disk)
    copy = Path(user.stdout.readline().strip())
    (copy / "config.json").unlink()
    assert staged(str(model), disk) == str(model)
    assert "is damaged, and another process uses it; loading it from where it is" in capfd.readouterr().err
    user.communicate("\n")
    assert staged(str(model), disk) == str(copy) and content(copy) == content(model)


def test_room_is_made_from_what_nobody_uses(model, disk, tmp_path, capfd):
    sizes = {}
    for name in ("old", "recent"):
        other = tmp_path / "network" / name
        other.mkdir()
        (other / "weights.safetensors").write_bytes(bytes(1 << 20))
        sizes[name] = staged(str(other), disk)
    used = process(tmp_path / "network" / "recent", disk)
    used.stdout.readline()
    for descriptor in module._in_use.values():
        os.close(descriptor)
    module._in_use.clear()
    needed = sum(map(len, content(model).values())) + MARGIN
    assert staged(str(model), disk, free=needed - (2 << 20)) == str(model)  # more than old copies free
    told = capfd.readouterr().err
    assert f"staging: {model}: needs 1.1 GB" in told and "loading it from where it is" in told
    assert not Path(sizes["old"]).exists() and Path(sizes["recent"]).exists()
    copy = staged(str(model), disk, free=needed)
    assert content(copy) == content(model)
    used.communicate("\n")


def test_links_out_of_the_folder_are_not_followed(model, disk, tmp_path, capfd):
    (tmp_path / "secret").write_text("secret")
    (model / "transformer" / "vocab.json").symlink_to(tmp_path / "secret")
    assert staged(str(model), disk) == str(model)
    assert "vocab.json is a link that leads out of the folder" in capfd.readouterr().err
    assert not list(disk.glob("*/*model*"))
    (model / "transformer" / "vocab.json").unlink()
    (model / "transformer" / "inside.json").symlink_to("../config.json")
    link = tmp_path / "link"
    link.symlink_to(model)  # the folder itself may be named by a link
    copy = Path(staged(str(link), disk))
    assert (copy / "transformer" / "inside.json").read_text() == "{}"
    assert not (copy / "transformer" / "inside.json").is_symlink()


def test_a_folder_that_others_can_write_to_is_not_used(model, disk, tmp_path, capfd):
    home = disk / f"promptecho-{os.geteuid()}"
    home.mkdir(parents=True)
    home.chmod(0o777)
    assert staged(str(model), disk) == str(model)
    assert "is not a folder of yours alone" in capfd.readouterr().err
    home.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    home.symlink_to(tmp_path / "elsewhere")
    assert staged(str(model), disk) == str(model)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_jobs_own_variables_are_filled_in(model, disk, monkeypatch, capfd):
    monkeypatch.setenv("SLURM_TMPDIR", str(disk))
    assert staged(str(model), "$SLURM_TMPDIR/models").startswith(f"{disk}/models/")
    monkeypatch.delenv("SLURM_TMPDIR")
    assert staged(str(model), "$SLURM_TMPDIR/models") == str(model)
    assert "no absolute path here (a variable that is not set?)" in capfd.readouterr().err


def test_unstage_deletes_what_nobody_uses(model, disk, tmp_path):
    other = tmp_path / "network" / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    user = process(model, disk)
    used = Path(user.stdout.readline().strip())
    done = process(other, disk)
    unused = Path(done.stdout.readline().strip())
    done.communicate("\n")
    result = CliRunner().invoke(app, ["models", "unstage", "--staging", str(disk)])
    assert result.output == f"deleted: {unused.name}; in use: {used.name}\n"
    assert not unused.exists() and content(used) == content(model)
    user.communicate("\n")
