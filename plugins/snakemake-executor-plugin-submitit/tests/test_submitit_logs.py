"""What is shown of the logs of a failed job."""

from __future__ import annotations

import os
from types import SimpleNamespace

from snakemake_executor_plugin_submitit.logs import all_shown_by_snakemake, rule_logs, tail

BEFORE = ["submitit INFO (now) - Starting", "Building DAG of jobs...", "Execute 1 jobs...", "",
          "[Fri Nov  7 06:32:47 2026]", "localrule a:", "    output: a", "    resources: mem_mb=100"]  # fmt: skip
ERROR = ["[Fri Nov 27 06:32:47 2026]", "Error in rule a:", "    message: None", "    shell:", "        first", "",
         "        second"]  # fmt: skip
AFTER = ["Shutting down, this might take some time.", "Elapsed time: 0:00:01", "WorkflowError:",
         "At least one job did not complete successfully.", "[2026-11-27 06:32:49] smk.a: exit code 1 after 5.31 s",
]  # fmt: skip


def shown(path, *lines: str) -> list[str]:
    path.write_text("\n".join([*BEFORE, *lines, *ERROR, *AFTER]) + "\n")
    return tail(path)


def test_the_end_of_a_log_is_the_command_s_own(tmp_path):
    log = tmp_path / "log"
    failed = [
        'CalledProcessError in file "Snakefile", line 7:',
        "Command 'first",
        "",
        "second' returned non-zero exit status 3.",
    ]
    said = ["+ cat x", "10%\r20%\r", "no such banana"]
    assert shown(log, *said, "RuleException:", *failed) == [
        "+ cat x", "20%", "no such banana", "(the command returned non-zero exit status 3)",
    ]  # fmt: skip
    assert shown(log, *map(str, range(100))) == [str(number) for number in range(80, 100)]
    assert shown(log) == []
    assert shown(log, "    usage: of the command", "        more") == ["    usage: of the command", "        more"]
    assert tail(tmp_path / "none") == ["(no log: No such file or directory)"]


def test_the_exception_of_a_rule_is_shown(tmp_path):
    exception = ['ValueError in file "Snakefile", line 7:', "boom", '  File "Snakefile", line 7, in __rule_a']
    assert shown(tmp_path / "log", "before", "RuleException:", *exception) == ["before", *exception]
    script = ["Traceback (most recent call last):", '  File "s.py", line 6', "ValueError: in script"]
    assert shown(tmp_path / "log", *script) == script
    killed = ['CalledProcessError in file "S", line 7:', "Command 'x' died with <Signals.SIGKILL: 9>."]
    assert shown(tmp_path / "log", "RuleException:", *killed) == ["(the command died with <Signals.SIGKILL: 9>)"]
    many = [exception[0], *map(str, range(100)), exception[2]]  # its kind and its end
    cut = [*many[:3], "... (83 lines)", *many[-16:]]
    assert shown(tmp_path / "log", "RuleException:", *many) == cut
    interrupted = "Terminating processes on user request, this might take some time."
    left = shown(tmp_path / "log", "before", interrupted)
    assert left[0] == "before" and len(left) == 2 and "interrupted: by a signal, or by sys.exit()" in left[1]


def test_what_ends_snakemake_before_the_rule_is_shown(tmp_path):
    log = tmp_path / "log"
    begin = "[2026-11-27 06:32:44] smk.a: job 7_1 on n1, restarts: 0\nBuilding DAG of jobs...\n"
    error = "ModuleNotFoundError in file Snakefile:\nNo module named 'x'\n"
    log.write_text(f"submitit INFO (now) - Starting\n{begin}{error}")
    assert tail(log) == ["ModuleNotFoundError in file Snakefile:", "No module named 'x'"]


def test_of_a_group_the_jobs_before_say_nothing(tmp_path):
    first = [
        "[Fri Nov 27 06:32:48 2026]",
        "Finished jobid: 0 (Rule: g1)",
        "1 of 2 steps (50%) done",
        "Execute 1 jobs...",
    ]
    assert shown(tmp_path / "log", "of the first", *first, *BEFORE[3:], "of the second") == ["of the second"]


