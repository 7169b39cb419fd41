"""`doctor --rehearse` runs every stage by its own command, names the one that fails, and leaves results alone."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from judge_server import KEY, serving
from rich.console import Console
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.cluster.gpus import VISIBLE
from promptecho.config import load_experiment, run_training
from promptecho.config.yaml_files import deep_merge
from promptecho.doctor import rehearsal, rehearsal_command, rehearsal_runner, rehearsal_stages
from promptecho.doctor.diagnosis import Diagnosis
from promptecho.doctor.preflight import Preflight, make_preflight
from promptecho.doctor.rehearsal import Rehearsal, rehearse, rehearse_and_clean
from promptecho.doctor.rehearsal_command import launch
from promptecho.doctor.rehearsal_config import rehearsed_runs
from promptecho.doctor.rehearsal_job import belongs_to_a_node, rehearse_on_a_node
from promptecho.doctor.rehearsal_stages import Stages
from promptecho.doctor.rehearsed_stage import RehearsedStage
from promptecho.doctor.show import rehearsal_lines, rehearsal_table
from promptecho.envs.spec import ENVS, read_spec
from promptecho.errors import ConfigError, DataError, Interrupted

EXPERIMENTS = Path(__file__).resolve().parent.parent.parent / "config/experiments"
EXPERIMENT: dict[str, Any] = {
    "models": {"t2i": {"path": "shapes", "dtype": "float32", "height": 64, "width": 64}, "vlm": {"path": "shapes"}},
    "captions": {"prompts": "prompts.txt", "heldout": 2},
    "training": {"iterations": 2, "checkpoints": [2], "lora": {"rank": 2}, "sampling": {"num_inference_steps": 2}},
    "runs": {"echo": {"seed": 1}, "other-seed": {"seed": 2}},
    "image_sets": {
        "geneval": {"benchmark": "geneval", "shapes": {"per_tag": 1, "seed": 1}, "num_inference_steps": 2},
        "textocr": {"benchmark": "textocr", "shapes": {"per_tag": 1, "seed": 1}, "num_inference_steps": 2},
    },
    "benchmarks": {
        "geneval": {"image_set": "geneval", "scorer": "geneval", "backend": "oracle"},
        "textocr": {"image_set": "textocr", "scorer": "textocr", "backend": "rapidocr"},
    },
    "evaluate": [{"benchmark": "geneval"}, {"benchmark": "textocr"}],
    "resources": {"train": {"threads": 1}},
}


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A folder in which the preflight starts, with the experiment and changed keys."""
    monkeypatch.chdir(tmp_path)

    def make(profile: str = "", **changes: Any) -> Preflight:
        Path("tiny.yaml").write_text(yaml.safe_dump(deep_merge(EXPERIMENT, changes)))
        Path("profile").mkdir(exist_ok=True)
        Path("profile/config.yaml").write_text(profile or "cores: 1\n")
        return make_preflight(Path("tiny.yaml"), Path("profile"))

    return make


def test_every_stage_runs_once_and_the_one_that_fails_is_named_while_the_others_go_on(start, monkeypatch):
    """The package that reads letters is broken."""
    Path("broken").mkdir()
    Path("broken/rapidocr.py").write_text("raise ImportError('built for another Python')\n")
    monkeypatch.setenv("PYTHONPATH", f"{Path('broken').absolute()}:{os.environ.get('PYTHONPATH', '')}")
    Path("prompts.txt").write_text("A bird.\nA house.\nA tree.\nA boat.\n")
    monkeypatch.setenv("TMPDIR", str(Path("temporary").absolute()))
    monkeypatch.setattr(rehearsal.tempfile, "tempdir", None)
    Path("temporary").mkdir()
    found = rehearse_and_clean(start(), keep=False)
    outcomes = {stage.name: stage.outcome for stage in found.stages}
    assert outcomes == {
        "caption": "ok", "train echo": "ok", "generate echo": "ok", "score geneval": "ok", "score textocr": "failed",
    }  # fmt: skip
    (broken,) = (one for one in found.findings() if one.severity == "problem")
    assert "rehearsal: score textocr: " in broken.what and "rapidocr" in broken.what and "rule score" in broken.when
    script = Path(broken.fix.partition("bash ")[2].partition(" runs it again")[0])
    assert "promptecho score --benchmark textocr" in script.read_text()
    assert Path("temporary") in Path(os.path.relpath(found.folder)).parents  # kept, since a stage failed
    images = sorted(path.name for path in Path(found.folder, "images-made/echo/geneval").rglob("*.png"))
    assert len(images) == 1
    trained = found.stages[1]
    assert trained.at_work and trained.seconds and trained.at_work < trained.seconds and trained.memory_gb
    assert not Path("results").exists() and not found.passed
    json.dumps(found.facts())


