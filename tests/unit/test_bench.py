"""The benchmark: its budget, failures as rows, results that stay; its steps and `perf/gpu/all.py` at tiny size."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forked import ended
from tiny_experiment import Experiment

from promptecho.bench.context import open_bench
from promptecho.bench.report import page
from promptecho.bench.runner import Step, exit_code, read_rows, run_steps
from promptecho.bench.suite import STEPS, steps_of
from promptecho.bench.transformer import folded, policy
from promptecho.errors import ConfigError
from promptecho.files import write_json
from promptecho.plan.settings import read_mfu

ROOT = Path(__file__).resolve().parent.parent.parent
WRITES = """
import json, sys, time
rows = open(sys.argv[sys.argv.index("--rows") + 1], "a")
def row(**values):
    rows.write(json.dumps(values) + "\\n"); rows.flush()
"""


def step(name: str, code: str, *, least=0.0, limit=60.0, needs=()) -> Step:
    return Step(name, [sys.executable, "-S", "-c", WRITES + textwrap.dedent(code)], least, limit, needs)


def test_each_step_is_a_row_or_the_reason_why_it_is_none(tmp_path):
    steps = [
        step("good", 'row(facts={"device": "x"}); row(what="all", seconds=[1.0, 3.0, 2.0], tflops=2.0, is_peak=True)'),
        step("unknown", 'print("compute.fast: is not a known key"); sys.exit(3)'),
        step(
            "short",
            'row(what="half", tflops=1.0); print("CUDA out of memory. Tried"); print("y"); sys.exit(1)',
        ),
        step("ours", 'print("promptecho: a.yaml: what and why"); print("at line 7"); sys.exit(1)'),
        step("hangs", 'row(what="first", seconds=[0.5]); time.sleep(60)', limit=1.5),
        step("killed", "import os; os.kill(os.getpid(), 9)"),
        step("behind", "row(what=1)", needs=("good", "short")),
        step("long", "row(what=1)", least=90.0),
        step("last", 'row(what="still there")', needs=("good",)),
    ]
    out = tmp_path / "results.json"
    results = run_steps(steps, {"title": "t"}, out, minutes=1, told=lambda _: None)
    assert json.loads(out.read_text()) == results and results["device"] == "x" and exit_code(results) == 1
    found = {row["step"]: row for row in results["rows"]}  # the last of each
    assert found["unknown"]["absent"] == "compute.fast: is not a known key"
    assert "CUDA out of memory" in found["short"]["failed"] and "what and why" in found["ours"]["failed"]
    assert "out of time after 2 s" in found["hangs"]["failed"] and "SIGKILL" in found["killed"]["failed"]
    assert found["behind"]["not_run"] == "needs the step short"
    assert "s left, it takes about 90" in found["long"]["not_run"]
    assert found["last"]["what"] == "still there"
    assert list(results["step_seconds"]) == ["good", "unknown", "short", "ours", "hangs", "killed", "last"]
    partial = [row["step"] for row in results["rows"] if row.get("what") in ("half", "first")]
    assert partial == ["short", "hangs"]  # what was measured before a failure
    text = page(results)
    cells = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "2.00 (1.00 - 3.00), n=3" in cells["good"] and "not there: compute.fast" in cells["unknown"]
    assert "| the rest " in cells["hangs"] and "failed: out of time" in cells["hangs"]  # it has a row of before
    assert "the rest" not in cells["killed"] and "The processes took, with loading: good " in text
    assert "50%" in next(line for line in text.splitlines() if "| half" in line)  # of the peak
    assert "- Failed: short, ours, hangs, killed." in text and "- Not there: unknown." in text


def test_a_report_begins_with_what_most_look_for():
    rows = [
        {"step": "peak", "what": "product", "tflops": 800.0, "seconds": [0.00123], "is_peak": True},
        {"step": "iteration", "what": "update", "tflops": 4.0, "seconds": [41.4]},
        {
            "step": "iteration",
            "what": "iteration",
            "tflops": 264.0,
            "seconds": [94.6, 95.3, 96.1],
            "remarks": "0.042 images/s",
        },
        {
            "step": "sampler",
            "what": "ours",
            "ratio": [1.36, 1.4, 1.5],
            "remarks": "against the pipeline; first call 9 s",
        },
        {"step": "sampler compile=off", "what": "ours", "ratio": [1.0], "remarks": "against the pipeline"},
    ]
    text = page({"rows": rows, "minutes": 10})
    assert "- A training iteration takes 95.3 (94.6 - 96.1) s (0.042 images/s), 33% of this card's peak." in text
    assert "- sampler, ours: speed-up 1.40 (1.36 - 1.50) against the pipeline.\n\n|" in text  # as configured alone
    assert " 0.00123, n=1 |" in text and "|    0.5% |" in text


def test_the_budget_is_kept(tmp_path):
    begun = time.monotonic()
    steps = [step("one", "time.sleep(60)"), step("two", "row(what=1)", least=1.0), step("three", "row(what=1)")]
    results = run_steps(steps, {}, tmp_path / "out.json", minutes=1 / 30, told=lambda _: None)
    assert time.monotonic() - begun < 30
    assert "out of time" in results["rows"][0]["failed"]
    assert [row["not_run"] for row in results["rows"][1:]] == ["0 s left, it takes about 1", "0 s left"]


def test_ten_minutes_hold_what_the_docs_say():
    """docs/performance.md, "If you have a GPU for a few minutes"; with 71 s for the models."""
    names = list(STEPS)[: list(STEPS).index("forward compile=off") + 1]
    assert names == ["peak", "iteration", "reward", "forward", "forward compile=off"]
    assert 71 + sum(STEPS[name][1] for name in names) < 600
    (embedded,) = steps_of(["iteration"], Path("shapes.yaml"), [], [], embedded=True)  # a demo's takes no 270 s
    assert embedded.least_s == 90


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_keeps_what_is_there_and_ends_the_step(tmp_path, number):
    """The step does not heed SIGTERM; Ctrl-C a second time does not wait for it any longer, and does end it."""
    out, child = tmp_path / "out.json", tmp_path / "child"
    code = f"""
        import os, signal
        signal.signal(signal.SIGTERM, lambda *_: open({str(tmp_path / "asked")!r}, "w").close())
        row(what="so far", seconds=[1.0])
        open({str(child)!r}, "w").write(str(os.getpid()))
        while True:
            time.sleep(60)
    """
    process = _bench(tmp_path, out, code)
    _wait_for(lambda: child.is_file() and child.read_text())
    process.send_signal(number)
    _wait_for((tmp_path / "asked").is_file)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    results = json.loads(out.read_text())
    assert results["interrupted"] and list(results["step_seconds"]) == ["one"]
    assert [row.get("what") for row in results["rows"]] == ["so far", None]
    assert not Path(f"/proc/{child.read_text()}").exists()


def test_the_end_of_the_terminal_is_ignored_where_it_was_before(tmp_path):
    """As under nohup."""
    code = f"""
        open({str(tmp_path / "begun")!r}, "w").close()
        while not __import__("os").path.exists({str(tmp_path / "go")!r}):
            time.sleep(0.05)
    """
    process = _bench(tmp_path, tmp_path / "out.json", code, "signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    _wait_for((tmp_path / "begun").is_file)
    process.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    assert process.wait(30) == 0


def _bench(tmp_path: Path, out: Path, code: str, before: str = "") -> subprocess.Popen:
    """A process that runs a step of this code twice."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import signal, sys\nfrom pathlib import Path\nfrom promptecho.bench.runner import *\n{before}\n"
        f"one = Step('one', [sys.executable, '-S', '-c', {WRITES + textwrap.dedent(code)!r}], 0, 60)\n"
        f"sys.exit(exit_code(run_steps([one, one], {{}}, Path({str(out)!r}), 1)))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, script], env=environ, stdout=subprocess.DEVNULL)


