"""`doctor --probe`: one short job for each partition, which tells what its nodes see (`probe_node.py`)."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptecho.doctor.batch import BatchJob, cancel, leaving_cleanly, state_of, submit
from promptecho.doctor.cluster import RULES, JobNeeds, jobs_of
from promptecho.doctor.finding import Finding, fine, problem, unchecked, warning
from promptecho.doctor.packages import environments
from promptecho.doctor.places import CLOCK_TOLERANCE_S, IN_MEMORY
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.doctor.probe_node import ASKED, NONCE
from promptecho.errors import DataError
from promptecho.files import read_json, write_json, write_text
from promptecho.shipped import PACKAGE

MINUTES = 10  # that a probe waits and runs
MOST_NODES = 2  # enough for an exchange between nodes
POLL_S = 2.0
FREE_SHARE = 0.95  # of a GPU that nobody else uses
MB_PER_PROCESS = 8000
CACHED_S = 60.0  # so long a network's file system may hide a file that another node has written


@dataclass
class Probe:
    """A job that was submitted; `stage` is one whose jobs go there."""

    job: JobNeeds
    rule: str
    when: str
    folder: Path
    nonce: str
    job_id: str = ""
    refused: str = ""
    gone: float | None = None  # when it was first seen to be no longer in the queue

    @property
    def where(self) -> str:
        return f"partition {self.job.partition or '(default)'}"


def probe(preflight: Preflight, minutes: float = MINUTES) -> Iterator[Finding]:
    """Submit the probes, wait for them, and tell what they found. Their folder and what is queued are removed at the
    end, whatever happens."""
    profile = preflight.profile
    if profile is None or not profile.on_slurm:
        how = "name it: --profile profiles/slurm"
        yield unchecked("--probe: no profile of a cluster, so that there is no node to look from", "all jobs", how)
        return
    if shutil.which("sbatch") is None:
        yield unchecked("--probe: there is no sbatch on this machine", "all jobs", "look again on a host that submits")
        return
    root = preflight.results / "work" / f"doctor-{os.getpid()}"
    made = [folder for folder in root.parents if not folder.exists()]
    probes: list[Probe] = []
    with leaving_cleanly():
        yield from _probed(preflight, probes, root, made, minutes)


def _probed(
    preflight: Preflight, probes: list[Probe], root: Path, made: Sequence[Path], minutes: float
) -> Iterator[Finding]:
    try:
        for number, (rule, when, job) in enumerate(kinds(preflight)):
            probes.append(_submit(preflight, Probe(job, rule, when, root / str(number), secrets.token_hex(16))))
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end and not all(_ended(one) for one in probes):
            time.sleep(POLL_S)
        for one in probes:
            yield from _told(preflight, one)
    finally:
        if queued := [one.job_id for one in probes if one.job_id]:
            cancel(queued)
        shutil.rmtree(root, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else has put something there meanwhile
                folder.rmdir()


def kinds(preflight: Preflight) -> list[tuple[str, str, JobNeeds]]:
    """(rule, jobs, what to ask for) of one probe for each partition: as many GPUs of a node as its largest job asks
    for, on two nodes where that takes several."""
    found: dict[str | None, tuple[str, str, JobNeeds]] = {}
    for stage, job in jobs_of(preflight):
        known = found.get(job.partition)
        if known is None or (job.gpus, job.nodes) > (known[2].gpus, known[2].nodes):
            nodes = min(job.nodes, MOST_NODES)
            processes = max(1, job.gpus)  # one for each GPU
            memory = min(job.mem_mb, MB_PER_PROCESS * processes)
            asked = replace(job, nodes=nodes, cpus=min(job.cpus, processes), mem_mb=memory)
            found[job.partition] = (RULES[stage], JOBS[stage], asked)
    return list(found.values())


def _submit(preflight: Preflight, one: Probe) -> Probe:
    assert preflight.profile is not None, "it says where to"
    one.folder.mkdir(parents=True)
    files = {name: str(file.resolve()) for name, (file, _) in environments(preflight).items() if file.is_file()}
    write_json(one.folder / NONCE, {"nonce": one.nonce})
    profile = preflight.profile
    asked = {} if profile.conda or profile.images or preflight.envs else files  # those have the packages
    write_json(one.folder / ASKED, {"gpus": one.job.gpus, "environments": asked})
    folder = os.path.abspath(one.folder)
    start = shlex.join(["srun", "--ntasks-per-node=1", sys.executable, "-m", "promptecho.doctor.probe_node", folder])
    path = shlex.quote(str(PACKAGE.parent))
    script = one.folder / "probe.sh"
    write_text(script, f"#!/bin/bash\nexport PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}\n{start}\n")
    job = BatchJob("promptecho-doctor", one.rule, one.job, MINUTES)
    one.job_id, one.refused = submit(preflight.profile, job, script, one.folder / "log")
    return one


def _reports(one: Probe) -> list[dict[str, Any]]:
    found = []
    for path in sorted(one.folder.glob("node-*.json")):
        with contextlib.suppress(DataError):
            found.append(read_json(path) | {"written": path.stat().st_mtime})
    return found


def _ended(one: Probe) -> bool:
    if not one.job_id or len(_reports(one)) >= one.job.nodes:
        return True
    if state_of(one.job_id) is not None:
        return False
    one.gone = one.gone or time.monotonic()
    return time.monotonic() - one.gone > CACHED_S


def _told(preflight: Preflight, one: Probe) -> Iterator[Finding]:
    when = f"{one.when}, and all that go to {one.where}"
    if one.refused:
        yield problem(f"{one.where}: sbatch refuses a probe: {one.refused}", when, "see to what it says")
        return
    reports = _reports(one)
    if len(reports) < one.job.nodes:
        if (state := state_of(one.job_id)) is not None:
            told = f"{one.where}: the probe (job {one.job_id}) is {state[0].lower()} ({state[1]}); it is cancelled now"
            yield unchecked(told, when, "look again when there is room, with more --probe-minutes")
        else:
            log = _last_line(one.folder / "log")
            seen = f"; its log ends: {log}" if log else f", and no log: nodes there may not see {one.folder.parent}"
            told = f"{one.where}: the probe ended without a word of {one.job.nodes - len(reports)} node(s){seen}"
            yield problem(told, when, "see to the node, or start in a folder that all nodes see")
    for facts in reports:
        yield from of_node(preflight, one, facts, when)


def of_node(preflight: Preflight, one: Probe, facts: dict[str, Any], when: str) -> Iterator[Finding]:
    """What one node's report says; `written` in it is the file system's time of the report."""
    host = f"{one.where}, node {facts['host']}"
    if facts["nonce"] != one.nonce:
        fix = "see to the file system's caches"
        yield problem(f"{host}: reads other content in {one.folder} than was written there", when, fix)
    for name, (absent, _) in facts["packages"].items():
        if absent:
            told = f"{host}: {name}: not installed in {facts['python']}: {', '.join(absent)}"
            yield problem(told, when, "install them there, or use an environment that all nodes see")
    skew = facts["time"] - facts["written"]
    if abs(skew) > CLOCK_TOLERANCE_S:
        told = f"{host}: its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the file system's"
        yield warning(told, "any rerun: Snakemake compares times of files", "have the clocks set (chrony, ntpd)")
    if one.job.gpus and not facts["gpus"]:
        fix = 'install torch for its GPUs (README, "torch for your GPUs"), or see to the driver'
        yield problem(f"{host}: {one.job.gpus} GPU(s) asked for: {facts['cuda']}", when, fix)
    for index, gpu in enumerate(facts["gpus"]):
        if gpu["free"] < FREE_SHARE * gpu["total"]:
            told = f"{host}: GPU {index}: {gpu['free'] / 1e9:.1f} of {gpu['total'] / 1e9:.1f} GB are free"
            yield warning(told, when, "another process holds the rest: see nvidia-smi there")
    yield from _of_exchange(host, facts["exchange"], when)
    if preflight.config.models_staging is not None and facts["disk_kind"] in IN_MEMORY:
        told = f"{host}: {facts['disk']} is on {facts['disk_kind']}: models staged there take memory"
        yield warning(told, when, "name a disk of the nodes in models.staging")
    gpus = ", ".join(f"{gpu['name']} with {gpu['free'] / 1e9:.1f} GB free" for gpu in facts["gpus"])
    yield fine(
        f"{host}: sees results on {facts['file_system']}; Python {facts['python_version']}; "
        f"{facts['disk']} ({facts['disk_kind']}) has {facts['disk_free'] / 1e9:.0f} GB free; "
        f"{gpus or ('no GPU' if one.job.gpus else 'no GPU asked for')}"
    )


def _of_exchange(host: str, found: dict[str, Any] | None, when: str) -> Iterator[Finding]:
    if found is None:
        return
    fix = "NCCL_DEBUG=INFO says more; NCCL_P2P_DISABLE=1 avoids the direct way between GPUs"
    if "error" in found:
        yield problem(f"{host}: the ranks could not exchange: {found['error']}", when, fix)
    elif not found.get("right", True):
        yield problem(f"{host}: {found['ranks']} ranks add up to a wrong sum", when, fix)
    elif "gb_s" in found:
        told = f"{found['ranks']} ranks add up {found['gb_s']:.1f} GB/s ({found['bus_gb_s']:.1f} GB/s on each link)"
        yield fine(f"{host}: {found['backend']}: {told}")


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines: Sequence[str] = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""
