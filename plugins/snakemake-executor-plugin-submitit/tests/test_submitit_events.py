"""What log handlers are told of a Slurm job's state, in the form that snakesee's reads."""

from __future__ import annotations

import logging

from snakemake.logging import LogEvent

from snakemake_executor_plugin_submitit import events
from snakemake_executor_plugin_submitit.ledger import Entry, Submission
from snakemake_executor_plugin_submitit.task import Task


class Job:
    jobid = 5

    def is_group(self) -> bool:
        return False


def test_a_record_of_its_slurm_id_and_state_when_a_job_is_submitted_and_begins(tmp_path, caplog):
    one = Task(Submission("t", str(tmp_path), [Entry("k", "f", "r", "smk.a.b")], slurm_id="12", time=7.0), 0, "a b")
    (tmp_path / "12.requeues").write_text('[{"life": 0, "why": "its time limit"}]')
    logger = logging.getLogger("of this test")
    with caplog.at_level(logging.DEBUG, logger=logger.name):
        events.tell_remote_state(Job(), one, logger, "queued", "PENDING")
        one.node = "n1"
        events.tell_of_start(Job(), one, logger)
        events.tell_of_start(Job(), one, logger)
    queued, event, running = caplog.records
    common = {
        "schema_version": 2,
        "jobid": 5,
        "executor": "submitit",
        "external_jobid": "12",
        "queued_at": 7.0,
        "attempt": 2,
    }
    assert queued.remote_job_state == {**common, "phase": "queued", "remote_status": "PENDING"}
    began = running.remote_job_state
    assert isinstance(began.pop("started_at"), float) and began == {
        **common,
        "phase": "running",
        "remote_status": "RUNNING",
    }
    # A handler that reads these passes over all else of such a record, so Snakemake's event is one of its own.
    assert event.event == LogEvent.JOB_STARTED and event.jobs == [5] and not hasattr(event, "remote_job_state")
    assert queued.levelno == running.levelno == logging.DEBUG
