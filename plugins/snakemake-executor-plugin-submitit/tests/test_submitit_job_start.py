"""The quick start of the Snakemake in a job: what stays out, what the workflow's own code gets, and the way back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit import job_start, starting

PLAIN, QUICK = ["-m", "snakemake"], [job_start.__file__]
ARGUMENTS = [
    "--cores", "1", "--force", "--nolock", "--no-hooks", "--mode", "remote", "--scheduler", "greedy",
    "--ignore-incomplete", "--force-use-threads", "--target-files-omit-workdir-adjustment", "--target-jobs", "made:",
    "--allowed-rules", "made",
]  # fmt: skip
SNAKEFILE = """\
import json, os, sys
configfile: "config.yaml"
rule made:
    output: "made.json"
    run:
        from snakemake.persistence import MetadataRecord
        record = MetadataRecord(rule="r", params=["a"], ignored=1)
        read = MetadataRecord.model_validate({"rule": "s", "input": ["b"], "starttime": 1.5, "unknown": 2})
        json.dump({
            "modules": sorted(sys.modules), "path": sys.path[0], "argv": sys.argv[0], "config": config,
            "records": [dict(record.items()), dict(read.items())],
        }, open(output[0], "w"))
"""
# Uses all that stays out.
OWN_CODE = """\
rule made:
    output: "made.json"
    run:
        import jinja2, numpy, pulp, requests, smart_open, sqlalchemy, sqlmodel
        import snakemake.report
        from snakemake.report import html_reporter
        from smart_open import http
        from yte import value_handler
        assert sqlmodel.SQLModel.metadata.tables == {} and str(sqlalchemy.Column("c", sqlalchemy.JSON)) == "c"
        assert pulp.LpProblem("p").name == "p"
        assert http.requests.Session is requests.Session
        assert html_reporter.Environment(autoescape=True).from_string("{{ x }}").render(x=2) == "2"
        assert snakemake.report.html_reporter is html_reporter and snakemake.report.Category("a")
        handled = value_handler.ValueHandler().postprocess([numpy.arange(2), numpy.str_("a"), "b"])
        assert handled == [[0, 1], "a", "b"] and type(handled[1]) is str
        open(output[0], "w").close()
"""


def run(folder: Path, how: list[str], snakefile: str = SNAKEFILE, *more: str) -> str:
    (folder / "Snakefile").write_text(snakefile)
    (folder / "config.yaml").write_text("a: 1\n")
    environment = {**os.environ, "HOME": str(folder)}
    command = [sys.executable, *how, *ARGUMENTS, *more]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_what_a_job_does_not_use_stays_out_and_all_else_is_the_same(tmp_path):
    found = []
    for how in (PLAIN, QUICK):
        run(tmp_path, how)
        found.append(json.loads((tmp_path / "made.json").read_text()))
    plain, quick = (set(one.pop("modules")) for one in found)
    assert found[0] == found[1]  # with the place of modules and the program's name
    kept_out = {name for modules in job_start.KEPT_OUT.values() for name in modules} | {"snakemake.report", "docutils"}
    assert not kept_out & quick
    assert kept_out - plain <= {"numpy"}  # which not everybody has; of all else plain Snakemake imports each


def test_the_workflow_s_own_code_gets_the_libraries_themselves(tmp_path):
    pytest.importorskip("numpy")
    run(tmp_path, QUICK, OWN_CODE)
    assert (tmp_path / "made.json").exists()


def test_metadata_in_a_database_needs_the_plain_start(tmp_path):
    """As where an environment variable names a profile that asks for it."""
    run(tmp_path, QUICK, SNAKEFILE, "--persistence-backend", "db")
    assert "sqlalchemy" in json.loads((tmp_path / "made.json").read_text())["modules"]
    assert list(tmp_path.glob(".snakemake/**/*.db"))


def test_a_snakemake_that_submits_jobs_itself_begins_plainly(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(job_start.os, "execv", lambda *words: called.append(words))
    monkeypatch.setattr(sys, "argv", ["job_start.py", "--executor", "submitit"])
    job_start.submitter("any").Executor(None, None)
    assert called == [(sys.executable, [sys.executable, "-m", "snakemake", "--executor", "submitit"])]


def test_another_snakemake_begins_plainly(tmp_path):
    """One in which nothing is where it was."""
    package = tmp_path / "snakemake"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import sys; print('plain', sys.argv[1:])")
    done = subprocess.run([sys.executable, *QUICK, "-n"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "plain ['-n']\n", done.stderr


def test_a_job_starts_with_the_file_it_was_submitted_with(tmp_path):
    folder = tmp_path / "it's a log folder"
    folder.mkdir()
    command = starting.quickly("cd x && py -m snakemake --snakefile S --cores 1", "py", folder)
    [copy] = folder.iterdir()
    assert copy.read_bytes() == Path(job_start.__file__).read_bytes() and copy.stat().st_mode & 0o077 == 0
    shell = subprocess.run(
        ["bash", "-c", f'py() {{ printf "%s|" "$@"; }}; {command[8:]}'], capture_output=True, text=True
    )
    assert shell.stdout == f"{copy}|--snakefile|S|--cores|1|"
    assert starting.quickly("py -m other", "py", folder) == "py -m other"
