"""Pins agree with each other: pyproject.toml, constraints.txt, envs/*.yaml."""

from __future__ import annotations

import importlib.metadata
import re
import site
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from promptecho.config.tracker_kinds import tracker_kind

ROOT = Path(__file__).resolve().parent.parent.parent
PLUGIN = ROOT / "plugins/snakemake-executor-plugin-submitit"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OPTIONAL = {"heic"}  # installed by those who want it; nothing is tested with other versions of it
STAGES = sorted(set(EXTRAS) - {"all", "test", "docs"} - OPTIONAL)
FROM_CHECKOUT = ("promptecho", "snakemake-executor-plugin-submitit")
APART = {"mplug"}  # needs packages that the others do not work with, so that it is no extra


def tracker_pins() -> dict[str, str]:
    """What envs/wandb.txt and envs/trackio.txt list; a package that both list must have one version."""
    files = [(ROOT / f"envs/{name}.txt").read_text().splitlines() for name in ("wandb", "trackio")]
    lines = {line for file in files for line in file if not line.startswith("#")}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^+;\s]+", line) for line in lines)
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    return pins


def test_trackers_take_the_versions_of_the_other_packages():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    constraints = dict(line.lower().split("==") for line in lines)
    pins = tracker_pins()
    assert {name: constraints.get(name, version) for name, version in pins.items()} == pins
    extra = next(pin for pin in EXTRAS["train"] if pin.startswith("tensorboard=="))
    assert tracker_kind("tensorboard").install.endswith(extra)


def test_every_pin_is_exact_and_in_the_constraints():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^+;\s]+", line) for line in lines)
    constraints = {line.lower() for line in lines}
    pinned = [*PROJECT["dependencies"], *(pin for name in [*STAGES, "test", "docs"] for pin in EXTRAS[name])]
    assert {pin.lower() for pin in pinned} <= constraints


def test_every_installed_package_is_pinned_and_every_pin_installed():
    """As `pip freeze` lists them, less what the virtual environment and a CUDA build of torch bring by themselves."""

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    installed = {
        plain(one.metadata["Name"]): one.version.partition("+")[0]
        for one in importlib.metadata.distributions(path=site.getsitepackages())
    }
    brought = {name for name in installed if name.startswith(("nvidia-", "cuda-", "triton"))}
    installed = {name: installed[name] for name in set(installed) - brought - {"pip", *FROM_CHECKOUT}}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {plain(name): version for name, _, version in (line.partition("==") for line in lines)}
    wanted = dict(pin.split("==") for name in OPTIONAL for pin in EXTRAS[name])
    wanted |= {plain(name): version for name, version in tracker_pins().items()}
    pinned |= {name: version for name, version in wanted.items() if name in installed}
    assert sorted(installed.items()) == sorted(pinned.items())


def test_all_holds_every_stage():
    (everything,) = EXTRAS["all"]
    assert sorted(re.fullmatch(r"promptecho\[(.*)\]", everything).group(1).split(",")) == STAGES


def test_the_executor_is_tried_with_versions_within_its_ranges():
    """Its ranges are wide; what is installed beside it here is one version of each."""
    executor = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for requirement in map(Requirement, executor["dependencies"]):
        assert requirement.specifier.contains(pinned[requirement.name]), f"{requirement}: {pinned[requirement.name]}"


@pytest.mark.parametrize("stage", STAGES)
def test_environment_equals_extra(stage):
    environment = yaml.safe_load((ROOT / f"envs/{stage}.yaml").read_text())
    pins = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pins == sorted({*PROJECT["dependencies"], *EXTRAS[stage]})


def test_every_stage_has_an_environment():
    assert sorted(path.stem for path in (ROOT / "envs").glob("*.yaml")) == sorted({*STAGES, *APART})


@pytest.mark.parametrize("name", sorted(APART))
def test_environments_apart_have_our_own_pins_too(name):
    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    pins = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert all("==" in pin for pin in pins) and set(PROJECT["dependencies"]) <= set(pins) and pins == sorted(pins)


def installed_package(folder: Path, name: str, recorded: dict[str, int]) -> Path:
    """Lay down a package as pip does; `recorded` maps its files to the sizes that its record states."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("x = 1\n")
    lines = [f"{name}/{file},,{size}" for file, size in recorded.items()]
    (metadata / "RECORD").write_text("\n".join([*lines, f"{metadata.name}/METADATA,,", f"{metadata.name}/RECORD,,"]))
    return metadata


def test_packages_installed_halfway_are_found(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    (folder,) = tmp_path.glob("lib/python3*/site-packages")
    whole = installed_package(folder, "whole", {"__init__.py": 6})
    broken = [
        installed_package(folder, "cut", {"__init__.py": 60}),
        installed_package(folder, "missing", {"__init__.py": 6, "more.py": 6}),
        installed_package(folder, "unrecorded", {}),
    ]
    (broken[-1] / "RECORD").unlink()
    script = [tmp_path / "bin/python", ROOT / "scripts/mend_venv.py"]
    result = subprocess.run(script, capture_output=True, text=True, check=True)
    assert whole.is_dir()
    assert not any(path.exists() for path in broken)
    assert result.stdout.count("was installed halfway") == 3
    assert subprocess.run(script, capture_output=True, text=True, check=True).stdout == ""


def test_benchmarks_are_known_and_their_tables_made_without_what_only_some_scorers_compute_with():
    """Every stage's environment reads all descriptors; edit distances are computed in those of the scorers alone."""
    code = (
        "import sys; sys.modules['rapidfuzz'] = None\n"
        "import promptecho.figures.curves, promptecho.figures.samples, promptecho.tables.kinds\n"
        "from promptecho.config.benchmarks import BENCHMARKS, benchmark_named\n"
        "from promptecho.plugins import import_object\n"
        "for name in BENCHMARKS.built_in:\n"
        "    for spec in benchmark_named(name).parts.values():\n"
        "        import_object(spec, name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    computing = {"score", "judge", "detect", "ocr"}
    assert {stage for stage in STAGES if any(pin.startswith("rapidfuzz==") for pin in EXTRAS[stage])} == computing


def test_no_two_files_of_tests_have_one_name():
    """pytest imports them by name alone, and would leave out the second one of a run."""
    files = [path.name for folder in ("tests", "plugins") for path in (ROOT / folder).rglob("*.py")]
    twice = {name for name in files if files.count(name) > 1 and name.startswith("test_")}
    assert not twice