def test_of_a_group_what_begins_after_a_failure_does_not_hide_it(tmp_path):
    failed = ["RuleException:", 'ValueError in file "Snakefile", line 7:', "boom"]
    after = ["[Fri Nov 27 06:32:50 2026]", "Finished jobid: 3 (Rule: m)", "1 of 11 steps (9%) done",
             "Select jobs to execute...", "Execute 4 jobs...", *BEFORE[3:]]  # fmt: skip
    log = tmp_path / "log"
    log.write_text("\n".join([*BEFORE, "said", *failed, *ERROR, "", *after, "of another", *AFTER]) + "\n")
    assert tail(log, group=True) == ["said", *failed[1:], "of another"]
    assert tail(log) == ["of another"]  # a job alone is tried again, by `retries` of its rule
    # What ended its earlier lives is not why it has failed.
    with log.open("a") as file:
        file.write("\n".join(["[2026-11-27 06:40:00] smk.g: job 7 on n2, restarts: 1", *BEFORE, "again", *AFTER]))
    assert tail(log, group=True) == ["again"]


def job(*logs, rule="a", output=()):
    return SimpleNamespace(
        log=[str(log) for log in logs], rule=SimpleNamespace(name=rule), is_group=lambda: False, output=output
    )  # fmt: skip


def test_logs_of_rules(tmp_path):
    said, empty, old, bar = (tmp_path / name for name in ("said", "empty", "old", "bar"))
    said.write_bytes(b"\n".join(b"line %d" % number for number in range(30)) + b"\n\xff\xfe \x1b[31mred\x1b[0m\n\n")
    empty.touch()
    old.write_text("of an earlier run\n")
    os.utime(old, (1000, 1000))
    bar.write_text("".join(f"\r{number} %" for number in range(100)) + "x" * 600 + "\n")
    (tmp_path / "folder").mkdir()
    found = dict(rule_logs(job(said, empty, old, bar, tmp_path / "folder", tmp_path / "none"), 2000, []))
    assert list(found) == [str(said), str(bar)]
    assert found[str(said)] == [*(f"line {number}" for number in range(11, 30)), "\ufffd\ufffd red"]
    assert found[str(bar)] == ["99 %" + "x" * 496 + " ... (604 characters)"]
    assert all_shown_by_snakemake(job(old)) and all_shown_by_snakemake(job())
    assert not all_shown_by_snakemake(job(old, empty)) and not all_shown_by_snakemake(job(said))
    # A group has those of its rules; what is in the Slurm log already (tee) is not shown again.
    group = SimpleNamespace(toposorted=[[job(bar, rule="b"), job(said)]], is_group=lambda: True)
    assert [name for name, _ in rule_logs(group, 2000, [])] == [str(said), str(bar)]
    assert rule_logs(job(said), 2000, ["before", *found[str(said)], "after"]) == []


def test_of_a_large_group_the_logs_of_what_has_not_ended_are_shown(tmp_path):
    logs = [tmp_path / f"{number:03}" for number in range(200)]
    for number, log in enumerate(logs):
        log.write_text(f"of {log.name}\n")
        os.utime(log, (3000 + number, 3000 + number))
    failed = (3, 70)
    made = [[str(tmp_path / "none")] if number in failed else [str(logs[0])] for number in range(200)]
    group = SimpleNamespace(
        toposorted=[[job(log, output=output) for log, output in zip(logs, made, strict=True)]], is_group=lambda: True
    )  # fmt: skip
    found = rule_logs(group, 2000, [])
    assert [name for name, _ in found[:-1]] == [str(logs[number]) for number in failed]
    assert found[0][1] == ["of 003"] and found[-1][0] == "198 more logs of this group"
    for one in group.toposorted[0]:
        one.output = []
    assert [name for name, _ in rule_logs(group, 2000, [])[:-1]] == [str(log) for log in logs[-6:]]


def test_a_log_that_is_no_text_is_not_written_to_the_terminal(tmp_path):
    binary, latin = tmp_path / "binary", tmp_path / "latin"
    binary.write_bytes(bytes(range(128, 256)) * 1000)
    latin.write_bytes("der größte Fehler".encode("latin-1"))
    assert dict(rule_logs(job(binary, latin), 2000, [])) == {
        str(binary): ["(no text in UTF-8; 128000 bytes)"], str(latin): ["der gr\ufffd\ufffdte Fehler"],
    }  # fmt: skip


def test_the_end_of_a_very_large_log_is_read_alone(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(10**9)
        file.seek(0, 2)
        file.write(b"\nthe end\n")
    assert tail(log)[-1] == "the end"
