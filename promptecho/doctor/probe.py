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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from promptecho.config.job_sizes import Stage
from promptecho.doctor.batch import BatchJob, cancel, leaving_cleanly, state_of, submit
from promptecho.doctor.cluster import RULES, JobNeeds, needs_of
from promptecho.doctor.finding import Finding, fine, problem, unchecked, warning
from promptecho.doctor.places import CLOCK_TOLERANCE_S, IN_MEMORY
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.doctor.probe_node import ASKED, NO_TIME, NONCE
from promptecho.doctor.probe_pythons import ProbedPython, pythons_of
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
    """A job that is submitted; `rule` and `when` are of a stage whose jobs go there; `lacking`: what is known of the
    `pythons` already."""

    job: JobNeeds
    rule: str
    when: str
    folder: Path
    nonce: str
    pythons: list[ProbedPython] = field(default_factory=list)
    lacking: list[Finding] = field(default_factory=list)
    job_id: str = ""
    refused: str = ""
    gone: float | None = None  # when it was first seen to be no longer in the queue

    @property
    def where(self) -> str:
        return f"partition {self.job.partition or '(default)'}"


def probe(preflight: Preflight, minutes: float = MINUTES, lacking_told: bool = False) -> Iterator[Finding]:
    """Submit the probes, wait for them, and tell what they found. Their folder and what is queued are removed at the
    end, whatever happens. `lacking_told`: environments that are not built have been told already."""
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
        found = list(_probed(preflight, probes, root, made, minutes))
    if not lacking_told:
        yield from {lack.what: lack for one in probes for lack in one.lacking}.values()
    yield from found


def _probed(
    preflight: Preflight, probes: list[Probe], root: Path, made: Sequence[Path], minutes: float
) -> Iterator[Finding]:
    try:
        for one in probes_of(preflight, root):
            probes.append(_submit(preflight, one))
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


def probes_of(preflight: Preflight, root: Path) -> list[Probe]:
    """One probe for each partition: it asks for as many GPUs of a node as the partition's largest job does, on two
    nodes where that takes several; for none, on one node, where no Python would look at them."""
    jobs: dict[str | None, list[tuple[Stage, str, JobNeeds]]] = {}
    for stage in JOBS:
        for name in preflight.names(stage):
            needs = needs_of(preflight, stage, name)
            jobs.setdefault(needs.partition, []).append((stage, name, needs))
    found = []
    for number, of_partition in enumerate(jobs.values()):
        stage, _, job = max(of_partition, key=lambda one: (one[2].gpus, one[2].nodes))
        pythons, lacking = pythons_of(preflight, of_partition)
        if not any(python.on_gpus for python in pythons):
            job = replace(job, gpus=0, nodes=1)
        processes = max(1, job.gpus)  # one for each GPU
        memory = min(job.mem_mb, MB_PER_PROCESS * processes)
        asked = replace(job, nodes=min(job.nodes, MOST_NODES), cpus=min(job.cpus, processes), mem_mb=memory)
        folder, nonce = root / str(number), secrets.token_hex(16)
        found.append(Probe(asked, RULES[stage], JOBS[stage], folder, nonce, pythons, lacking))
    return found


def _submit(preflight: Preflight, one: Probe) -> Probe:
    assert preflight.profile is not None, "it says where to"
    one.folder.mkdir(parents=True)
    write_json(one.folder / NONCE, {"nonce": one.nonce})
    write_json(one.folder / ASKED, {"pythons": [asdict(python) for python in one.pythons]})
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
    skew = facts["time"] - facts["written"]
    if abs(skew) > CLOCK_TOLERANCE_S:
        told = f"{host}: its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the file system's"
        yield warning(told, "any rerun: Snakemake compares times of files", "have the clocks set (chrony, ntpd)")
    for look in facts["looks"]:
        yield from _of_python(preflight, one, host, look, when)
    seen: list[dict[str, Any]] = next((look["gpus"] for look in facts["looks"] if look["gpus"]), [])
    for index, gpu in enumerate(seen):
        if gpu["free"] < FREE_SHARE * gpu["total"]:
            told = f"{host}: GPU {index}: {gpu['free'] / 1e9:.1f} of {gpu['total'] / 1e9:.1f} GB are free"
            yield warning(told, when, "another process holds the rest: see nvidia-smi there")
    yield from _of_exchange(host, facts["exchange"], when)
    if preflight.config.models_staging is not None and facts["disk_kind"] in IN_MEMORY:
        told = f"{host}: {facts['disk']} is on {facts['disk_kind']}: models staged there take memory"
        yield warning(told, when, "name a disk of the nodes in models.staging")
    gpus = ", ".join(f"{gpu['name']} with {gpu['free'] / 1e9:.1f} GB free" for gpu in seen)
    looked = any(look["on_gpus"] and "error" not in look for look in facts["looks"])
    none = "no GPU" if looked else "no GPU asked for" if one.pythons and not one.job.gpus else "GPUs not looked at"
    yield fine(
        f"{host}: sees results on {facts['file_system']}; Python {facts['python_version']}; "
        f"{facts['disk']} ({facts['disk_kind']}) has {facts['disk_free'] / 1e9:.0f} GB free; "
        f"{gpus or none}"
    )


def _of_python(preflight: Preflight, one: Probe, host: str, look: dict[str, Any], when: str) -> Iterator[Finding]:
    """What a Python of a node says; `error`: why it says nothing."""
    if look.get("error") == NO_TIME:
        told = f"{host}: {look['python']}: not asked, no time left"
        yield unchecked(told, when, "see to those that took it; or start each by hand there: srun PYTHON --version")
        return
    if "error" in look:
        told = f"{host}: {look['python']} does not start as jobs start it: {look['error']}"
        yield problem(told, when, "see to what it says, or use an environment that all nodes see")
        return
    for name, (absent, _) in look["packages"].items():
        if absent:
            told = f"{host}: {name}: not installed in {look['python']}: {', '.join(absent)}"
            yield problem(told, when, "install them there, or use an environment that all nodes see")
    if preflight.envs is not None and look["packages"] and not any(absent for absent, _ in look["packages"].values()):
        yield fine(f"{host}: {look['python']} has the packages of {', '.join(look['packages'])}")
    if not look["on_gpus"] or look["gpus"]:
        return
    told = f"{host}: {one.job.gpus} GPU(s) asked for: {look['cuda']}"
    profile = preflight.profile
    if profile is not None and (profile.conda or profile.images):  # jobs have another torch
        where = "conda environments" if profile.conda else "image"
        yield unchecked(
            f"{told} in {look['python']}, which is not the jobs' Python", when, f"ask that of their {where}"
        )
        return
    fix = 'install torch for its GPUs (README, "torch for your GPUs"), or see to the driver'
    yield problem(told if preflight.envs is None else f"{told} in {look['python']}", when, fix)


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
