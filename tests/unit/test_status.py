"""`promptecho status` on files as real parts leave them: a list of jobs, Snakemake's log and marks, Slurm's queue."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from permissions import obey_permissions
from status_world import JOBS, LOG, ROW, Made, job
from typer.testing import CliRunner

from promptecho.clean.at_work import record_of
from promptecho.cli import app
from promptecho.config.reruns import REPLACED
from promptecho.errors import DataError
from promptecho.judges.record import Record
from promptecho.status.blocks import blocks
from promptecho.status.efficiency import measure
from promptecho.status.failures import read_failures
from promptecho.status.record import without_targets
from promptecho.status.report import look
from promptecho.status.show import page
from promptecho.status.stop import ask_to_stop
from promptecho.train.stop_file import stop_file_of


def test_every_job_is_in_one_state(tmp_path):
    made = Made(tmp_path)
    assert made.states() == {
        "prompts": (1, 0, 0, 0, 0), "generate_shard": (0, 0, 2, 0, 0), "train": (0, 0, 2, 0, 0),
        "score": (0, 0, 1, 0, 0),
    }  # fmt: skip
    made.finish(3, 36.0)
    made.begin("images/base/0/s/shards/1.jsonl")
    made.write(JOBS[4]["log"], "loading\ngenerate s base 0 shard 1: 10/40 images, 0.5/s, 60 s left\n")
    made.begin("runs/r/2/adapter")
    made.write("results/e/work/train/r/2/0123/live.jsonl", json.dumps(ROW) + "\n")
    assert made.states()["generate_shard"] == (1, 1, 0, 0, 0)
    status = look(made.results)
    (run,) = status.runs
    assert (run.state, run.iteration, run.total, run.segments) == ("running", 1, 4, "0/2")
    assert (run.reward, run.images_per_s, run.mfu, run.memory_gb) == (-1.5, 2.0, 0.31, 3.5)
    shard = next(one for one in status.running if one.job == "generate_shard base 0 s 1")
    assert (shard.progress.done, shard.progress.rate, shard.seconds_left) == (10, 0.5, 60)
    assert [(one.jobs, one.reason) for one in status.waiting] == [(1, "needs train"), (1, "needs generate_shard")]
    # One shard of 36 s on one GPU, the other is expected to last as long; three iterations are left on 8 GPUs.
    assert status.hours.gpu_used == pytest.approx(0.01, abs=0.003)
    assert status.hours.gpu_to_come == pytest.approx(0.4 + 0.01, abs=0.003) and status.hours.unknown == ["score"]


def test_a_killed_training_is_shown_with_its_last_line_and_the_command(tmp_path):
    made = Made(tmp_path)
    made.fail()
    made.write(
        JOBS[1]["log"], "train r: from iteration 0\ntrain r: 1/2 iterations, 0.02/s, 60 s left; reward -1.5000\n"
    )
    made.write("results/e/work/train/r/2/0123/live.jsonl", json.dumps(ROW) + "\n")
    status = look(made.results)
    assert status.runs[0].state == "failed"
    train, score = status.failed
    assert train.reason == "was killed (signal 9), by a person or for lack of memory" and score.reason == "exit code 3"
    assert train.last_line.endswith("reward -1.5000")
    assert train.command == "snakemake --profile profiles/local -- results/e/runs/r/2/adapter"
    assert [(one.jobs, one.reason) for one in status.waiting] == [
        (2, "ready: waits for its turn"), (1, "needs train r 2, which has failed")
    ]  # fmt: skip
    (log,) = (tmp_path / ".snakemake/log").iterdir()
    log.write_text(f"{LOG}Will exit after finishing currently running jobs (scheduler).\n")  # Snakemake's, on SIGTERM
    assert look(made.results).waiting[0].reason.startswith("Snakemake begins no more jobs")
    # Started again, it runs.
    made.begin("runs/r/2/adapter")
    assert look(made.results).runs[0].state == "running"


def test_a_training_that_is_taken_up_again_has_not_stalled(tmp_path):
    made = Made(tmp_path)
    live = made.write("results/e/work/train/r/2/0123/live.jsonl", json.dumps(ROW) + "\n")
    os.utime(live, (made.started - 1000, made.started - 1000))
    made.begin("runs/r/2/adapter")
    assert look(made.results).runs[0].state == "running"
    assert look(made.results, time.time() + 301).runs[0].state == "stalled"  # five times an iteration


def test_snakemake_was_killed(tmp_path):
    made = Made(tmp_path, pid_started=1)
    made.begin("runs/r/2/adapter")
    status = look(made.results)
    assert status.snakemake == "not running"
    assert [(one.job, one.state) for one in status.failed] == [("train r 2", "interrupted")]
    assert {one.reason for one in status.waiting} >= {
        "Snakemake is not running",
        "needs train r 2, which was interrupted",
    }


def test_a_mark_of_an_earlier_start_is_no_job_of_this_one(tmp_path):
    made = Made(tmp_path)
    for output in ("runs/r/2/adapter", "images/base/0/s/shards/0.jsonl"):
        made.begin(output)
    for path in (tmp_path / ".snakemake/incomplete").iterdir():
        os.utime(path, (made.started - 50, made.started - 50))
    assert made.states()["train"] == (0, 0, 2, 0, 0) and made.states()["generate_shard"] == (0, 0, 2, 0, 0)
    made.begin("runs/r/2/adapter")
    assert made.states()["train"] == (0, 1, 1, 0, 0)


def test_each_start_tells_for_its_own_jobs(tmp_path):
    made = Made(tmp_path)
    made.begin("runs/r/2/adapter")
    first = json.loads((made.results / "work/jobs/0.json").read_text())
    shard = {**first, "started": time.time() - 50, "targets": ["one"], "jobs": [JOBS[0], JOBS[3]], "pid_started": 1}
    # A newer one has ended, and the first goes on.
    made.write("results/e/work/jobs/1.json", json.dumps(shard))
    status = look(made.results)
    assert (status.snakemake, status.ended, [one.job for one in status.running]) == ("running", False, ["train r 2"])
    assert "ready: waits for its turn" in [one.reason for one in status.waiting]
    # An older one was killed while it trained, and the newest makes something else.
    made.write("results/e/work/jobs/0.json", json.dumps({**first, "pid_started": 1}))
    made.write("results/e/work/jobs/1.json", json.dumps({**shard, "pid_started": first["pid_started"]}))
    status = look(made.results)
    assert [(one.job, one.state) for one in status.failed] == [("train r 2", "interrupted")] and not status.running


def test_an_output_of_before_the_start_is_not_done(tmp_path):
    made = Made(tmp_path)
    made.finish(3, 1.0)
    assert made.states()["generate_shard"] == (1, 0, 1, 0, 0)
    os.utime(tmp_path / JOBS[3]["outputs"][0], (made.started - 50, made.started - 50))
    assert made.states()["generate_shard"] == (0, 0, 2, 0, 0)
    # Slurm has made it before, and this start has recorded the end.
    name = base64.urlsafe_b64encode(JOBS[3]["outputs"][0].encode()).decode()
    made.write(f".snakemake/metadata/{name}", "{}")
    assert made.states()["generate_shard"] == (1, 0, 1, 0, 0)


def test_where_snakemake_keeps_its_records(tmp_path):
    """As Snakemake itself would find them."""
    from snakemake.persistence.file import FilePersistence

    outputs = ["a/b.json", "results/" + "long" * 100]
    for output in outputs:
        theirs = FilePersistence._record_path(SimpleNamespace(_max_len=255, _fetch_max_len=lambda _: 255), "m", output)
        assert record_of(tmp_path, output) == tmp_path / "metadata" / Path(theirs).relative_to("m")


def test_a_stop_is_no_failure(tmp_path):
    made = Made(tmp_path)
    made.write(
        f".snakemake/log/{time.strftime('%Y-%m-%dT%H%M%S', time.localtime(made.started - 2))}.000000.snakemake.log",
        LOG.replace("137", "75"),
    )
    made.write("results/e/work/train/r/2/0123/live.jsonl", json.dumps(ROW) + "\n")
    ask_to_stop(made.results, "r")
    status = look(made.results)
    assert status.runs[0].state == "interrupted" and status.runs[0].stop_asked
    assert status.failed[0].reason == "stopped by promptecho stop; its state is saved"


def test_a_list_that_is_older_than_the_configuration_says_so(tmp_path):
    made = Made(tmp_path)
    assert look(made.results).notes == []
    os.utime(tmp_path / "e.yaml")
    assert look(made.results).notes[0].startswith("e.yaml was edited since")
    made.write("results/e/config/b.yaml", "runs: {r: {iterations: 4}}\n")
    assert look(made.results).notes[0].startswith("the configuration has changed since")


def test_jobs_of_an_earlier_start_are_remembered(tmp_path):
    """Somebody asks for one file while most is not made yet."""
    made = Made(tmp_path)
    earlier = json.loads((made.results / "work/jobs/0.json").read_text())
    now = {**earlier, "started": time.time(), "targets": ["results/e/prompts/s/metadata.jsonl"], "jobs": JOBS[:1]}
    made.write("results/e/work/jobs/1.json", json.dumps(now))
    assert made.states()["train"] == (0, 0, 2, 0, 0)
    made.write("results/e/work/jobs/1.json", json.dumps({**now, "config": "other.yaml"}))
    assert list(made.states()) == ["prompts"]


def test_results_without_a_list_show_what_is_done(tmp_path):
    made = Made(tmp_path)
    made.finish(1, 3600.0)
    (made.results / "work/jobs/0.json").unlink()
    status = look(made.results)
    assert status.notes == ["no list of jobs here (Snakemake writes one when it starts): only what is done is counted"]
    assert [(one.rule, one.done, one.seconds) for one in status.rules] == [("train", 1, 3600.0)]
    assert status.runs[0].state == "waiting" and status.hours.used == 1.0


def test_a_training_that_was_moved_aside_is_no_job(tmp_path):
    made = Made(tmp_path)
    made.finish(1, 3600.0)
    aside = f"results/e/timings/train/r{REPLACED}0123456789abcdef.2.tsv"
    made.write(aside, (tmp_path / JOBS[1]["timing"]).read_text())
    (made.results / "work/jobs/0.json").unlink()
    assert [(one.rule, one.done) for one in look(made.results).rules] == [("train", 1)]
    assert [(use.rule, use.jobs) for use in measure(made.results).rules] == [("train", 1)]


def test_jobs_that_need_each_other_are_shown(tmp_path):
    """As lists of two starts together may have it."""
    jobs = [job("a", ["a"], (1,)), job("b", ["b"], (2,)), job("c", ["c"], (0, 2)), job("d", ["d"], (1, 4))]
    jobs.append(job("e", ["e"], K="1"))
    made = Made(tmp_path, jobs=jobs)
    made.write("results/e/e", "")
    status = look(made.results)
    assert sorted(one.rule for one in status.rules) == ["a", "b", "c", "d", "e"] and status.rules[-1].rule == "d"
    waiting = {(one.jobs, one.reason) for one in status.waiting}
    assert waiting == {(1, "needs a, c"), (2, "needs b"), (1, "needs c")}


def test_damage_is_named(tmp_path):
    made = Made(tmp_path)
    made.write("results/e/work/train/r/2/0123/live.jsonl", "no row\n{}\n")
    status = look(made.results)
    assert "live.jsonl:1: not valid JSON" in status.notes[0] and len(status.rules) == 4 and status.runs == []
    made.write("results/e/work/jobs/0.json", '{"schema_version": 1, "jobs": [{}]}')
    with pytest.raises(DataError, match=r"work/jobs/0.json: not a list of jobs .*delete it"):
        look(made.results)
    with pytest.raises(DataError, match="no such folder"):
        look(tmp_path / "results/f")


def test_a_damaged_experiment_hides_no_other_one(tmp_path, monkeypatch):
    made = Made(tmp_path)
    made.write("results/e/judges/j/calls.jsonl", "")
    made.write("results/e/config/b.yaml", "judges: {models: [\n")  # newest, and no YAML
    assert [one.judge for one in look(made.results).judges] == ["j"]
    made.write("results/f/config/a.yaml", "")
    made.write("results/f/work/jobs/0.json", "{")
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, ["status", "--json"])
    (told,) = json.loads(run.output)
    assert told["experiment"].endswith("e") and any("work/jobs/0.json" in note for note in told["notes"])
    assert isinstance(CliRunner().invoke(app, ["status", "results/f"]).exception, DataError)


def test_a_copy_of_a_checkpoint_and_a_folder_that_may_not_be_read(tmp_path):
    made = Made(tmp_path)
    made.write("results/e/runs/r/4.bak/metrics.jsonl", json.dumps(ROW) + "\n")
    assert [one.iteration for one in look(made.results).runs] == [0]
    (made.results / "work").chmod(0)
    command = [sys.executable, "-m", "promptecho", "status", "results/e", "--json"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=obey_permissions)
    (made.results / "work").chmod(0o755)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)[0]["notes"][0].startswith("no list of jobs here")


def test_nothing_is_written(tmp_path):
    made = Made(tmp_path)
    made.finish(3, 1.0)
    made.begin("runs/r/2/adapter")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    look(made.results)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_screen_the_page_and_the_numbers(tmp_path, monkeypatch):
    made = Made(tmp_path)
    made.fail()
    made.write(JOBS[1]["log"], "<script>alert(1)</script> & more\n")
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["status"])
    assert shown.exit_code == 0, shown.output
    assert "train r 2 failed: was killed" in shown.output and "<script>alert(1)</script> & more" in shown.output
    told = json.loads(CliRunner().invoke(app, ["status", "results/e", "--json"]).output)
    assert [one["failed"] for one in told[0]["rules"]] == [0, 0, 1, 1]
    assert CliRunner().invoke(app, ["status", "--html", "page.html"]).exit_code == 0
    written = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in written and "<script" not in written
    assert not re.search(r"(src|href)=", written)
    wrong = CliRunner().invoke(app, ["status", "--json", "--watch"])
    assert "give one of --watch, --json and --html" in str(wrong.exception)


def test_a_page_has_every_job_and_a_screen_the_first_of_many(tmp_path):
    many = [
        job("generate_shard", [f"images/base/0/s/shards/{k}.jsonl"], R="base", N="0", S="s", K=str(k))
        for k in range(30)
    ]
    made = Made(tmp_path, jobs=many)
    for k in range(30):
        made.begin(f"images/base/0/s/shards/{k}.jsonl")
    status = look(made.results)
    running = next(block for block in blocks(status) if block.columns and block.columns[0].label == "Running job")
    assert len(running.rows) == 12 and running.lines == [("", "and 18 more (--json has all)")]
    assert page(status).count("generate_shard base 0 s") == 30


def test_judges_by_their_own_record(tmp_path):
    made = Made(tmp_path)
    prices = "{model: m, usd_per_million_input_tokens: 1000, usd_per_million_output_tokens: 2000}"
    config = made.write("results/e/config/a.yaml", f"runs: {{}}\njudges: {{models: {{mine: {prices}}}}}\n")
    os.utime(config, (made.started - 1, made.started - 1))
    with Record(made.results / "judges/mine", "m") as record:
        for key, status in (("a", "ok"), ("b", "failed"), ("c", "refused"), ("d", None)):
            with record.transaction():
                begun = record.begin(key, key, 0, input_tokens=900, output_tokens=100, guess=0)
            if status is not None:
                text = 'I say "status":"ok","input_tokens":5'
                tokens = {"input_tokens": 0, "output_tokens": 0} if status == "failed" else {"output_tokens": 10}
                record.end(begun, status, text=text, **tokens)
        record.give_up("b", "b", "no answer")
    made.write("results/e/logs/judge/b/r/4.log", "judge m: 12 questions, 8 already done\njudge m: 9/12\n")
    (judge,) = look(made.results).judges
    assert (judge.judge, judge.calls, judge.answered, judge.failed, judge.under_way) == ("mine", 4, 1, 2, 1)
    assert judge.reused == 8 and judge.usd == pytest.approx((1800 * 1000 + 20 * 2000) / 1e6)


def test_a_run_is_asked_to_stop_and_not_after_all(tmp_path):
    made = Made(tmp_path)
    stop = stop_file_of(made.results, "r")
    told = CliRunner().invoke(app, ["stop", str(made.results), "--run", "r"])
    assert told.exit_code == 0 and "stops after the iteration under way" in told.output and stop.is_file()
    assert "r: goes on" in CliRunner().invoke(app, ["stop", str(made.results), "--run", "r", "--undo"]).output
    assert not stop.exists()
    wrong = CliRunner().invoke(app, ["stop", str(made.results), "--run", "rr"])
    assert f"--run rr: no such run in {made.results} (known: r)" in str(wrong.exception)


def test_undo_touches_no_file_that_is_not_a_request(tmp_path):
    made = Made(tmp_path)
    other = made.write("other/stop", "")
    ask_to_stop(made.results, "r")
    for name in ("../../../../other", "rr"):
        wrong = CliRunner().invoke(app, ["stop", str(made.results), "--run", "r", "--run", name, "--undo"])
        assert f"--run {name}: no such run" in str(wrong.exception)
    assert other.exists() and stop_file_of(made.results, "r").exists()


def test_the_command_without_its_targets():
    assert without_targets(["/x/snakemake", "--profile", "all", "-c2", "all"], ["all"]) == [
        "snakemake",
        "--profile",
        "all",
        "-c2",
    ]
    assert without_targets(["/x/snakemake", "--profile", "p", "--", "all"], ["all"]) == ["snakemake", "--profile", "p"]
    assert without_targets(["/x/snakemake/__main__.py", "a", "-n", "b"], ["a", "b"]) == ["snakemake", "-n"]


def test_what_a_real_interrupted_training_has_left(tmp_path, monkeypatch):
    """Files of a small experiment on a CPU, whose trainer and then whose Snakemake were ended with `kill -9`: all that
    are read, none that are large. Only paths of the machine were changed."""
    with tarfile.open(Path(__file__).with_name("interrupted_training.tar.xz")) as tar:
        tar.extractall(tmp_path, filter="fully_trusted")  # of this repository; other filters drop times of folders
    monkeypatch.setattr(socket, "gethostname", lambda: "desk")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        status = look(tmp_path / "results/tiny")
        # The trainer's end, in an earlier start.
        killed = read_failures(tmp_path, datetime(2026, 11, 28, 12, 11, 30, tzinfo=UTC).timestamp())
    finally:
        monkeypatch.undo()
        time.tzset()
    rules = {one.rule: (one.done, one.interrupted, round(one.seconds)) for one in status.rules}
    assert list(rules) == ["training_images", "caption_shard", "captions", "train"]
    assert rules["caption_shard"][:2] == (3, 0) and rules["train"][:2] == (1, 1) and rules["train"][2] > 200
    (run,) = status.runs
    assert (run.state, run.iteration, run.total, run.segments) == ("interrupted", 3, 4, "1/2")
    assert run.reward == pytest.approx(-0.7343, abs=1e-3) and run.images_per_s > 0 and run.memory_gb > 0.5
    (one,) = status.failed
    assert (one.job, one.reason) == ("train echo-s1 4", "Snakemake was ended while it ran")
    assert "3/4 iterations" in one.last_line and one.command.endswith("-- results/tiny/runs/echo-s1/4/adapter")
    assert {reason.reason for reason in killed.values()} == {"was killed (signal 9), by a person or for lack of memory"}
    assert "results/tiny/runs/echo-s1/2/state" in killed
