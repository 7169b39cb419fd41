"""Failures explain themselves: the reason in one line, the exception, and the ends of logs."""

from __future__ import annotations

import pytest
from memory_limits import lacks_memory_limits

FAILING = """
    rule all:
        input: "raised", "said", "grouped"

    rule raises:
        output: "raised"
        resources: runtime=5, mem_mb=100
        run:
            raise ValueError("boom in run")

    rule says:
        output: "said"
        log: "said.log", "{empty}.log"
        resources: runtime=5, mem_mb=100
        shell: "(seq 30; echo the real reason; exit 7) > {log[0]} 2>&1; touch {log[1]}"

    rule first:
        output: "firsted"
        group: "pair"
        log: "first.log"
        resources: runtime=5, mem_mb=100
        shell: "echo of the first > {log}; touch {output}"

    rule second:
        input: "firsted"
        output: "grouped"
        group: "pair"
        log: "second.log"
        resources: runtime=5, mem_mb=100
        shell: "echo of the second | tee {log}; false"
"""

HUNGRY = """
    EAT = "{python} -c 'x = bytearray(700 * 2**20)'"

    rule all:
        input: "eaten", "stepped", "lost", "raised"

    rule eat:
        output: "eaten"
        resources: runtime=5, mem_mb=lambda wildcards, attempt: 500 * attempt
        shell: EAT + "; touch {output}"

    rule step:  # what Slurm alone hears of: the job's own processes do not see how its steps end
        output: "stepped"
        resources: runtime=5, mem_mb=500
        shell: "srun --ntasks=1 --mem=450 " + EAT + "; touch {output}"

    rule lose:  # the kernel takes what waits for the command, and so no outcome is written
        output: "lost"
        resources: runtime=5, mem_mb=500
        shell: "echo 1000 > /proc/$SLURM_TASK_PID/oom_score_adj; " + EAT + "; touch {output}"

    rule raises:
        output: "raised"
        resources: runtime=5, mem_mb=500
        shell: "{python} -c 'raise MemoryError'; touch {output}"
"""


def reason(text: str, label: str) -> str:
    (line,) = [line for line in text.splitlines() if f" ({label}): " in line]
    return line


def after(text: str, line: str) -> list[str]:
    """The quoted lines that follow one."""
    lines = text.splitlines()
    found = []
    for one in lines[lines.index(line) + 1 :]:
        if not one.startswith("  | "):
            break
        found.append(one[4:])
    return found


def test_exceptions_and_logs_of_rules_are_shown(warning_cluster, flow):
    one = flow(warning_cluster, FAILING.replace("{empty}", "empty"))
    code, text = one.run()
    assert code == 1
    assert "  | boom in run" in text and "(raises): failed on n" in text
    assert after(text, "last lines of said.log:") == [*map(str, range(12, 31)), "the real reason"]
    assert "  | (the command returned non-zero exit status 7)" in text and "last lines of empty.log" not in text
    # A group has a reason and its rules' logs; what went to the Slurm log too is shown once.
    assert "(group pair (first, second)): failed on n" in text
    assert after(text, "last lines of first.log:") == ["of the first"] and "last lines of second.log:" not in text
    assert text.count("  | of the second") == 1
    # Snakemake prints whole logs itself where it is asked to.
    code, text = one.run("--show-failed-logs", "--", "firsted", "grouped")
    assert code == 1 and "\nof the second\n" in text and "last lines of" not in text


def test_jobs_that_run_out_of_memory_say_so_and_get_more_with_their_next_attempt(warning_cluster, flow):
    if why := lacks_memory_limits():
        pytest.skip(f"NO MEMORY LIMITS: {why}; what Slurm says of such jobs is tested by its words alone")
    one = flow(warning_cluster, HUNGRY.replace("{python}", "python3"))
    code, text = one.run()
    assert code == 1
    eaten = reason(text, "eat")
    assert "ran out of memory on n" in eaten and "the kernel killed a process of it at its limit of 500 MB" in eaten
    assert "it asked for mem_mb=500" in eaten and "500 * attempt" in eaten
    for label in ("step", "lose"):
        assert "ran out of memory (OUT_OF_MEMORY" in reason(text, label), text
    assert "memory" not in reason(text, "raises") and "  | MemoryError" in text
    code, text = one.run("--retries", "1", "--", "eaten")
    assert code == 0 and "ran out of memory" in text and "Trying to restart job" in text, text
