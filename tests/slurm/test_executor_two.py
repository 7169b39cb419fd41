"""Two Snakemakes in one folder, with different targets: neither settles what the other has under way."""

from __future__ import annotations

import json
import os
import signal
from shlex import quote

TWO = """
    rule all:
        input: expand("a/{k}.txt", k=range(2))

    rule part:
        output: "{d}/{k}.txt"
        resources: runtime=5, mem_mb=100
        shell: "echo {wildcards.k} >> {wildcards.d}.ran; until [ -e go ]; do sleep 0.2; done; echo made > {output}"
"""


def slow_sbatch(one) -> None:
    """The first call waits before it submits, as at a busy controller, until there is a file `answer`."""
    first, answer = quote(str(one.folder / "first")), quote(str(one.folder / "answer"))
    wait = f"if mkdir {first} 2> /dev/null; then until [ -e {answer} ]; do sleep 0.1; done; fi"
    one.wrap("sbatch", f'{wait}\nexec {one.real("sbatch")} "$@"')


def test_a_submission_under_way_is_its_own_process_s_and_a_third_takes_up_what_the_first_left(cluster, flow):
    one = flow(cluster, TWO)
    slow_sbatch(one)
    first = one.start("--", "all")
    one.wait(lambda: (one.folder / "first").exists(), "the first's call of sbatch")
    second = one.start("--", "b/0.txt")
    one.wait(lambda: one.lines("b.ran") == ["0"], "the second's job")
    (one.folder / "answer").touch()
    one.wait(lambda: len(one.lines("a.ran")) == 2, "the first's jobs")
    one.kill(first)  # and unlocks
    third = one.start("--", "all")
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 2, "two jobs taken up")
    one.kill(third)
    fourth = one.start("--", "all")
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 4, "two jobs taken up once more")
    # Nobody takes jobs away from a process that is there, also when the lock is.
    one.unlock()
    code, text = one.run("--", "b/0.txt")
    assert code == 1 and "another Snakemake" in text and f"kill {second.pid}" in text, text
    one.go()
    assert one.end(second) == one.end(fourth) == 0, one.text
    assert sorted(one.lines("a.ran")) == ["0", "1"] and one.lines("b.ran") == ["0"]
    one.expect_submitted(3)
    ledger = one.folder / ".snakemake/submitit/ledger.jsonl"
    outcomes = [e["outcome"] for e in map(json.loads, ledger.read_text().splitlines()) if e["event"] == "ended"]
    assert outcomes and set(outcomes) == {"success"}
    assert not list(ledger.parent.glob(f"owners/*-{second.pid}-*"))


def test_an_sbatch_that_outlives_its_snakemake_is_waited_for(cluster, flow):
    one = flow(cluster, TWO)
    slow_sbatch(one)
    first = one.start("--", "all")
    one.wait(lambda: (one.folder / "first").exists(), "the first's call of sbatch")
    one.kill(first)
    second = one.start("--", "all")
    one.wait(lambda: "is still under way" in one.text, "a word about sbatch")
    (one.folder / "answer").touch()
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 2, "two jobs taken up")
    one.go()
    assert one.end(second) == 0, one.text
    assert sorted(one.lines("a.ran")) == ["0", "1"]
    one.expect_submitted(2)


def test_a_snakemake_of_another_machine_is_waited_for_and_told_of(cluster, flow):
    one = flow(cluster, TWO)
    first = one.start("--", "all")
    one.wait(lambda: len(one.lines("a.ran")) == 2, "two running jobs")
    one.kill(first, signal.SIGKILL)
    # As if it had run on another machine: the process table here says nothing about it.
    top = one.folder / ".snakemake/submitit"
    ledger = top / "ledger.jsonl"
    events = [json.loads(line) for line in ledger.read_text().splitlines()]
    for event in events:
        if event["event"] == "intent":
            event["owner"] |= {"host": "login2", "machine": "another"}
    ledger.write_text("".join(json.dumps(event) + "\n" for event in events))
    (mine,) = top.glob("owners/*")
    theirs = mine.rename(top / "owners" / f"login2-{first.pid}-{mine.name.rpartition('-')[2]}")
    second = one.start("--", "all")
    one.wait(lambda: "may have been killed" in one.text and str(theirs) in one.text, "a word about the other machine")
    assert "Taken up" not in one.text and len(one.calls("sbatch")) == 1
    before = theirs.stat().st_mtime
    os.utime(theirs, (before - 400, before - 400))  # silent for long
    one.wait(lambda: one.text.count("Taken up: Slurm job") == 2, "two jobs taken up")
    one.go()
    assert one.end(second) == 0, one.text
    assert sorted(one.lines("a.ran")) == ["0", "1"]
