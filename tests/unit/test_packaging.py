"""Pins agree with each other: pyproject.toml, constraints.txt, envs/*.yaml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
STAGES = sorted(set(EXTRAS) - {"all", "test"})


def test_every_pin_is_exact_and_in_the_constraints():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^+;\s]+", line) for line in lines)
    constraints = {line.lower() for line in lines}
    pinned = [*PROJECT["dependencies"], *(pin for name, pins in EXTRAS.items() if name != "all" for pin in pins)]
    assert {pin.lower() for pin in pinned} <= constraints


def test_all_holds_every_stage():
    (everything,) = EXTRAS["all"]
    assert sorted(re.fullmatch(r"promptecho\[(.*)\]", everything).group(1).split(",")) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_environment_equals_extra(stage):
    environment = yaml.safe_load((ROOT / f"envs/{stage}.yaml").read_text())
    pins = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pins == sorted({*PROJECT["dependencies"], *EXTRAS[stage]})


def test_every_stage_has_an_environment():
    assert sorted(path.stem for path in (ROOT / "envs").glob("*.yaml")) == STAGES
