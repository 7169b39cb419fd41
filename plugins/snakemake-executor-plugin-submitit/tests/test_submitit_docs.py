"""README and docs tell what there is: every setting with its default, every resource."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

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