@pytest.mark.parametrize("name", ["zimage", "qwenimage", "shapes", "gallery", "gallery-posters", "poster"])
def test_the_project_s_experiments_have_a_smallest_form(name, tmp_path, monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent.parent)
    preflight = make_preflight(EXPERIMENTS / f"{name}.yaml", None)
    runs = rehearsed_runs(preflight, tmp_path, None, small=True)
    for run in runs:
        training, before = run_training(run.config, run.name), run_training(preflight.config, run.name)
        assert (training.prompts_per_iteration, training.images_per_prompt, training.checkpoint_steps) == (1, 2, [1])
        assert training.lora == before.lora and run.config.models == preflight.config.models
        assert all(one.limit == 1 for one in run.config.benchmarks.values())
        assert "results" not in str(run.config.models_prompt_cache)
    assert len({run.name for run in runs}) == len(runs) >= 1


def test_runs_that_load_or_compute_otherwise_are_tried_at_their_largest_size(start):
    sizes = [{"height": 64, "width": 64}, {"height": 64, "width": 96}]
    cut = {"distribution": "sampler_grid", "grid_share": 0.2, "per_sample": 2}  # of 10 steps 2 are left, of 8 one
    runs = {
        "whole": {"finetuning": "full"}, "wide": {"sizes": sizes}, "nft": {"algorithm": "nft"},
        "cut": {"algorithm": "grpo", "sampling": {"num_inference_steps": 10}, "timesteps": cut},
        "rank": {"lora": {"rank": 4}}, "stage": {"zero_stage": 2}, "third-seed": {"seed": 3},
    }  # fmt: skip
    found = rehearsed_runs(start(runs=runs), Path("folder"), None, small=True)
    tried = {run.name: run_training(run.config, run.name) for run in found}
    assert tried.keys() == {"echo", *runs} - {"third-seed"}
    wide = tried["wide"]
    assert (wide.sizes, wide.height, wide.width) == (None, 64, 96) and tried["whole"].height is None
    assert tried["cut"].timesteps.per_sample == 2 and tried["cut"].sampling.num_inference_steps == 8


def test_ranks_are_those_of_the_profile_and_are_compared_with_one(start, monkeypatch):
    Path("prompts.txt").write_text("A bird.\nA house.\nA tree.\nA boat.\n")
    assert rehearsal_stages._ranks(start()) == 1
    assert rehearsal_stages._ranks(start("set-resources: {train: {tasks_per_node: 3}}\n")) == 3
    assert rehearsal_stages._ranks(start("executor: submitit\nset-resources: {train: {nodes: 4}}\n")) == 2
    preflight = start("set-resources: {train: {tasks_per_node: 2}}\n")
    stages = Stages(preflight, Path("folder"), 1.0, False)
    assert run_training(stages.runs[0].config, "echo").reward_placement.mode == "replicated"
    trial = {"processes": 2, "seconds": {"sample": 1.5, "update": 2.0}, "memory_gb": {"update": 0.5}}
    outcome = {"problem": "sharded: no", "trials": [trial], "differences": {"reward": {"found": 0.2, "tolerated": 0.1}}}

    def run_steps(steps: Any, facts: Any, out: Path, *_: Any) -> dict[str, Any]:
        (step,) = steps
        assert "--smoke" in step.command and step.command[-3:] == ["--ranks", "2", "--json"]
        whole = load_experiment(step.command[step.command.index("--config") + 1])
        assert whole.models_prompt_cache == str(Path("folder/prompt-cache"))  # in no results
        log = out.with_name(f"{out.name}.logs") / f"{step.name}.log"
        log.parent.mkdir(parents=True)
        log.write_text(f"smoke: sharded\n{json.dumps(outcome, indent=2)}\n")
        return {"rows": [{"step": step.name, "failed": "}"}], "seconds": 9.0, "interrupted": False}

    monkeypatch.setattr(rehearsal_runner, "run_steps", run_steps)
    stage = stages._train_on_several()
    assert (stage.name, stage.problem, stage.at_work, stage.memory_gb) == ("train on 2 ranks", "sharded: no", 3.5, 0.5)
    assert stage.note == "differences to one rank: reward 0.2 (tolerated: 0.1)" and "runs it again" in stage.fix


