"""`doctor --rehearse` on a cluster: one job that runs the same command, on a node with as many GPUs as training has."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from promptecho.doctor.batch import BatchJob, cancel, leaving_cleanly, state_of, submit
from promptecho.doctor.cluster import RULES, JobNeeds, jobs_of
from promptecho.doctor.finding import Finding, problem, unchecked
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.doctor.rehearsal import Rehearsal, stopped
from promptecho.doctor.rehearsal_command import deployed_refusal
from promptecho.doctor.rehearsed_stage import RehearsedStage
from promptecho.files import write_text
from promptecho.shipped import PACKAGE

POLL_S = 5.0
CACHED_S = 60.0  # so long a network's file system may hide a file that another node has written
OUTCOME = "outcome.json"


def belongs_to_a_node(preflight: Preflight) -> bool:
    """Whether a rehearsal is to be submitted: the profile is a cluster's, and this is no job of it."""
    profile = preflight.profile
    return profile is not None and profile.on_slurm and "SLURM_JOB_ID" not in os.environ


def rehearse_on_a_node(preflight: Preflight, keep: bool, words: Sequence[str]) -> Rehearsal:
    """Submit the rehearsal as a job, wait for it, and return what it found. Its folder is in the current one, which all
    nodes see; it is removed again but where something failed, or `keep` says so. Left early, the job is cancelled.

    Args:
        words: options of the command there.
    """
    folder = Path(f"promptecho-rehearsal-{secrets.token_hex(4)}").absolute()
    rehearsal = Rehearsal(str(folder), refused=deployed_refusal(preflight))
    if rehearsal.refused is not None:
        return rehearsal
    stage_and_job = max(jobs_of(preflight), key=lambda one: (one[1].gpus, one[1].mem_mb), default=None)
    if stage_and_job is None or shutil.which("sbatch") is None:
        told = "--rehearse: there is no sbatch on this machine" if stage_and_job else "--rehearse: there are no jobs"
        rehearsal.refused = unchecked(told, "all jobs", "type it on a host that submits, or in a job on a node")
        return rehearsal
    stage, needs = stage_and_job
    failed = True
    try:
        folder.mkdir()
        with leaving_cleanly():
            rehearsal.refused = _run(preflight, RULES[stage], JOBS[stage], needs, folder, words)
        if rehearsal.refused is None:
            found = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
            refused = [one for check in found["checks"] for one in check["findings"] if "--rehearse" in one["what"]]
            rehearsal.refused = Finding(**refused[0]) if refused else None
            known = {one.name for one in fields(RehearsedStage)}
            tried = found.get("rehearsal", {})
            for row in tried.get("stages", []):
                rehearsal.stages.append(RehearsedStage(**{key: row[key] for key in known & row.keys()}))
            rehearsal.gpu = tried.get("plan_gpu", "")
        failed = rehearsal.refused is not None or any(one.problem for one in rehearsal.stages)
        return rehearsal
    except (OSError, ValueError, KeyError, TypeError) as error:  # a full disk, an outcome of another version
        rehearsal.refused = stopped("its job's outcome is not known", error)
        return rehearsal
    finally:
        if not (keep or failed):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.is_dir():
            print(f"rehearsal: kept: {folder}", file=sys.stderr, flush=True)


def _run(
    preflight: Preflight, rule: str, when: str, needs: JobNeeds, folder: Path, words: Sequence[str]
) -> Finding | None:
    """Why there is no outcome; None where there is one."""
    profile, log = preflight.profile, folder / "log"
    assert profile is not None, "it says where to"
    command = [sys.executable, "-m", "promptecho", "doctor", "--config", str(preflight.source)]
    command += ["--profile", str(profile.path), "--rehearse", "--only", "rehearsal", "--json", *words]
    path, unfinished = shlex.quote(str(PACKAGE.parent)), folder / f".{OUTCOME}"
    script = folder / "rehearsal.sh"
    lines = [
        "#!/bin/bash", f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}} TMPDIR={shlex.quote(str(folder))}",
        f"cd {shlex.quote(os.getcwd())}", f"{shlex.join(command)} > {shlex.quote(str(unfinished))}",
        f"if [ $? -le 1 ] && [ -s {shlex.quote(str(unfinished))} ]",
        f"then mv {shlex.quote(str(unfinished))} {shlex.quote(str(folder / OUTCOME))}", "fi",
    ]  # fmt: skip
    write_text(script, "\n".join(lines) + "\n")
    job = BatchJob("promptecho-rehearsal", rule, replace(needs, nodes=1), needs.minutes)
    job_id, refused = submit(profile, job, script, log)
    if refused:
        return problem(f"--rehearse: sbatch refuses its job: {refused}", when, "see to what it says")
    told, gone = "", 0.0
    try:
        while not (folder / OUTCOME).is_file():
            state = state_of(job_id)
            line = "has left the queue" if state is None else f"is {state[0].lower()} ({state[1]})"
            if line != told:
                print(f"rehearsal: job {job_id} {line}; its log: {log}", file=sys.stderr, flush=True)
                told = line
            gone = 0.0 if state is not None else gone or time.monotonic()
            if gone and time.monotonic() - gone > CACHED_S:
                last = (log.read_text(errors="replace").strip().splitlines() if log.is_file() else []) or ["no log"]
                what = f"--rehearse: its job {job_id} ended without an outcome: {last[-1]}"
                return problem(what, when, f"see {log}, and sacct -j {job_id}")
            time.sleep(POLL_S)
    finally:
        cancel([job_id])
    return None
