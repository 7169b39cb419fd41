"""What each job of a Snakemake run really used: `bash` in front of the real one.

Snakemake looks at a job's processor time every half second at first, later every 30 s, so that its timings lack the
end of every long job and much of the shortest ones. Here each job's bash is started by a process that waits for it and
writes down the processor time of all that ran in it.

    subprocess.run(["snakemake", ...], env=tell_usage(folder, dict(os.environ)))
    used_by_rule(folder)
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

BASH = """\
#!{python} -ISE
import json, os, re, signal, sys

child = os.fork()
if not child:
    os.execv({bash!r}, ["bash", *sys.argv[1:]])
signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has reached the job, too, whose end is waited for
_, status, usage = os.wait4(child, 0)
if found := re.search(r"logs/([^/.]+)[^/]*(?:/|\\.log)", " ".join(sys.argv[1:]).rpartition("tee -i ")[2]):
    told = json.dumps({{"rule": found[1], "cpu_s": usage.ru_utime + usage.ru_stime}}) + "\\n"
    descriptor = os.open({told!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, told.encode())
code = os.waitstatus_to_exitcode(status)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def tell_usage(folder: Path, environ: dict[str, str]) -> dict[str, str]:
    """The environment in which Snakemake's jobs write down in `folder` what they used."""
    bash = shutil.which("bash", path=environ["PATH"])
    first = folder / "bin"
    first.mkdir(parents=True)
    (first / "bash").write_text(BASH.format(python=sys.executable, bash=bash, told=str(folder / "usage.jsonl")))
    (first / "bash").chmod(0o755)
    return environ | {"PATH": f"{first}{os.pathsep}{environ['PATH']}"}


def used_by_rule(folder: Path) -> dict[str, tuple[int, float]]:
    """Starts of jobs and CPU seconds of each rule, in the order in which the rules first ended."""
    rules: dict[str, tuple[int, float]] = {}
    for line in (folder / "usage.jsonl").read_text().splitlines():
        told = json.loads(line)
        jobs, seconds = rules.get(told["rule"], (0, 0.0))
        rules[told["rule"]] = (jobs + 1, seconds + told["cpu_s"])
    return rules