def test_what_others_have_not_made_is_made_up_left_out_or_made_by_itself(start, monkeypatch):
    """Captions fail, training as well, and one of two image sets: no command is run here."""
    heldout = {"benchmark": "captions", "heldout": 2, "images_per_prompt": 1}
    scored = {"image_set": "heldout", "scorer": "densealign", "backend": "oracle"}
    preflight = start(
        captions={"prompts": None, "shapes": {"count": 9, "seed": 1}}, image_sets={"heldout": heldout},
        benchmarks={"heldout": scored}, evaluate=[*EXPERIMENT["evaluate"], {"benchmark": "heldout"}],
    )  # fmt: skip
    ran: list[str] = []

    def run_steps(steps: Any, facts: Any, out: Path, *_: Any) -> dict[str, Any]:
        command = " ".join(steps[0].command[3:])
        ran.append(command)
        bad = any(words in command for words in ("caption shard", "train ", "--image-set textocr"))
        if command.startswith("generate") and not bad:
            Path("folder/images-made/base/geneval/shards").mkdir(parents=True)
            Path("folder/images-made/base/geneval/shards/0.jsonl").touch()
        row = {"failed": "no"} if bad else {"host_gb": 0.5, "gpu_gb": None}
        return {"rows": [row], "seconds": 1.0, "interrupted": False}

    monkeypatch.setattr(rehearsal_runner, "run_steps", run_steps)
    outcomes = {one.name: one.outcome for one in Stages(preflight, Path("folder"), 1.0, False).all()}
    assert outcomes == {
        "caption": "failed", "train echo": "failed", "generate heldout": "not tried", "generate base geneval": "ok",
        "generate base textocr": "failed", "score geneval": "ok", "score textocr": "not tried",
        "score heldout": "not tried",
    }  # fmt: skip
    assert Path("folder/captions/captions.h5").is_file() and "--captions folder/captions/captions.h5" in ran[2]
    assert [command.split()[0] for command in ran] == ["shapes", "caption", "train", *["generate"] * 3, "score"]
    assert " -m promptecho train --config folder/config/" in Path("folder/again/train_echo-1.sh").read_text()


def test_judges_get_the_free_call_alone_and_real_models_need_a_gpu(start, monkeypatch):
    Path("prompts.txt").write_text("A bird.\nA house.\nA tree.\nA boat.\n")
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(models=["judge-1"], key=KEY) as server:
        judge = {
            "kind": "openai",
            "model": "judge-1",
            "endpoint": server.endpoint("openai"),
            "api_key_env": "JUDGE_KEY",
        }
        tiif = {"image_set": "tiif", "scorer": "tiif", "backend": "judge", "judge": "one"}
        changes = {
            "image_sets": {"tiif": {"benchmark": "tiif", "shapes": {"per_tag": 1, "seed": 1}, "images_per_prompt": 1}},
            "judges": {"models": {"one": judge}}, "benchmarks": {"tiif": tiif}, "evaluate": [{"benchmark": "tiif"}],
        }  # fmt: skip
        stages = Stages(start(**changes), Path("folder"), 1.0, False)
        shards = Path("folder/images-made/base/tiif/shards")
        shards.mkdir(parents=True)
        (shards / "0.jsonl").touch()
        asked, scored = stages._score("tiif")
        assert (asked.name, asked.outcome) == ("judge tiif", "ok") and len(server.listed) == 1 and not server.log
        assert scored.outcome == "not tried" and "--paid" in scored.fix
        monkeypatch.setenv("JUDGE_KEY", "another")
        assert "is refused" in next(iter(stages._score("tiif"))).problem
    for module in (rehearsal, rehearsal_stages):
        monkeypatch.setattr(module, "visible", lambda *_: [])
    found = rehearse(start(models={"t2i": {"path": "some/t2i"}}), Path("folder"))
    (refused,) = found.findings()
    assert refused.severity == "unchecked" and "take a GPU" in refused.what and not found.stages
    local = {"one": {"kind": "local", "model": "some/vlm"}}
    (judged,) = Stages(start(**changes | {"judges": {"models": local}}), Path("folder"), 1.0, False)._score("tiif")
    assert judged.outcome == "not tried" and "takes a GPU" in judged.skipped


