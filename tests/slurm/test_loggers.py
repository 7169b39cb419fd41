"""Plugins for Snakemake's `--logger` hear of all that happens to jobs, and when a job stops waiting and runs."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path

import pytest
from flow import Flow

# `make test-slurm` puts them there, beside the other packages.
PLUGINS = Path(sys.prefix) / "logger-plugins"
# Two nodes of eight processors each run two of the four at a time; the last one fails.
PARTS = """
    rule all:
        input: expand("out/{k}", k=range(4))
    rule part:
        output: "out/{k}"
        threads: 8
        resources: runtime=5, mem_mb=100
        shell: "test {wildcards.k} != 3 && touch {output}"
"""


@pytest.fixture(scope="module")
def logged(cluster, tmp_path_factory) -> Flow:
    """A workflow that has run once, with both plugins."""
    if not (PLUGINS / "snakemake_logger_plugin_snkmt").is_dir():
        pytest.skip(f"NO LOGGER PLUGINS: {PLUGINS} is missing; `make test-slurm` brings it where pip has an index")
    flow = Flow(tmp_path_factory.mktemp("logged"), cluster, PARTS, prefix="log")
    flow.environment["PYTHONPATH"] = os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")])
    code, text = flow.run("--logger", "snakesee", "snkmt", "--logger-snkmt-db", str(flow.folder / "snkmt.db"))
    assert code == 1 and "3 of 5 steps" in text, text
    return flow


def test_every_event_of_every_job_is_heard(logged):
    events = [json.loads(line) for line in logged.lines(".snakesee_events.jsonl")]
    by_job: dict[int, list[str]] = {}
    for event in events:
        if "job_id" in event:
            by_job.setdefault(event["job_id"], []).append(event["event_type"])
    # Chosen (which Snakemake calls started), handed to Slurm, begun there, ended.
    begun = ["job_started", "job_submitted", "job_started"]
    assert sorted(by_job.values()) == [[*begun, "job_error"], *[[*begun, "job_finished"]] * 3]
    assert [event["completed_jobs"] for event in events if event["event_type"] == "progress"] == [1, 2, 3]


def test_waiting_is_told_from_running(logged):
    events = [json.loads(line) for line in logged.lines(".snakesee_events.jsonl")]
    last_start = {event["job_id"]: n for n, event in enumerate(events) if event["event_type"] == "job_started"}
    submitted = [n for n, event in enumerate(events) if event["event_type"] == "job_submitted"]
    ends = [n for n, event in enumerate(events) if event["event_type"] in ("job_finished", "job_error")]
    # All are submitted before any begins; the third begins when one has ended, the fourth when two have.
    assert max(submitted) < min(last_start.values())
    *_, third, fourth = sorted(sum(end < start for end in ends) for start in last_start.values())
    assert third >= 1 and fourth >= 2
    for event in events:
        if event["event_type"] in ("job_finished", "job_error"):
            began = events[last_start[event["job_id"]]]["timestamp"]
            assert event["duration"] == pytest.approx(event["timestamp"] - began)


def test_a_data_base_of_jobs_is_whole(logged):
    base = sqlite3.connect(logged.folder / "snkmt.db")
    assert base.execute("select status, total_job_count, jobs_finished from workflows").fetchall() == [("ERROR", 5, 3)]
    jobs = base.execute("select wildcards, status, started_at, end_time from jobs order by wildcards").fetchall()
    assert [json.loads(wildcards)["k"] for wildcards, *_ in jobs] == ["0", "1", "2", "3"]
    assert [status for _, status, *_ in jobs] == ["SUCCESS"] * 3 + ["ERROR"]
    starts, ends = sorted(start for *_, start, _ in jobs), sorted(end for *_, end in jobs)
    assert starts[2] >= ends[0]  # not when they were submitted
