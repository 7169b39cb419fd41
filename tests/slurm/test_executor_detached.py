"""Jobs that go on without their Snakemake keep their outputs, of every kind."""

from __future__ import annotations

import os
import signal

# Every kind of output, in folders that nothing else is in. The jobs wait before they have made anything; `parts` has
# begun its folder then.
KINDS = """
    rule all:
        input: "new/nested/file.txt", "whole/parts", "kept/protected.txt", "used/of-temp.txt"

    rule several:
        output: "new/nested/file.txt", "two/a.txt", "three/b.txt"
        log: "logs/several/one.log"
        benchmark: "benchmarks/several/one.tsv"
        resources: runtime=5, mem_mb=100
        shell: "echo several >> ran; until [ -e go ]; do sleep 0.2; done; for i in {output}; do echo made > $i; done; "
               "echo logged > {log}"

    rule parts:
        output: directory("whole/parts")
        resources: runtime=5, mem_mb=100
        shell: "mkdir -p {output}; echo 1 > {output}/1; echo parts >> ran; until [ -e go ]; do sleep 0.2; done; "
               "echo 2 > {output}/2"

    rule kept:
        output: protected("kept/protected.txt")
        shadow: "minimal"
        resources: runtime=5, mem_mb=100
        shell: "echo kept >> {workflow.basedir:q}/ran; until [ -e {workflow.basedir:q}/go ]; do sleep 0.2; done; "
               "echo made > {output}"

    rule temporary:
        output: temp("between/temp.txt")
        resources: runtime=5, mem_mb=100
        shell: "echo temporary >> ran; until [ -e go ]; do sleep 0.2; done; echo made > {output}"

    rule use:
        input: "between/temp.txt"
        output: "used/of-temp.txt"
        resources: runtime=5, mem_mb=100
        shell: "cp {input} {output}; echo use >> ran"
"""
RULES = ["kept", "parts", "several", "temporary"]


def expect_all_made(one) -> None:
    """Each by one run of its job."""
    assert sorted(one.lines("ran")) == sorted([*RULES, "use"])
    for name in ("new/nested/file.txt", "two/a.txt", "three/b.txt", "kept/protected.txt", "used/of-temp.txt"):
        assert one.lines(name) == ["made"], name
    assert one.lines("whole/parts/1") == ["1"] and one.lines("whole/parts/2") == ["2"]
    assert one.lines("logs/several/one.log") == ["logged"] and one.lines("benchmarks/several/one.tsv")
    assert not (one.folder / "kept/protected.txt").stat().st_mode & 0o222
    assert not (one.folder / "between/temp.txt").exists()
    one.expect_submitted(5)


def test_every_kind_of_output_survives_each_way_to_leave_jobs_alone(cluster, flow):
    """The last way leaves them to end by themselves."""
    one = flow(cluster, KINDS)
    ways = [(signal.SIGTERM, []), (signal.SIGHUP, []), (signal.SIGINT, ["--submitit-keep-on-exit"])]
    for number, (way, options) in enumerate(ways):
        process = one.start(*options)
        one.wait(lambda: sorted(one.lines("ran")) == RULES, "four running jobs")
        one.wait(lambda n=number: one.text.count("Taken up: Slurm job") == 4 * n, "four jobs taken up")
        os.kill(process.pid, way)
        assert one.end(process) == 1 and one.text.count("4 Slurm jobs go on") == number + 1
        for folder in ("new/nested", "two", "three", "whole/parts", "kept", "between", "logs/several", "benchmarks"):
            assert (one.folder / folder).is_dir(), (way, folder)
    one.go()
    one.wait(lambda: not one.queue(), "the end of the jobs")
    code, text = one.run()
    assert code == 0, text
    expect_all_made(one)


def test_another_snakemake_that_fails_leaves_the_folder_of_a_running_job(cluster, flow):
    """And an exception inside of Snakemake does, too."""
    one = flow(
        cluster,
        """
        rule part:
            output: "shared/{k}.txt"
            resources: runtime=5, mem_mb=100
            shell: "echo {wildcards.k} >> ran; [ {wildcards.k} = bad ] && exit 1; until [ -e go ]; do sleep 0.2; done; "
                   "echo made > {output}"

        import os, threading, time
        if config.get("hook") and "SLURM_JOB_ID" not in os.environ:
            from pathlib import Path
            def fail():
                while not Path("ran").exists():
                    time.sleep(0.2)
                workflow.scheduler.executor_error_callback(RuntimeError("no such banana"))
            threading.Thread(target=fail, daemon=True).start()
        """,
    )
    process = one.start("--config", "hook=1", "--", "shared/good.txt")
    assert one.end(process) == 1 and "no such banana" in one.text and "1 Slurm job goes on" in one.text
    assert one.states() == ["RUNNING"] and (one.folder / "shared").is_dir()
    code, text = one.run("--", "shared/bad.txt")
    assert code == 1 and one.lines("ran") == ["good", "bad"], text
    assert (one.folder / "shared").is_dir()
    one.go()
    code, text = one.run("--", "shared/good.txt")
    assert code == 0, text
    assert one.lines("ran") == ["good", "bad"] and one.lines("shared/good.txt") == ["made"]
    one.expect_submitted(2)