def test_commands_are_started_as_jobs_are(start, monkeypatch, tmp_path):
    """In the environments of the site's key `envs`, and on GPUs that no other job has; no GPU is here to try it on."""
    preflight = replace(start(models={"t2i": {"path": "some/t2i"}}), envs=Path("built"))
    folder = Path("folder").absolute()
    monkeypatch.setattr(rehearsal_command, "SOCKETS", len(str(folder)))
    with pytest.raises(DataError, match="environment train: is not in built; promptecho envs build train --into built"):
        launch(preflight, folder, ["train", "--run", "echo"], "train", "echo")
    for name in ("train", "ocr", "score", "caption"):
        bin_ = Path(f"built/builds/{name}/bin")
        bin_.mkdir(parents=True)
        (bin_ / "python").symlink_to(sys.executable)
        Path("built", name).symlink_to(f"builds/{name}")
        record = {"digest": read_spec(ENVS / f"{name}.yaml").digest}
        (bin_.parent / "environment.json").write_text(json.dumps(record))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    cases: list[tuple[list[str], Any, str, str, bool]] = [
        (["train", "--run", "echo"], "train", "echo", "train", True),
        (["score", "--benchmark", "textocr"], "score", "textocr", "ocr", False),
        (["shapes", "render"], "caption", "", "score", False),
        (["caption", "merge"], "caption", "", "caption", False),
    ]
    for words, stage, name, environment, on_gpus in cases:
        how = launch(preflight, folder, words, stage, name, 2)
        python = str(tmp_path / f"built/builds/{environment}/bin/python")
        gpus = [python, "-m", "promptecho", "gpus", "run", "--count", "2", "--"] if on_gpus else []
        assert how.command("promptecho", words) == [*gpus, python, "-m", "promptecho", *words]
        assert how.environment["PATH"].split(":")[0] == str(Path(python).parent)
        assert how.environment["TMPDIR"] == str(folder) and "TMPDIR" not in how.script(words)
        assert shlex.join(how.command("promptecho", words)) in how.script(words)
        hidden = environment == "ocr"  # the one whose jobs get no GPU
        assert (how.environment.get(VISIBLE) == "") is hidden
        assert (f"export {VISIBLE}=''\n" in how.script(words)) is hidden
    assert launch(replace(preflight, envs=None), folder, ["train"], "train", "echo", 0).words == (sys.executable,)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert len(launch(preflight, folder, ["train"], "train", "echo", 2).words) == 1
    # Jobs of this Snakemake see all that this job has; those that it submits, what Slurm gives them.
    assert VISIBLE not in launch(preflight, folder, ["score"], "score", "textocr", 2).environment
    submits = start("executor: submitit\n")
    assert launch(submits, folder, ["score"], "score", "textocr", 2).environment[VISIBLE] == ""
    real = {"models": {"t2i": {"path": "some/t2i"}}}  # which take GPUs, but where the profile says otherwise
    none = start("executor: submitit\nset-resources: {train: {gpus_per_node: 0}}\n", **real)
    assert launch(none, folder, ["train"], "train", "echo", 2).environment[VISIBLE] == ""
    assert VISIBLE not in launch(preflight, folder, ["score"], "score", "textocr", 0).environment  # none to hide
    for profile in (
        "set-resources: {score: {gpu: 1}}\n",
        "executor: submitit\nset-resources: {score: {gpus_per_node: 1}}\n",
    ):
        given = start(profile)
        assert VISIBLE not in launch(given, folder, ["score"], "score", "textocr", 2).environment
    monkeypatch.delenv("SLURM_JOB_ID")
    none = start("set-resources: {train: {gpu: 0}}\n", **real)
    assert launch(none, folder, ["train"], "train", "echo", 2).environment[VISIBLE] == ""
    stages = Stages(replace(preflight, envs=Path("none")), folder, 1.0, False)
    caption = stages.runner.run(RehearsedStage("caption", "caption"), [["caption", "prompts"]])
    assert caption.problem == "environment caption: is not in none" and caption.fix.startswith("promptecho envs build")
    for method in ("conda", "apptainer"):
        refused = rehearse(start(f"software-deployment-method: {method}\n"), folder).refused
        assert refused is not None and refused.severity == "unchecked" and f": {method}: " in refused.what


