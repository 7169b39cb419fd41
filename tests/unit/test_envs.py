"""`promptecho envs`: virtual environments from environment files, of packages that the tests make themselves."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from own_wheels import only_index, wheel
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.envs.build import EnvBuildError, build
from promptecho.envs.built import RECORD, left_over, look_at
from promptecho.envs.spec import ENVS, exact_versions, pinned, read_spec, specs_named
from promptecho.errors import DataError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, the only place where pip looks."""
    folder = tmp_path / "an index"
    folder.mkdir()
    for name, value in only_index(folder).items():
        monkeypatch.setenv(name, value)
    wheel(folder, "whole", "1.0", "part")
    wheel(folder, "part")
    return folder


def written(file: Path, *packages: str, more: str = "") -> Path:
    lines = "".join(f"      - {one}\n" for one in packages)
    file.write_text(f"# A comment.\ndependencies:\n  - python={PYTHON}\n  - pip\n{more}  - pip:\n{lines}")
    return file


def imported(environment: Path, module: str) -> str:
    code = f"import sys, {module}; print(sys.prefix, {module}.VERSION)"
    done = subprocess.run([environment / "bin/python", "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_environment_is_whole_or_not_there_and_what_is_current_stays(tmp_path, index):
    file, folder, told = written(tmp_path / "own.yaml", "whole==1.0"), tmp_path / "built here", []
    spec = read_spec(file)
    # Killed in the middle: something lies in its place, and nothing has its name.
    begun = folder / "builds" / f"own-{spec.digest}"
    (begun / "bin").mkdir(parents=True)
    assert look_at(folder, spec).line == (
        f"environment own: is not finished in {folder}; promptecho envs build {file} --into {folder}"
    )
    assert build(spec, folder, None, told.append).state == "current"
    assert imported(folder / "own", "part") == f"{folder}/own 1.0"
    assert any(line.startswith("own: package 1: whole-1.0") for line in told)
    assert any("GB free" in line for line in told[:1]) and "packages, " in told[-1]
    record = (folder / "own" / RECORD).read_text()
    assert "part==1.0" in json.loads(record)["packages"]
    checked = CliRunner().invoke(app, ["envs", "check", str(file), "--folder", str(folder)])
    assert checked.exit_code == 0 and checked.output.startswith("own: current; 2 packages, 0.00 GB, Python ")
    # A comment changes nothing, another package does. The earlier one stays, for those who run with it.
    file.write_text(file.read_text().replace("A comment", "Another one"))
    build(read_spec(file), folder, None, told.append)
    assert "is there and current" in told[-1] and (folder / "own" / RECORD).read_text() == record
    written(file, "part==1.0")
    assert look_at(folder, read_spec(file)).state == "stale"
    assert build(read_spec(file), folder, None, told.append).state == "current"
    assert left_over(folder, [read_spec(file)]) == [begun] and imported(begun, "whole") == f"{begun} 1.0"
    # Back again: nothing is built, the link alone moves.
    written(file, "whole==1.0")
    wheel(index, "whole", "1.0", "absent")
    build(read_spec(file), folder, None, told.append)
    assert (folder / "own").resolve() == begun
    # Its Python is gone, then a record is damaged: the same command builds another one beside it.
    (begun / "bin/python").unlink()
    wheel(index, "whole", "1.0", "part")
    assert "is gone" in look_at(folder, read_spec(file)).problem
    assert build(read_spec(file), folder, None, told.append).state == "current"
    second = (folder / "own").resolve()
    assert second == begun.with_name(f"{begun.name}-2") and (begun / RECORD).is_file()
    (second / RECORD).write_text('{"dig')
    assert "is damaged" in look_at(folder, read_spec(file)).problem
    assert build(read_spec(file), folder, None, told.append).state == "current"
    assert (folder / "own").resolve().name == f"{begun.name}-3" and second.is_dir()
    assert {begun, second} < set(left_over(folder, [read_spec(file)]))


def test_what_fails_names_the_environment_and_the_package_and_leaves_no_name(tmp_path, index, monkeypatch):
    folder = tmp_path / "built"
    file = written(tmp_path / "own.yaml", "whole==1.0", "nowhere==2.0")
    with pytest.raises(EnvBuildError) as told:
        build(read_spec(file), folder, None, lambda line: None)
    (line,) = str(told.value).splitlines()
    assert line.startswith(
        "environment own: nowhere==2.0: No matching distribution found for nowhere==2.0; all that pip"
    )
    assert "nowhere" in Path(line.rpartition(" is in ")[2]).read_text() and not (folder / "own").exists()
    with pytest.raises(EnvBuildError, match=r"python0\.1 not found; install Python 0\.1, or name it: --python PATH"):
        build(read_spec(rewritten(file, f"python={PYTHON}", "python=0.1")), folder, None, lambda line: None)
    with pytest.raises(EnvBuildError, match=rf"is Python {PYTHON}, and own\.yaml says 0\.1"):
        build(read_spec(file), folder, sys.executable, lambda line: None)
    (folder / "own").mkdir()
    with pytest.raises(DataError, match="is not one of this command's environments"):
        build(read_spec(file), folder, None, lambda line: None)


def test_exact_takes_the_files_of_the_lock_and_no_others(tmp_path, index):
    file = written(tmp_path / "own.yaml", "part==1.0")
    with pytest.raises(DataError, match=r"own\.linux-64\.lock\.txt is not there"):
        build(read_spec(file), tmp_path / "built", None, lambda line: None, exact=True)
    checked = CliRunner().invoke(app, ["envs", "check", str(file), "--exact", "--folder", str(tmp_path / "built")])
    told_of = f"environment own: {tmp_path}/own.linux-64.lock.txt is not there; leave --exact out for this one"
    assert checked.exit_code == 1 and checked.output.startswith(told_of)
    digest = hashlib.sha256((index / "part-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    lock = tmp_path / "own.linux-64.lock.txt"
    lock.write_text(f"part==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(EnvBuildError, match=r"^environment own: part==1\.0: THESE PACKAGES DO NOT MATCH THE HASHES"):
        build(read_spec(file), tmp_path / "built", None, lambda line: None, exact=True)
    # One that was built without the lock does not pass for one of its files; one of its files passes for both.
    plain_one = build(read_spec(file), tmp_path / "built", None, lambda line: None)
    lock.write_text(f"part==1.0 \\\n    --hash=sha256:{digest}\n")
    told: list[str] = []
    done = build(read_spec(file), tmp_path / "built", None, told.append, exact=True)
    assert done.state == "current" and plain_one.record["exact"] is None and len(told) > 2
    assert done.record["exact"] == read_spec(file).lock_digest
    assert plain_one.record["packages"] == done.record["packages"]
    lock.write_text(f"# A comment.\n{lock.read_text()}")
    for exact in (True, False):
        build(read_spec(file), tmp_path / "built", None, told.append, exact)
        assert "is there and current" in told[-1]
    # `check --exact` looks inside: what somebody has installed there since is told, and how to mend it.
    check = ["envs", "check", str(file), "--exact", "--folder", str(tmp_path / "built")]
    assert CliRunner().invoke(app, check).exit_code == 0
    place = (tmp_path / "built/own").resolve()
    (packages,) = place.glob("lib/python3*/site-packages")
    (packages / "part-1.0.dist-info").rename(packages / "part-1.5.dist-info")
    metadata = packages / "part-1.5.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.5"))
    told_of = CliRunner().invoke(app, check)
    assert told_of.exit_code == 1 and told_of.output == (
        f"environment own: {tmp_path}/built/own was changed after it was built: part==1.5 came, part==1.0 went; move "
        f"{place} away when no job uses it, then promptecho envs build {file} --exact --into {tmp_path}/built\n"
    )
    # Another lock is another environment, and a lock of other versions than the file's is refused.
    lock.write_text(f"part==1.0 \\\n    --hash=sha256:{digest} --hash=sha256:{'0' * 64}\n")
    assert look_at(tmp_path / "built", read_spec(file), exact=True).state == "stale"
    written(file, "part==2.0", "nowhere")
    with pytest.raises(
        DataError, match=r"does not go with own\.yaml: part 1\.0 instead of 2\.0, no nowhere; write the"
    ):
        build(read_spec(file), tmp_path / "built", None, lambda line: None, exact=True)


@pytest.mark.parametrize("file", sorted(ENVS.glob("*.lock.txt")), ids=lambda file: file.stem)
def test_lock_files_hold_every_pin_and_the_versions_of_the_constraints(file):
    spec = read_spec(ENVS / f"{file.name.partition('.')[0]}.yaml")
    locked = {plain(one) for one in exact_versions(file.read_text())}
    assert {plain(one) for one in spec.packages} <= locked <= {plain(one) for one in spec.constraints}
    assert file.read_text().count("--hash=sha256:") == file.read_text().count("==")


def plain(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() + "==" + pin.partition("==")[2]


def rewritten(file: Path, old: str, new: str) -> Path:
    file.write_text(file.read_text().replace(old, new))
    return file


def test_files_that_no_virtual_environment_can_hold_are_refused(tmp_path):
    with pytest.raises(DataError, match="dependencies: ffmpeg: is a package of conda"):
        read_spec(written(tmp_path / "own.yaml", "part", more="  - ffmpeg\n"))
    with pytest.raises(DataError, match="score is the name of one of this project's environments"):
        read_spec(written(tmp_path / "score.yaml", "part"))
    (tmp_path / "none.yaml").write_text("dependencies:\n  - pip\n")
    with pytest.raises(DataError, match="names no Python"):
        read_spec(tmp_path / "none.yaml")


def test_every_environment_of_the_project_can_be_read_and_is_constrained():
    names = [spec.name for spec in specs_named(None)]
    assert {"caption", "train", "generate", "score", "tables"} <= set(names) and not {"mplug", "workflow"} & set(names)
    for spec in specs_named(sorted(file.stem for file in ENVS.glob("*.yaml"))):
        assert spec.python == "3.11" and set(pinned(spec.file)) == {one.partition("==")[0] for one in spec.packages}
        assert spec.name == "mplug" or "typing_extensions" in {one.partition("==")[0] for one in spec.constraints}


def test_what_a_build_of_torch_brings_is_its_own_matter():
    text = "# told\na==1.0 \\\n    --hash=sha256:00\nnvidia-cublas==13.0\ntriton==3.7.1 --hash=sha256:1\nb==2\n"
    assert exact_versions(text) == ("a==1.0", "b==2")


def test_the_command_says_which_folder_it_wants_and_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "own.yaml", "part==1.0")
    told = CliRunner().invoke(app, ["envs", "check", str(file)])
    assert "which folder? give --folder, or set envs in config/config.yaml" in str(told.exception)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("experiments: [tiny]\nenvs: built\n")
    told = CliRunner().invoke(app, ["envs", "check", str(file)])
    assert told.exit_code == 1
    assert told.output == f"environment own: is not in built; promptecho envs build {file} --into built\n"
