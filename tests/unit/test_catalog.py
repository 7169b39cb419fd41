"""What Snakemake's catalog of workflows wants of a repository, as far as a checkout can show it.

Its conditions: https://github.com/snakemake/snakemake-workflow-catalog, "Standardized usage workflows". It also runs
`snakemake --lint`, as `make lint` does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_repository_is_one_of_standardised_usage():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in readme and "workflow" in readme
    assert (ROOT / "workflow/Snakefile").is_file()
    assert len([*(ROOT / "workflow/rules").glob("*.smk")]) == len([*(ROOT / "workflow/rules").iterdir()])
    assert (ROOT / "config/README.md").stat().st_size > 1000 and (ROOT / "config/config.yaml").is_file()
    assert (ROOT / "LICENSE").is_file()


def test_its_entry_says_how_it_is_used():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert set(deployment) == {"conda", "apptainer", "apptainer+conda", "report"}
    assert deployment["report"] is usage["report"] is True
    assert not any(deployment[name] for name in ("conda", "apptainer", "apptainer+conda"))  # docs/module.md says why


def test_files_of_the_workflow_are_formatted_as_the_catalog_checks_them():
    files = [ROOT / "workflow/Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk"))]
    command = [sys.executable, "-m", "snakefmt", "--check", "-v", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
