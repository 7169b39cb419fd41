"""The life of a job: names, arrays, logs, failures, retries, groups, secrets."""

from __future__ import annotations

import shlex
import stat

PARTS = """
    rule all:
        input: expand("out/{k}.txt", k=range(8))

    rule part:
        output: "out/{k}.txt"
        threads: 4
        resources: runtime=5, mem_mb=100
        shell:
            "echo {wildcards.k} >> ran.txt; until [ -e go ] || [ -e go{wildcards.k} ]; do sleep 0.2; done; "
            "echo {wildcards.k} > {output}"
"""


def test_ready_jobs_of_a_rule_are_one_array_with_names_for_people(cluster, flow):
    one = flow(cluster, PARTS)
    process = one.start()
    one.wait(lambda: one.states().count("RUNNING") == 4, "four running tasks")
    assert one.states().count("PENDING") == 4

    # Running tasks get names of their own; the pending rest goes by the array's.
    def named(numbers: range) -> bool:
        names = {name for _, name, state in one.queue() if state == "RUNNING"}
        return names == {f"{one.prefix}.part.{k}" for k in numbers}

    one.wait(lambda: named(range(4)), "names of running tasks")
    comments = set(cluster.run("squeue", "-h", "-r", "-o", "%j %k").splitlines())
    assert f"{one.prefix}.part part k=0 ... part k=7 (8 tasks)" in comments
    for k in range(4):
        (one.folder / f"go{k}").touch()
    one.wait(lambda: named(range(4, 8)), "names of the others")  # the last task has the array's id
    one.go()
    assert one.end(process) == 0
    assert sorted(one.lines("ran.txt")) == [str(k) for k in range(8)]
    assert len(one.calls("sbatch")) == 1
    # Slurm's ids are in Snakemake's own output, and so are the logs, in one folder per rule, for the owner only.
    array = one.text.split("tasks of Slurm array ")[1].split(":")[0]
    assert f"Submitted 8 tasks of Slurm array {array}: part k=0 ... part k=7 (8 tasks); log: " in one.text
    top = one.folder / ".snakemake" / "submitit"
    assert stat.S_IMODE(top.stat().st_mode) == 0o700
    assert len(list(top.glob("part/*/*_log.out"))) == 8
    assert not list(top.glob("part/*/*.pkl"))


def test_arrays_are_cut_at_the_cluster_s_size_and_at_the_setting(cluster, warning_cluster, flow):
    for where, options, sizes in ((cluster, ["--submitit-array-size", "3"], [2, 3, 3]), (warning_cluster, [], [3, 5])):
        one = flow(where, PARTS)
        one.go()
        code, text = one.run(*options)
        assert code == 0, text
        one.expect_submitted(8)
        assert sorted(map(len, _arrays(one).values())) == sizes


def _arrays(one) -> dict[str, list[str]]:
    arrays: dict[str, list[str]] = {}
    for job_id in one.submitted():
        arrays.setdefault(job_id.split("_")[0], []).append(job_id)
    return arrays


def test_a_failure_shows_the_log_s_end_and_the_command_for_this_job_alone(cluster, flow):
    one = flow(
        cluster,
        """
        rule all:
            input: "good.txt", "bad-7.txt"

        rule good:
            output: "good.txt"
            resources: runtime=5
            shell: "touch {output}"

        rule bad:
            output: "bad-{k}.txt"
            resources: runtime=5, mem_mb=100
            shell: "echo no such banana >&2; [ -e mended ] && touch {output}"
        """,
    )
    code, text = one.run("--", "all")
    assert code == 1
    job_id = text.split(": bad k=7; log")[0].rsplit(" ", 1)[1]
    assert f"Slurm job {job_id} (bad k=7): failed on n" in text
    assert "  | no such banana" in text
    command = text.split("to run this job alone again: ")[1].splitlines()[0]
    assert command.startswith("snakemake --executor submitit") and command.endswith("-- bad-7.txt")
    assert (one.folder / "good.txt").exists()  # --keep-going
    one.wait(  # accounting hears of an end a moment later
        lambda: cluster.run("sacct", "-X", "-n", "-P", "-j", job_id, "-o", "State,ExitCode").strip() == "FAILED|1:0",
        "FAILED in accounting",
    )
    (one.folder / "mended").touch()
    code, text = one.run(*shlex.split(command)[1:])
    assert code == 0, text
    assert (one.folder / "bad-7.txt").exists()
    one.expect_submitted(3)


