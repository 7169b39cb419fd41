"""The workflow as a module, from another folder, and with a Python that has its packages but not promptecho."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
from workflow_copy import EXPERIMENT, ROOT, Workflow, copy_checkout

EXECUTOR = "plugins/snakemake-executor-plugin-submitit"

MODULE = """
configfile: "config/config.yaml"

module promptecho:
    snakefile: {snakefile!r}
    config: config["promptecho"]
    prefix: "pe"

use rule * from promptecho as pe_*

rule mine:
    input: "pe/results/tiny/captions/images"
    output: "number.txt"
    shell: "ls {{input:q}} | grep -c png > {{output}}"
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Workflow:
    """In a folder whose name shells trip over; braces in it are more than Snakemake's own `conda:` takes."""
    folder = tmp_path_factory.mktemp("there") / "it's a checkout é"
    folder.mkdir()
    shutil.copytree(ROOT / EXECUTOR, folder / EXECUTOR)
    return copy_checkout(folder)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A Python with all packages that this one has, but not promptecho: its `.pth` file is read in no other place."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (target,) = folder.glob("lib/python3*/site-packages")
    (target / "others.pth").write_text("\n".join(site.getsitepackages()))
    words = [folder / "bin/python", "-P", "-c", "import promptecho"]
    without = subprocess.run(words, env=environment(), capture_output=True, check=False)
    assert b"No module named 'promptecho'" in without.stderr
    return folder / "bin/python"


def environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | more


def snakemake(python: Path | str, folder: Path, *words: str, **variables: str) -> str:
    """Output of Snakemake in `folder`."""
    command = [str(python), "-m", "snakemake", "--cores", "1", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment(**variables), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def own_folder(folder: Path, config: str) -> Path:
    """A folder with a configuration of its own, and nothing else of the checkout."""
    (folder / "config/experiments").mkdir(parents=True)
    (folder / "config/config.yaml").write_text(config)
    (folder / "config/experiments/tiny.yaml").write_text(EXPERIMENT)
    return folder


@pytest.fixture
def user(tmp_path, checkout) -> Path:
    """Another workflow, which takes this one as a module: other names of rules, another place of results."""
    folder = own_folder(tmp_path / "mine", "promptecho: {experiments: [tiny]}\nmy_own: 1\n")
    (folder / "Snakefile").write_text(MODULE.format(snakefile=str(checkout.root / "workflow/Snakefile")))
    return folder


def test_a_module_runs_without_installation(user, python, checkout):
    snakemake(python, user, "--", "mine")
    assert (user / "number.txt").read_text() == "40\n"
    assert sorted(path.name for path in user.iterdir() if path.name[0] != ".") == [
        "Snakefile", "config", "number.txt", "pe",
    ]  # fmt: skip
    # Everything of it is below its prefix; more processes are set by the name that the rule has here.
    words = ["-n", "-p", "--set-resources", "pe_train:tasks_per_node=2", "--", "pe_all"]
    text = snakemake(python, user, *words)
    assert re.search(r"^pe_generate_shard +6$", text, re.MULTILINE)
    commands = [line for line in text.splitlines() if "python -m promptecho" in line]
    assert len(commands) == 20 and not [line for line in commands if " results/" in line]
    assert len([line for line in commands if "workflow/scripts/ranks.sh" in line and " 1 2 " in line]) == 2


def test_a_module_s_queued_jobs_read_the_configuration_they_were_made_for(user, python):
    """The other workflow passes on a part of its configuration only, in which Snakemake's `--config` is not."""
    snakemake(python, user, "-n", "--", "pe_all")
    (resolved,) = (user / "pe/results/tiny/config").glob("*.yaml")
    file = user / "config/experiments/tiny.yaml"
    file.write_text(file.read_text().replace("heldout: 8", "heldout: 9"))
    path = f"pe/results/tiny/config/{resolved.name}"
    remote = ["--mode", "remote", "--nolock", "-n", "-p", "--config", f"resolved_configs={{'pe/tiny': '{path}'}}"]
    text = snakemake(python, user, *remote, "--", "pe/results/tiny/captions/captions.h5")
    assert text.count(f"--config {path}") >= 2
    assert list((user / "pe/results/tiny/config").glob("*.yaml")) == [resolved]


def test_from_another_folder_also_with_the_executor(tmp_path, python, checkout):
    folder = own_folder(tmp_path / "mine", "experiments: [tiny]\n")
    words = ["-s", str(checkout.root / "Snakefile"), "--profile", str(checkout.root / "profiles/slurm"), "-n"]
    # Without an installation Snakemake finds the executor on Python's path.
    text = snakemake(python, folder, *words, "--submitit-skip-checks", PYTHONPATH=str(checkout.root / EXECUTOR))
    assert "caption_shard" in text and "tiny: train echo-s1 to iteration 4" in text
    assert [path.name for path in (folder / "results").iterdir()] == ["tiny"]


def test_a_checkout_with_braces_in_its_path_is_refused_in_one_line(tmp_path):
    root = tmp_path / "checkout {x}"
    for name in ("config", "workflow"):
        shutil.copytree(ROOT / name, root / name)
    command = [sys.executable, "-m", "snakemake", "--dry-run"]
    done = subprocess.run(command, cwd=root, env=environment(), text=True, capture_output=True, check=False)
    assert done.returncode == 1
    said = f"{root}: Snakemake reads braces in the path of a workflow as wildcards; rename that folder, or move the"
    assert said in done.stdout, done.stdout + done.stderr


def test_a_module_read_from_a_repository_needs_the_package(tmp_path, python, checkout):
    repository = tmp_path / "repository"
    for name in ("workflow", "envs"):
        shutil.copytree(checkout.root / name, repository / name)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], cwd=repository, check=True)
    folder = own_folder(tmp_path / "mine", "promptecho: {experiments: [tiny]}\n")
    uri = f"git+file://{repository}/workflow/Snakefile@main"
    (folder / "Snakefile").write_text(MODULE.format(snakefile=uri))
    cache = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    text = snakemake(sys.executable, folder, "--", "mine", PYTHONPATH=str(checkout.root), **cache)
    assert (folder / "number.txt").read_text() == "40\n", text
    with pytest.raises(AssertionError, match="the package promptecho, which is not installed here"):
        snakemake(python, folder, "-n", "--", "pe_all", **cache)
