"""Jobs run in the environment of their stage, where the site names a folder of environments."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from workflow_copy import ROOT, Workflow

sys.path.insert(0, str(ROOT / "tests/unit"))

import conda_stand_in  # noqa: E402
from own_wheels import borrow_packages  # noqa: E402

from promptecho.envs import spec as specs
from promptecho.envs.built import BUILDS, RECORD, build_folder
from promptecho.files import write_json

PROMPTS = "results/tiny/prompts/geneval/metadata.jsonl"


def small_environment(folder: Path, spec: specs.EnvSpec, used: Path) -> Path:
    """As `promptecho envs build` leaves it, but with this Python's packages, so that nothing is downloaded. Whatever
    runs in it writes its own prefix to `used`."""
    place = build_folder(folder, spec)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    borrow_packages(place, used)
    write_json(place / RECORD, {"name": spec.name, "digest": spec.digest, "packages": [], "bytes": 0, "python": ""})
    (folder / spec.name).symlink_to(Path(BUILDS) / place.name)
    return place


@pytest.fixture
def spec(workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> specs.EnvSpec:
    """The environment of scores, as the copy has it."""
    monkeypatch.setattr(specs, "ENVS", workflow.root / "envs")
    return specs.read_spec(workflow.root / "envs/score.yaml")


def test_a_job_runs_in_the_environment_of_its_stage_and_is_the_same_job(workflow, spec):
    folder = workflow.root / "built here"
    (workflow.root / "config/config.yaml").write_text("experiments: [tiny]\nenvs: built here\n")
    done = workflow.snakemake("--", PROMPTS)
    assert done.returncode != 0 and "environments are missing; nothing was started:" in done.stdout
    assert f"environment score: is not in {folder}; promptecho envs build score --into {folder}" in done.stdout
    used = workflow.root / "used.txt"
    place = small_environment(folder, spec, used)
    done = workflow.snakemake("--", PROMPTS)
    assert done.returncode == 0, done.stdout
    assert set(used.read_text().splitlines()) == {str(place)}  # not the link, which may come to lead to a newer one
    (workflow.root / "config/config.yaml").write_text("experiments: [tiny]\n")
    assert workflow.planned("--", PROMPTS) == {}
    # An environment file that was edited since is noticed before anything runs.
    workflow.edit("envs/score.yaml", "tenacity==9.1.4", "tenacity==9.1.3")
    done = workflow.snakemake("--forcerun", "benchmark_prompts", "--config", f"envs={folder}", "--", PROMPTS)
    assert done.returncode != 0 and "was built from another version of score.yaml" in done.stdout


def test_a_job_whose_environment_its_node_cannot_run_ends_and_says_so(workflow, spec):
    """A job that was submitted looks at no environments when it starts: only its command can."""
    folder = workflow.root / "it's here"
    place = small_environment(folder, spec, workflow.root / "used.txt")
    (place / "bin/python").unlink()
    workflow.edit("workflow/rules/common_envs.smk", "    return [one.line", "    return [] and [one.line")
    done = workflow.snakemake("--config", f"envs={folder}", "--", PROMPTS)
    assert done.returncode != 0
    assert f"environment score: {place}/bin/python can't be run on {os.uname().nodename}; every node" in done.stdout
    assert not (workflow.root / PROMPTS).exists()


def test_conda_makes_the_environments_of_the_jobs_and_they_run_there(workflow, monkeypatch):
    """By a stand-in for conda, which knows one channel: the packages of this Python."""
    used = workflow.root / "used.txt"
    monkeypatch.setenv("PATH", f"{conda_stand_in.install(workflow.root / 'conda', used)}:{os.environ['PATH']}")
    done = workflow.snakemake("--sdm", "conda", "--", PROMPTS)
    assert done.returncode == 0 and done.stdout.count("Creating conda environment") == 1, done.stdout
    (place,) = [path for path in (workflow.root / ".snakemake/conda").iterdir() if path.is_dir()]
    assert set(used.read_text().splitlines()) == {str(place)}
    assert workflow.planned("--", PROMPTS) == {}  # without conda it is the same job
    workflow.edit("envs/score.yaml", "tenacity==9.1.4", "tenacity==0.0.1")
    done = workflow.snakemake("--sdm", "conda", "--forcerun", "benchmark_prompts", "--", PROMPTS)
    assert done.returncode != 0 and "tenacity==0.0.1 is not in the channel" in done.stdout


def test_a_job_in_an_image_uses_the_python_of_the_image(workflow, monkeypatch):
    """By a stand-in for Apptainer: its image is a folder with a Python, which comes first on PATH."""
    image, used = workflow.root / "image", workflow.root / "used.txt"
    scripts = {
        "apptainer": f'[ "$1" = --version ] && echo apptainer version 1.3.0 && exit\n'
        f'while [ "$1" != {image} ]; do shift; done\nexport APPTAINER_CONTAINER="$1" PATH="$1:$PATH"; shift; exec "$@"',
        "image/python": f'echo "$0" >> {used}; exec {sys.executable} "$@"',
    }
    for name, text in scripts.items():
        (workflow.root / name).parent.mkdir(exist_ok=True)
        (workflow.root / name).write_text(f"#!/bin/bash\n{text}\n")
        (workflow.root / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{workflow.root}:{os.environ['PATH']}")
    include = 'include: "rules/common.smk"'
    workflow.edit("workflow/Snakefile", include, f'container: "{image}"\n\n\n{include}')
    done = workflow.snakemake("--sdm", "apptainer", "--", PROMPTS)
    assert done.returncode == 0 and used.read_text().splitlines() == [f"{image}/python"], done.stdout


@pytest.mark.parametrize("method", ["conda", "apptainer"])
def test_one_kind_of_environment_at_a_time(workflow, method):
    done = workflow.snakemake("-n", "--sdm", method, "--config", "envs=built", "--", PROMPTS)
    assert done.returncode != 0 and "both say which environments the jobs use" in done.stdout


def test_every_rule_enters_the_environment_that_it_names_for_conda():
    rules = [
        text
        for file in sorted((ROOT / "workflow/rules").glob("*.smk"))
        for text in re.split(r"^rule ", file.read_text(), flags=re.MULTILINE)[1:]
        if "    shell:\n" in text
    ]
    assert len(rules) > 15
    for text in rules:
        (conda,) = re.findall(r"    conda:\n +(.+)\n", text)
        (venv,) = re.findall(r"^        venv=(.+),$", text, re.MULTILINE)
        own = re.fullmatch(r'"\.\./\.\./envs/(\w+)\.yaml"', conda)
        assert venv == (f'venv("{own[1]}")' if own else conda.replace("environment", "venv")), text
        assert re.search(r'    shell:\n +"\{params\.venv\}', text), text