def test_retries_come_with_changed_resources(cluster, flow):
    one = flow(
        cluster,
        """
        rule greedy:
            output: "greedy.txt"
            resources:
                runtime=5,
                mem_mb=lambda wildcards, attempt: 100 * attempt
            shell: "echo $SLURM_MEM_PER_NODE >> asked.txt; [ $SLURM_MEM_PER_NODE -ge 300 ] && touch {output}"
        """,
    )
    code, text = one.run("--retries", "2")
    assert code == 0, text
    assert one.lines("asked.txt") == ["100", "200", "300"]


def test_a_group_is_one_job(cluster, flow):
    one = flow(
        cluster,
        """
        rule both:
            output: "second.txt"
            input: "first.txt"
            group: "pair"
            resources: runtime=5, mem_mb=100
            shell: "cat {input} > {output}; echo $SLURM_JOB_ID >> {output}"

        rule first:
            output: temp("first.txt")
            group: "pair"
            resources: runtime=5, mem_mb=100
            shell: "echo $SLURM_JOB_ID > {output}"
        """,
    )
    code, text = one.run()
    assert code == 0, text
    one.expect_submitted(1)
    assert len(set(one.lines("second.txt"))) == 1


def test_secrets_reach_the_job_and_no_file(cluster, flow):
    secret = "k-5f2c9e71d0"
    one = flow(
        cluster,
        """
        envvars: "BANANA_API_KEY"

        rule ask:
            output: "ask.txt"
            resources: runtime=5
            shell: "printf %s $BANANA_API_KEY | sha256sum > {output}; false"
        """,
    )
    one.environment["BANANA_API_KEY"] = secret
    code, text = one.run("--keep-incomplete")
    assert code == 1
    import hashlib

    assert one.lines("ask.txt") == [f"{hashlib.sha256(secret.encode()).hexdigest()}  -"]
    job_id = text.split("Submitted Slurm job ")[1].split(":")[0]
    written = [path for path in one.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".pkl" for path in written)
    assert [path for path in written if secret.encode() in path.read_bytes()] == []
    assert secret not in cluster.run("scontrol", "show", "job", "-d", job_id)


def test_slurm_s_own_variables_do_not_overrule_resources(cluster, flow):
    one = flow(
        cluster,
        """
        rule where:
            output: "where.txt"
            resources: runtime=5, slurm_partition="spot"
            shell: "echo $SLURM_JOB_PARTITION ${{SLURM_NTASKS:-1}} > {output}"
        """,
    )
    one.environment |= {"SBATCH_PARTITION": "urgent", "SLURM_JOB_ID": "1", "SLURM_NTASKS": "7"}
    code, text = one.run()
    assert code == 0, text
    assert one.lines("where.txt") == ["spot 1"]
    assert "ignoring SBATCH_PARTITION, SLURM_JOB_ID, SLURM_NTASKS" in text


def test_another_working_folder_with_quotes_and_spaces(cluster, flow):
    one = flow(
        cluster,
        """
        rule where:
            output: "where {k}.txt"
            resources: runtime=5
            shell: "pwd > {output:q}"
        """,
    )
    work = one.folder / "jo's work (1); & more"
    code, text = one.run("--directory", work.name, "--", "where it's.txt", "where $HOME.txt")
    assert code == 0, text
    for name in ("where it's.txt", "where $HOME.txt"):
        assert (work / name).read_text() == f"{work}\n"
    assert len(list(work.glob(".snakemake/submitit/where/*/*_log.out"))) == 2
    assert not (one.folder / ".snakemake" / "submitit").exists()