def test_published_adapters_are_tried_and_sets_that_fail_only_together_leave_a_note(start, monkeypatch):
    """No command is run here."""
    preflight = start(runs={"authors": {"adapter": "them/lora", "revision": "main", "step": 7}}, training=None)
    preflight = replace(preflight, stages=preflight.stages - {"caption", "train"})
    ran: list[str] = []

    def run_steps(steps: Any, *_: Any) -> dict[str, Any]:
        ran.append(" ".join(steps[0].command[3:]))
        row = {"failed": "out of memory"} if ran[-1].count("--image-set") > 1 else {"host_gb": 0.5}
        return {"rows": [row], "seconds": 1.0, "interrupted": False}

    monkeypatch.setattr(rehearsal_runner, "run_steps", run_steps)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    stages = {one.name: one for one in Stages(preflight, Path("folder"), 1.0, False).all()}
    assert [one.outcome for one in stages.values()][:3] == ["ok", "ok", "ok"]
    assert "all in one process failed: out of memory" in stages["generate base geneval"].finding().what
    imported, made = ran[3:5]
    assert imported.startswith("adapter import --config folder/config/")
    assert imported.endswith("--source them/lora --out folder/adapters/authors --revision main")
    config = Path(made.split()[2])
    assert "--run authors --step 7 --adapter folder/adapters/authors --image-set geneval" in made
    assert load_experiment(config).adapters["authors"].step == 7
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    on_node = Stages(preflight, Path("folder"), 1.0, False)._by_published("authors", {"geneval": Path("p")})
    assert on_node.outcome == "not tried" and "them/lora is not on the disk" in on_node.skipped


def test_what_is_no_stage_s_fault_is_told_and_a_wait_for_gpus_is_no_failure(start, monkeypatch):
    preflight = start()
    monkeypatch.setattr(rehearsal, "takes_gpu", lambda *_: True)
    monkeypatch.setattr(rehearsal, "visible", Mock(side_effect=ConfigError("CUDA_VISIBLE_DEVICES=9: 9 names no GPU")))
    refused = rehearse(preflight, Path("folder")).refused
    assert refused is not None and "9 names no GPU" in refused.what
    for module in (rehearsal, rehearsal_stages):
        monkeypatch.setattr(module, "visible", lambda *_: [])
        monkeypatch.setattr(module, "takes_gpu", lambda *_: False)

    def run_steps(steps: Any, facts: Any, out: Path, *_: Any) -> dict[str, Any]:
        if steps[0].name.startswith("train"):
            raise OSError(errno.ENOSPC, "No space left on device")
        log = out.with_name(f"{out.name}.logs") / f"{steps[0].name}.log"
        log.parent.mkdir(parents=True)
        log.write_text("promptecho: waiting for 1 of 2 GPUs: GPU-a held by process 9\n")
        return {"rows": [{"failed": "out of time"}], "seconds": 1.0, "interrupted": False}

    monkeypatch.setattr(rehearsal_runner, "run_steps", run_steps)
    found = rehearse_and_clean(preflight, keep=False)
    assert [(one.name, one.outcome) for one in found.stages] == [("caption", "not tried")]
    assert "waiting for 1 of 2 GPUs: GPU-a held" in found.stages[0].skipped
    assert found.refused is not None and "stopped after caption: [Errno 28] No space left" in found.refused.what
    assert not Path(found.folder).exists() and not found.passed
    for end in (SystemExit, KeyboardInterrupt):
        folders = set(Path(found.folder).parent.glob("promptecho-rehearsal-*"))
        monkeypatch.setattr(rehearsal, "rehearse", Mock(side_effect=end))
        with pytest.raises(end):
            rehearse_and_clean(preflight, keep=False)
        assert set(Path(found.folder).parent.glob("promptecho-rehearsal-*")) <= folders
    monkeypatch.setattr(rehearsal.tempfile, "mkdtemp", Mock(side_effect=OSError("No space left on device")))
    assert "no place for its folder" in next(rehearse_and_clean(preflight, keep=False).findings()).what


