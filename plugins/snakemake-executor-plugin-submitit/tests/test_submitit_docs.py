"""README and docs tell what there is: every setting with its default, every resource, the versions that were tried."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from both_ends import lower_bounds

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.resources import KNOWN

CLUSTER = "clusters"  # of which only the cluster's own name is taken
PACKAGE = Path(__file__).resolve().parent.parent


def section(page: str, title: str) -> str:
    return (PACKAGE / page).read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def named(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_setting_is_told_with_its_default():
    rows = [line.split("|") for line in section("README.md", "Settings").splitlines() if line.startswith("| `--")]
    told = {row[1].strip(): named(row[2])[0] for row in rows}
    there = {
        f"`--submitit-{field.name.replace('_', '-')}`": str(field.default)
        for field in dataclasses.fields(ExecutorSettings)
    }
    assert told == there


def test_every_resource_is_told():
    lines = section("README.md", "Resources").splitlines()
    listed = [name for line in lines if line.startswith("|") for name in named(line.split("|")[2])]
    assert sorted(listed) == sorted([*KNOWN, CLUSTER])
    rows = [line.split("|")[1] for line in (PACKAGE / "docs/further.md").read_text().splitlines() if line[:3] == "| `"]
    assert {*KNOWN, CLUSTER} <= {name for row in rows for name in named(row)}


def test_the_lowest_versions_that_were_tried_are_the_lower_bounds():
    rows = [line.split("|") for line in section("README.md", "Tested versions").splitlines() if line.startswith("| ")]
    tried = {row[1].strip(): row[2].strip() for row in rows if row[1].strip()}
    assert {name: version for name, version in tried.items() if name in lower_bounds()} == lower_bounds()
