"""Every kind of output gets the verdict of Snakemake's local executor."""

from __future__ import annotations

import subprocess

# Old files in every form, in one job; then those that Snakemake refuses, and what runs in one job together.
KINDS = """
    rule all:
        input: "good.txt", "dangling.txt", "empty.txt", "sum.txt", "consumed.txt", "served.txt"

    rule good:
        output:
            link="good/link", folder_link=directory("good/folder_link"), folder=directory("good/folder"),
            moved="good/moved", hard="good/hard", updated=update("good/updated"), touched=touch("good/touched"),
            temporary=temp("good/temporary"), kept=protected("good/kept"), full=ensure("good/full", non_empty=True),
        benchmark: "good/benchmark.tsv"
        shell:
            "ln -s ../old/file {output.link}; ln -s ../old/linked {output.folder_link}; mv old/folder {output.folder}; "
            "mv old/moved {output.moved}; ln old/hard {output.hard}; touch {output.temporary} {output.kept}; "
            "echo 1 > {output.full}"

    rule after:
        input: rules.good.output
        output: "good.txt"
        localrule: True
        shell: "touch {output}"

    rule dangling:
        output: "dangling.txt"
        shell: "ln -s nothing {output}"

    rule empty:
        output: ensure("empty.txt", non_empty=True)
        shell: "touch {output}"

    rule sum:
        output: ensure("sum.txt", sha256="0" * 64)
        shell: "echo 1 > {output}"

    rule pipe:
        output: pipe("numbers")
        shell: "seq 9 > {output}"

    rule consume:
        input: "numbers"
        output: "consumed.txt"
        shell: "cat {input} > {output}"

    rule serve:
        output: service("socket")
        shell: "touch {output}; sleep 600"

    rule use:
        input: "socket"
        output: "served.txt"
        shell: "touch {output}"
"""
OLD = """
    mkdir -p old/linked old/folder good; touch old/{file,moved,hard} old/folder/x good/updated
    find old good -exec touch -h -d 2020-01-01 {} +
"""


def test_outputs_get_the_verdict_of_the_local_executor(cluster, flow):
    """Also with a command line of more than 128 KiB, and what is left of a job array in the environment."""
    local, remote = flow(cluster, KINDS), flow(cluster, KINDS)
    remote.environment |= {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "7", "SLURM_RESTART_COUNT": "3"}
    long = ["--config", f"first={'x' * 90_000}", f"second={'y' * 90_000}"]
    found = {}
    for one, arguments in ((local, ["--executor", "local", "--cores", "4"]), (remote, long)):
        subprocess.run(["bash", "-c", OLD], cwd=one.folder, check=True)
        code, text = one.run(*arguments)
        assert code == 1, text[-3000:]
        found[one] = sorted(path.name for path in one.folder.glob("*.txt") if path.exists())
    assert found[local] == ["consumed.txt", "good.txt", "served.txt"]
    assert found[remote] == ["calls.txt", *found[local]]
    for one in found:
        made = one.folder / "good"
        assert sorted(path.name for path in made.iterdir()) == [
            "benchmark.tsv", "folder", "folder_link", "full", "hard", "kept", "link", "moved", "touched", "updated",
        ]  # fmt: skip
        assert made.joinpath("link").is_symlink() and made.joinpath("folder/x").exists()
    assert "Detected unexpected empty output files" in remote.text and "checksums that differ" in remote.text
    assert "Missing files after" in remote.text  # Snakemake's word for the link to nothing
    assert not remote.queue() and len(remote.submitted()) == 6