def test_the_command_looks_at_its_words_first_and_tells_what_failed_whatever_is_asked_for(start, monkeypatch):
    """What `--only` names hides no failed stage; an interrupted rehearsal does not go on."""
    start()
    begun: list[Preflight] = []
    failed = Rehearsal("folder", [RehearsedStage("score dpg", "score", 2.0, problem="the judge is broken")])

    def rehearsed(preflight: Preflight, *_: Any, **__: Any) -> Rehearsal:
        begun.append(preflight)
        return failed

    monkeypatch.setattr(rehearsal, "rehearse_and_clean", rehearsed)
    line = ["doctor", "--config", "tiny.yaml", "--no-totals", "--rehearse", "--only"]
    for words, told in (["rehersal"], "--only rehersal: no such check"), (["clock", "--gpu", "h300"], "--gpu h300"):
        refused = CliRunner().invoke(app, [*line, *words])
        assert refused.exit_code == 1 and told in str(refused.exception) and not begun
    told = CliRunner().invoke(app, [*line, "clock"])
    assert told.exit_code == 1 and "the judge is broken" in told.output and begun
    monkeypatch.setattr(rehearsal, "rehearse_and_clean", Mock(side_effect=KeyboardInterrupt))
    (ended,) = [CliRunner().invoke(app, [*line, "clock"]).exception]
    assert isinstance(ended, Interrupted) and ended.exit_code == 130 and "from the beginning" in str(ended)


def test_the_table_sets_measured_beside_planned():
    stage = RehearsedStage("train echo", "train", 20.0, 3.0, 1.5, plan_seconds=1.5, plan_gb=3.0)
    failed = RehearsedStage("score dpg", "score", 2.0, problem="no")
    found = Rehearsal("/tmp/r", [stage, failed], gpu="A GPU")
    console = Console(file=io.StringIO(), width=80)
    console.print(rehearsal_table(found))
    assert isinstance(console.file, io.StringIO)
    rows = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["train", "echo", "ok", "20", "3", "1.5", "2", "1.5", "3", "0.5"] in rows
    assert ["score", "dpg", "failed", "2"] in rows
    assert any("No GPU was used" in line for line in rehearsal_lines(found))


SLURM = """#!/bin/sh
case $0 in
*/sbatch) [ -e refuse ] && { echo 'sbatch: error: no such account' >&2; exit 1; }
  for script; do :; done
  cp "$script" submitted; echo "$@" > asked; cp outcome.json "$(dirname "$script")/outcome.json"; echo 7;;
*/scancel) echo "$@" > cancelled;;
esac
"""


def test_on_a_cluster_the_rehearsal_is_one_job_and_its_outcome_is_read(start, monkeypatch):
    """Slurm is a stand-in here; the real one is tried in tests/slurm."""
    Path("prompts.txt").write_text("A bird.\nA house.\nA tree.\nA boat.\n")
    Path("bin").mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        Path("bin", name).write_text(SLURM)
        Path("bin", name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    profile = "executor: submitit\ndefault-resources: {slurm_partition: gpu, slurm_account: 2024proj}\n"
    preflight = start(f"{profile}set-resources: {{train: {{nodes: 4, gpus_per_node: 8, runtime: 2h}}}}\n")
    assert belongs_to_a_node(preflight) and not belongs_to_a_node(start())
    stage = RehearsedStage("train echo", "train", 20.0, 3.0, 1.5, on_gpu=True, plan_seconds=1.5, plan_gb=3.0)
    there = Diagnosis("tiny", (), {}, Rehearsal("/on/node", [stage], gpu="A GPU").facts())
    Path("outcome.json").write_text(json.dumps(there.facts()))
    found = rehearse_on_a_node(preflight, False, ["--paid"])
    assert found.stages == [stage] and found.gpu == "A GPU" and not Path(found.folder).exists()
    asked = Path("asked").read_text().split()
    assert {"--nodes=1", "--gres=gpu:8", "--time=120", "--partition=gpu", "--account=2024proj"} <= set(asked)
    assert "--rehearse --only rehearsal --json --paid" in Path("submitted").read_text()
    assert Path("cancelled").read_text() == "7\n"
    Path("refuse").touch()
    refused = rehearse_on_a_node(preflight, False, []).refused
    assert refused is not None and refused.severity == "problem" and "no such account" in refused.what
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert not belongs_to_a_node(preflight)