def _wait_for(true: Callable[[], object]) -> None:
    while not true():
        time.sleep(0.05)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    experiment = Experiment(tmp_path_factory.mktemp("bench"))
    return experiment.config(activation_checkpointing=True)


def measured(config: Path, name: str, tmp_path: Path, *more: str, code: int = 0) -> tuple[list[dict], str]:
    rows = tmp_path / "rows.jsonl"
    words = [
        name,
        "--config",
        config,
        "--rows",
        rows,
        "--rounds",
        "1",
        "--images",
        "4",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    stderr = ended(
        [*words, "--steps", "2", "--tokens", "8", *more], script=ROOT / "promptecho/bench/step.py", code=code
    )[1]
    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    return [row for row in found if "facts" not in row], stderr


def test_one_pass_and_its_kernels(config, tmp_path):
    """What machine it was, such a step tells too, where `peak` is not asked for."""
    equal, mixed, kernels = measured(config, "forward", tmp_path)[0]
    (told,) = (row["facts"] for row in read_rows(tmp_path / "rows.jsonl", "forward") if "facts" in row)
    head = page({"rows": [], "minutes": 1, **told}).splitlines()[2]
    assert head.startswith("CPU, ") and f"torch {torch.__version__}, python 3." in head and "diffusers" in head
    assert equal["tflops"] > 0 and "against equal lengths" in mixed["remarks"]
    assert any("mm" in kernel["name"] for kernel in kernels["kernels"])


def test_the_model_is_the_one_that_training_would_take(config, tmp_path):
    words = ["compute.fold_adapter=true", "models.t2i.dtype=bfloat16", "training.activation_checkpointing={}"]
    for mode, checkpoints in (("auto", False), ("full", True)):  # auto is off on a CPU
        arguments = Namespace(
            config=config, run=None, images=2, rounds=1, tokens=8, rows=tmp_path / "rows.jsonl", device="cpu",
            threads=1, changes=[word.format(mode) for word in words],
        )  # fmt: skip
        bench = open_bench(arguments)
        family = policy(bench)
        inner = family.transformer.base_model.model
        assert inner.is_gradient_checkpointing is checkpoints
    layer = inner.layers[0].attention.to_q.base_layer
    before = layer.weight.clone()
    with folded(bench, family):
        assert not torch.equal(layer.weight, before)
    assert torch.equal(layer.weight, before)


def test_sampler_and_pipeline_make_the_same_images(config, tmp_path):
    rows, _ = measured(config, "sampler", tmp_path)
    assert [("ratio" in row, "tflops" in row) for row in rows] == [(0, 0), (0, 0), (1, 1), (1, 0), (0, 0)]
    most = int(rows[-1]["remarks"].split("differ by ")[1].split(" of 255")[0])
    assert most <= 1


def test_the_reward_is_the_plain_calls(config, tmp_path):
    plain, ours = measured(config, "reward", tmp_path)[0]
    assert float(ours["remarks"].split("differ by ")[1].split()[0]) < 1e-5
    assert len(ours["ratio"]) == 1 and "tflops" not in plain


def test_gradients_of_the_update(config, tmp_path):
    rows, _ = measured(config, "update", tmp_path, "--set", "training.micro_batch_size=2")
    assert [row["what"].split(", ")[1] for row in rows] == ["4 images", "2 images", "1 image"]
    assert all("two gradients have the same bits" in row["remarks"] and row["tflops"] > 0 for row in rows)


@pytest.mark.parametrize("change", ["compute.fast=true", "compute.attention=other", "compute.attention=flash3"])
def test_what_this_checkout_or_machine_does_not_have_is_told_apart(config, tmp_path, change):
    rows, stderr = measured(config, "forward", tmp_path, "--set", change, code=3)
    assert change.split("=")[0] in stderr and not rows


def test_everything_at_tiny_size_by_one_command(tmp_path):
    """Real processes: the peak, random models, two iterations of `promptecho train`."""
    out, report = tmp_path / "all.json", tmp_path / "all.md"
    words = ["--tiny", "--device", "cpu", "--threads", "1", "--rounds", "1", "--out", out, "--report", report]
    words += ["--steps", "peak,iteration", "--minutes", "60", "--set", "training.lora.rank=2"]
    stdout, _ = ended(words, script=ROOT / "perf/gpu/all.py")
    results = json.loads(out.read_text())
    assert list(dict.fromkeys(row["step"] for row in results["rows"])) == ["peak", "models", "iteration"]
    assert not [row for row in results["rows"] if "failed" in row] and results["device"].startswith("CPU")
    told = [row["what"] for row in results["rows"] if row["step"] == "iteration"]
    assert told == ["iteration 1", "iteration 2", "sample", "reward", "precompute", "update", "iteration"]
    assert all(row["tflops"] > 0 for row in results["rows"] if row["step"] == "iteration")
    assert "hfu" not in results  # no datasheet of a CPU
    assert report.read_text().strip() == stdout.strip()


def test_mfu_of_a_plan_is_a_share_or_what_was_measured(tmp_path):
    file = tmp_path / "bench.json"
    write_json(file, {"gpu": "h100", "hfu": {"sample": 0.5, "update": 0.4}})
    assert read_mfu("0.4", "l40s") == (0.4, {})
    assert read_mfu(str(file), "H100") == (0.3, {"sample": 0.5, "update": 0.4})
    with pytest.raises(ConfigError, match="measured on h100, not on l40s; give --gpu h100"):
        read_mfu(str(file), "l40s")
    for content, problem in (({}, "has no shares"), ({"hfu": {"sample": 30}}, "hfu.sample: 30"), ([], "has no shares")):
        write_json(file, content)
        with pytest.raises(ConfigError, match=problem):
            read_mfu(str(file), "h100")
    for wrong in ("30", "nan", str(tmp_path / "none.json")):
        with pytest.raises(ConfigError, match="--mfu"):
            read_mfu(wrong, "h100")


def test_a_plan_takes_each_phases_share(config):
    from promptecho.config import load_experiment
    from promptecho.plan.gpus import find_gpu
    from promptecho.plan.plan import Planner
    from promptecho.plan.result import Cluster
    from promptecho.plan.settings import Settings

    loaded, cluster = load_experiment(config), Cluster(find_gpu("h100"), 1, 1)

    def seconds(**measured: float) -> dict[str, float]:
        settings = Settings(0.25, 1.0, 1.0, 0.0, 8, 1, loaded.captions.query, True, measured)
        return {phase.name: phase.seconds for phase in Planner(settings).run(loaded, cluster, "r").phases}

    usual, known = seconds(), seconds(sample=0.5, update=0.125)
    assert known["sample"] == usual["sample"] / 2 and known["decode"] == usual["decode"] / 2
    assert known["update"] == 2 * usual["update"] and known["precompute"] == usual["precompute"]


def test_wheels_are_made_smaller_and_stay_wheels(tmp_path):
    names = ("thing-1-cp311-cp311-manylinux_2_28_x86_64.whl", "thing-1-py3-none-any.whl")
    content = {"thing/code.so": b"".join(b"%09d" % n for n in range(120_000)), "thing-1.dist-info/RECORD": b""}
    for name in names:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_STORED) as wheel:
            for path, data in content.items():
                wheel.writestr(path, data)
    before = [(tmp_path / name).stat().st_size for name in names]
    assert min(before) > 1_000_000
    command = [sys.executable, "-S", ROOT / "perf/gpu/repack.py", tmp_path]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = [(tmp_path / name).stat().st_size for name in names]
    assert after[0] < before[0] and after[1] == before[1]  # those of Python alone stay
    assert told == f"2 wheels: {sum(before) / 1e6:.1f} MB before, {sum(after) / 1e6:.1f} MB now\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)
    for name in names:
        with zipfile.ZipFile(tmp_path / name) as wheel:
            assert {path: wheel.read(path) for path in wheel.namelist()} == content


def test_what_a_machine_with_torch_alone_gets_is_pinned():
    def plain(name: str) -> str:
        return re.split(r"[=;]", name.strip())[0].lower().replace("_", "-")

    lines = (ROOT / "perf/gpu/requirements.txt").read_text().splitlines()
    names = [plain(line) for line in lines if line and not line.startswith("#")]
    pinned = {plain(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert set(names) <= pinned and len(names) == len(set(names))
    # Of what the steps' packages name as needed: what no step of the benchmark imports.
    assert not {"click", "importlib-metadata", "markdown-it-py", "scipy", "torch", "triton"} & set(names)
