"""What is finished is not deleted: it is refused in words, or moved aside. Real Snakemake on finished results."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from finished_demo import unpack
from permissions import obey_permissions, writable
from workflow_copy import Workflow, copy_checkout

from promptecho.captions.store import read_captions, write_captions
from promptecho.files import read_json, sha256_file, write_json
from promptecho.train.prompts import PromptUse, TrainingPrompt, prompts_of

ROOT = Path(__file__).resolve().parents[2]
# What may be made again by a newer version: it carries digests of its code, and takes seconds.
CHEAP = {"score", "table", "curves", "samples", "training_curves"}
AFTER_TRAINING = {"generate_shard": 4, "score": 2, "table": 1, "curves": 1, "samples": 1, "training_curves": 1}


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Workflow:
    """A checkout of now with the finished demo of an earlier version."""
    flow = copy_checkout(tmp_path_factory.mktemp("demo"))
    (flow.root / "config/config.yaml").write_text("experiments: [shapes]\n")
    (flow.root / "promptecho/shapes/weights").symlink_to(ROOT / "promptecho/shapes/weights")
    unpack(flow.root)
    return flow


def times(flow: Workflow, name: str) -> dict[str, int]:
    """Files below results/NAME and their times, without what a plan may write."""
    root = flow.root / "results" / name
    files = [path for path in root.rglob("*") if path.is_file() and "config" not in path.parts]
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in files if "work" not in path.parts}


def test_a_finished_demo_of_an_earlier_version_asks_for_nothing(demo):
    planned = demo.planned()
    assert set(planned) <= CHEAP, planned


def test_an_edited_key_is_refused_with_its_old_value(demo):
    """Results of before the slices were recorded: what made them is found in the resolved configurations."""
    shutil.rmtree(demo.root / "results/shapes/config/slices")
    before = times(demo, "shapes")
    for dry in ("--dry-run", "--cores=2"):
        result = demo.snakemake(dry, "--config", "set=shapes.training.learning_rate=1e-4", "--", "all")
        assert result.returncode == 1
        said = (
            "runs/promptecho-s1 (checkpoints 20, 40): changed since: training.learning_rate (was 0.00025, now 0.0001)"
        )
        assert said in result.stdout, result.stdout
        for way in ("set=shapes.runs.NEW.learning_rate=0.0001'", "--config retrain=shapes/promptecho-s1 moves"):
            assert way in result.stdout
    assert times(demo, "shapes") == before


def test_the_new_run_of_the_readme_leaves_the_old_one_alone(demo):
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if "shapes.runs." in line]
    setting = line.split("'")[1]
    assert setting.startswith("set=shapes.runs.")
    planned = demo.planned("--config", setting, "--", "all")
    assert planned["train"] == 2 and "captions" not in planned
    assert planned["generate_shard"] == 6  # of the new run


def test_captions_count_as_far_as_they_were_used(demo):
    """A caption that is mended before its turn leaves the run alone; one that it has used does not."""
    results = demo.root / "results/shapes"
    captions, (source, rows) = results / "captions/captions.h5", _captions(results / "captions/captions.h5")
    prompts = [TrainingPrompt(row.image_id, row.caption) for row in rows]
    use = PromptUse(prompts, [], 1, 12)
    used = {one.prompt_id for step in range(40) for one in prompts_of(prompts, 1, step, 12)}
    for step in (20, 40):
        state = results / f"runs/promptecho-s1/{step}/state/state.json"
        write_json(state, {**read_json(state), "prompts": use.record(step)})
    for mended, now in ((True, "unused"), (False, "used")):
        place = next(k for k, row in enumerate(rows) if (row.image_id in used) == (now == "used"))
        changed = [row._replace(caption="A star.") if k == place else row for k, row in enumerate(rows)]
        write_captions(captions, source, changed, merge={})
        if mended:
            assert set(demo.planned()) <= CHEAP
        else:
            assert "iterations would use other prompts now, first iteration" in refused(demo)
            kept = ("--config", "set=shapes.training.accept_captions=true", "--", "all")
            assert set(demo.planned(*kept)) <= CHEAP


def _captions(path: Path):
    found = read_captions(path)
    return found.source, found.rows


@pytest.fixture
def tiny(finished) -> Workflow:
    """Finished results whose states say what they belong to, as real ones do."""
    captions = finished.root / "results/tiny/captions/captions.h5"
    captions.write_text("captions")
    os.utime(captions, (1, 1))
    for step in (2, 4):
        digests = {"captions file": sha256_file(captions)}
        state = finished.root / f"results/tiny/runs/echo-s1/{step}/state"
        stamp = (state / ".snakemake_timestamp").stat().st_mtime_ns
        write_json(state / "state.json", {"digests": digests})
        os.utime(state, ns=(stamp, stamp))
    return finished


def refused(flow: Workflow, *arguments: str) -> str:
    result = flow.snakemake("--dry-run", *arguments)
    assert result.returncode == 1 and "nothing was started or deleted" in result.stdout, result.stdout
    return result.stdout


def test_newer_captions_are_nothing_and_other_captions_are_told(tiny):
    captions = tiny.root / "results/tiny/captions/captions.h5"
    os.utime(captions)
    assert tiny.planned() == {}
    captions.write_text("other captions")
    said = "echo-s1 (checkpoints 2, 4): it was trained with another captions.h5 than results/tiny/captions/"
    assert said in refused(tiny)
    # Not asked for, not in the way; nor for somebody who takes what is there.
    assert tiny.planned("results/tiny/scores/geneval/base/0.json") == {}
    assert tiny.planned("--rerun-triggers", "mtime", "--", "tables") == {}


def test_captions_of_finished_runs_are_kept_too(tiny):
    setting = ("--config", "set=tiny.captions.query=What")
    told = refused(tiny, *setting, "--", "results/tiny/captions/captions.h5")
    assert "finished runs were trained on it (echo-s1); changed since: captions.query (was Describe this" in told
    planned = tiny.planned(*setting, "retrain=echo-s1", "--", "all")
    assert planned == {"caption_shard": 3, "captions": 1, "train": 2, **AFTER_TRAINING}
    # Moved aside, not deleted, also if nobody asks for the run.
    (tiny.root / "promptecho/__main__.py").write_text(STAGES)
    result = tiny.snakemake(*setting, "retrain=echo-s1", "--", "results/tiny/captions/captions.h5")
    assert result.returncode == 0, result.stdout
    (aside,) = (tiny.root / "results/tiny").glob("captions.replaced-*")
    assert (aside / "captions.h5").read_text() == "captions" and (aside / "shards/00000.h5").exists()


def test_captions_that_no_run_has_used_are_moved_aside(tiny):
    """Also a single shard that is asked for; one that a killed Snakemake has left, too. A plan moves nothing."""
    results = tiny.root / "results/tiny"
    shutil.rmtree(results / "runs")
    (tiny.root / "promptecho/__main__.py").write_text(STAGES)
    before = times(tiny, "tiny")
    setting = ("--config", "set=tiny.captions.query=What", "--")
    assert tiny.planned(*setting, "results/tiny/captions/captions.h5") == {"caption_shard": 3, "captions": 1}
    assert times(tiny, "tiny") == before
    result = tiny.snakemake(*setting, "results/tiny/captions/shards/00001.h5")
    assert result.returncode == 0 and "tiny: captions are made again; the old ones are in" in result.stdout
    result = tiny.snakemake(*setting, "results/tiny/captions/captions.h5")
    assert result.returncode == 0, result.stdout
    kept = {
        f"captions/{file.relative_to(aside)}": file.stat().st_mtime_ns
        for aside in results.glob("captions.replaced-*")
        for file in aside.rglob("*.*")
    }
    files = {"shards/00000.h5", "shards/00001.h5", "shards/00002.h5", "captions.h5", "heldout.jsonl"}
    assert set(kept) == {f"captions/{name}" for name in files}
    assert all(before[name] == time for name, time in kept.items())

    (tiny.root / "kill caption").touch()
    third = ("--", "results/tiny/captions/shards/00002.h5")
    result = tiny.snakemake("--forcerun", "caption_shard", *third, prepare=lambda: known(tiny))
    assert result.returncode == -signal.SIGKILL
    (tiny.root / "kill caption").unlink()
    (results / "captions/shards/00002.h5").write_text("complete")
    tiny.snakemake("--unlock")
    result = tiny.snakemake("--printshellcmds", *third)
    assert result.returncode == 0, result.stdout
    kept = [file.read_text() for file in results.glob("captions.replaced-*/shards/00002.h5")]
    assert "complete" in kept and (results / "captions/shards/00002.h5").read_text() == "{}"
    assert "--earlier 'results/tiny/captions.replaced-*/shards/00002.h5'" in result.stdout


def known(flow: Workflow) -> None:
    """Say which process the stages shall kill."""
    (flow.root / "pid").write_text(str(os.getpid()))


def test_a_checkpoint_that_was_complete_when_snakemake_was_killed_is_finished(tiny):
    """It is recorded, not made again; with other settings, or other models, it is protected as any other."""
    results = tiny.root / "results/tiny"
    (tiny.root / "promptecho/__main__.py").write_text(STAGES)
    tiny.planned()
    (made,) = (file.stem for file in (results / "config/slices").glob("*.json") if "training" in read_json(file))
    captions = sha256_file(results / "captions/captions.h5")
    write_json(tiny.root / "state.json", {"digests": {"training configuration": made, "captions file": captions}})
    shutil.rmtree(results / "runs/echo-s1/4")
    (tiny.root / "kill train").touch()
    result = tiny.snakemake("results/tiny/runs/echo-s1/4/adapter", prepare=lambda: known(tiny))
    assert result.returncode == -signal.SIGKILL and (results / "runs/echo-s1/4/metrics.jsonl").exists()
    (tiny.root / "kill train").unlink()
    tiny.snakemake("--unlock")
    state = results / "runs/echo-s1/4/state/state.json"
    written = state.stat().st_mtime_ns
    changed = ("--config", "set=tiny.training.learning_rate=1e-3", "--", "all")
    assert "training.learning_rate (was 5e-05, now 0.001)" in refused(tiny, *changed)
    state.with_name("moved").write_text(state.read_text())
    write_json(state, {"digests": {"training configuration": "0123456789abcdef"}})
    assert "made from another configuration (digest 0123456789abcdef)" in refused(tiny)
    state.with_name("moved").replace(state)
    os.utime(state, ns=(written, written))
    assert "train" not in tiny.planned()
    result = tiny.snakemake()
    assert result.returncode == 0 and state.stat().st_mtime_ns == written, result.stdout
    assert tiny.planned() == {}
    # Recorded: what it was made from is known as if Snakemake had seen its end.
    assert "training.learning_rate (was 5e-05, now 0.001)" in refused(tiny, *changed)


def test_all_edits_are_told_at_once_with_their_keys(tiny):
    edits = "tiny.captions.query=What tiny.training.learning_rate=1e-3"
    told = refused(tiny, "--config", f"set={edits}")
    assert "trained on it (echo-s1); changed since: captions.query (was" in told
    assert "training.learning_rate (was " in told and told.count("copy config/experiments/tiny.yaml") == 1
    told = refused(tiny, "--config", "set=tiny.training.checkpoints=[1,4]")
    assert "(checkpoints 2, 4): checkpoint 1 is asked for (training.checkpoints) and not there" in told
    assert "'set=tiny.runs.NEW.checkpoints=[1,4]'" in told


def test_force_does_not_delete_either(tiny):
    assert "runs/echo-s1 (checkpoints 2, 4): Forced execution" in refused(tiny, "--forcerun", "train")
    assert tiny.planned("--config", "retrain=echo-s1", "--forcerun", "train", "--", "all")["train"] == 2


def test_names_of_runs_to_train_again_are_checked(tiny):
    result = tiny.snakemake("--dry-run", "--config", "retrain=echo-s2", "--", "all")
    assert result.returncode == 1 and "retrain: echo-s2: no such run (known: tiny/echo-s1)" in result.stdout
    result = tiny.snakemake("--dry-run", "--config", "retrain=echo-s1", "--", "all")
    assert "Nothing to be done" in result.stdout and "nothing of it that is finished would be made" in result.stdout


# In place of the stages: makes what is asked for, or fails where a file `fail` lies.
STAGES = """\
import os, pathlib, signal, sys
FIGURE = ("{}.png", "{}.pdf", "{}.json", "{}.html", "single_column/{}.pdf")
words = sys.argv[1:]
if pathlib.Path("fail").exists() and words[0] == "train":
    sys.exit("asked to fail")
for option, value in zip(words, words[1:]):
    if option in ("--out", "--heldout-out"):
        out = pathlib.Path(value)
        name = words[words.index("--benchmark") + 1] if "--benchmark" in words else ""
        files = [out]
        if words[0] == "train":
            files = [out / "adapter/a", out / "state/state.json", out / "metrics.jsonl"]
        elif words[0] == "generate":
            files = [out / "shards" / (words[words.index("--shard") + 1] + ".jsonl")]
        elif words[0] == "adapter":
            files = [out / "a"]
        elif words[0] == "tables":
            files = [out / f"{name}.{kind}" for kind in ("md", "csv", "tex", "json", "html")]
            files.append(out / "short" / f"{name}.tex")
        elif words[:2] == ["figures", "curves"]:
            files = [out / file.format("curves_" + name) for file in FIGURE]
        elif words[:2] == ["figures", "training"]:
            files = [out / file.format("training") for file in FIGURE]
        elif words[:2] == ["figures", "samples"]:
            files = [out.parent / file.format(out.stem) for file in FIGURE]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
        if words[0] == "train" and pathlib.Path("state.json").exists():
            (out / "state/state.json").write_text(pathlib.Path("state.json").read_text())
if pathlib.Path("kill " + words[0]).exists():
    os.kill(int(pathlib.Path("pid").read_text()), signal.SIGKILL)
"""


def with_own_files(flow: Workflow) -> None:
    """A published adapter, a detector and prompts, at paths that a shell would misread."""
    theirs, prompts = flow.root / "it's theirs", flow.root / "prompts of $größe.jsonl"
    theirs.mkdir()
    (flow.root / "a detector's").mkdir()
    (flow.root / "a detector's/config.json").write_text("{}")
    (flow.root / "a detector's/model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")  # of no tensors
    for path in (theirs / "lora.safetensors", prompts):
        path.write_text("one")
    for old, new in {
        "runs:": 'runs:\n  theirs: {adapter: "it\'s theirs", step: 9}',
        "image_sets:": 'image_sets:\n  own: {benchmark: geneval, prompts: "prompts of $größe.jsonl", num_shards: 2}',
        "benchmarks:": "benchmarks:\n  own: {image_set: own, scorer: geneval, backend: mask2former}",
        "backend: mask2former": 'backend: mask2former, model: "a detector\'s"',
        "evaluate:": "evaluate:\n  - {benchmark: own}",
        "tables: [geneval]": "tables: [geneval, own]",
    }.items():
        flow.edit("config/experiments/tiny.yaml", old, new)


def test_no_path_is_misread_by_the_shell(tmp_path):
    """Every rule's command, in a checkout and with files whose names hold what a shell gives a meaning to."""
    (tmp_path / "it's a größe & $x").mkdir()
    flow = copy_checkout(tmp_path / "it's a größe & $x")
    with_own_files(flow)
    flow.edit("config/experiments/tiny.yaml", "shapes: {count: 40, seed: 1}", 'images: "my photos\'"')
    (flow.root / "my photos'").mkdir()
    (flow.root / "my photos'/it's.png").write_bytes((ROOT / "docs/before-after.png").read_bytes())
    (flow.root / "promptecho/__main__.py").write_text(STAGES)
    result = flow.snakemake("--set-resources", "train:tasks_per_node=2", "--set-threads", "train=1", "--cores=2")
    assert result.returncode == 0, result.stdout
    assert not {path.name for path in flow.root.iterdir()} - {
        *("Snakefile", "workflow", "config", "profiles", "envs", "promptecho", "results", ".snakemake"),
        *("it's theirs", "a detector's", "prompts of $größe.jsonl", "my photos'", "data"),
    }
    assert len(list(flow.root.glob("results/tiny/images/*/*/*/shards/*.jsonl"))) == 16
    assert flow.planned() == {}


def test_a_run_is_trained_again_beside_its_old_results(tiny):
    """Interrupted and started again, the same command goes on; what was moved aside once is not moved again."""
    (tiny.root / "promptecho/__main__.py").write_text(STAGES)
    (tiny.root / "fail").touch()
    before = times(tiny, "tiny")
    again = ("--config", "set=tiny.training.learning_rate=1e-3", "retrain=echo-s1", "--", "all")
    result = tiny.snakemake(*again)
    assert result.returncode == 1 and "the old run echo-s1, its images" in result.stdout, result.stdout
    after = times(tiny, "tiny")
    (aside,) = {path.name for path in (tiny.root / "results/tiny/runs").iterdir()} - {"echo-s1"}
    assert aside.startswith("echo-s1.replaced-")
    moved = {name: name.replace("/echo-s1/", f"/{aside}/") for name in before if "/echo-s1/" in name}
    assert len(moved) > 10 and {after[new] for new in moved.values()} == {before[old] for old in moved}
    assert all(name in after for name in before if name not in moved and not name.startswith(("logs", "timings")))
    (tiny.root / "fail").unlink()
    result = tiny.snakemake(*again)
    assert result.returncode == 0 and "the old run" not in result.stdout, result.stdout
    assert len(list((tiny.root / "results/tiny/runs").iterdir())) == 2
    assert tiny.planned(*again) == {}


def began(flow: Workflow, *mode: str) -> str:
    """The work folder of a shard of the base model's images, as the main process or a job elsewhere finds it."""
    shard = "results/tiny/images/base/0/own/shards/0.jsonl"
    result = flow.snakemake("--dry-run", "--printshellcmds", "--force", *mode, "--", shard)
    assert result.returncode == 0, result.stdout
    (found,) = re.findall(r"--work (\S+)", result.stdout)
    return found


def test_replaced_inputs_are_known_by_content(finished):
    """An adapter and an image set's prompts: older and other ones rerun what is made from them; newer times nothing."""
    with_own_files(finished)
    theirs, prompts = finished.root / "it's theirs", finished.root / "prompts of $größe.jsonl"
    finished.edit("config/experiments/tiny.yaml", "t2i: {path: shapes", 't2i: {path: "my model"')
    weights = finished.root / "my model/transformer/weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_text("one")
    finished.finish()
    for path in (theirs / "lora.safetensors", prompts):
        os.utime(path)
    assert finished.planned() == {}
    new = finished.root / "new"
    new.write_text("two")
    os.utime(new, (1, 1))
    for path in (theirs / "lora.safetensors", prompts):
        shutil.copy2(new, path)
    # Of the adapter: images of both sets; of the base model and the run: of the set with other prompts.
    assert finished.planned() == {"import_adapter": 1, "generate_shard": 10, "score": 5, "table": 2, "curves": 2}
    for path in (theirs / "lora.safetensors", prompts):
        path.write_text("one")
    assert finished.planned() == {}
    work = {began(finished), began(finished, "--mode=remote")}
    weights.write_text("two")
    assert "checkpoints 2, 4): models.t2i.path: my model does not hold what it held then" in refused(finished)
    anew = {began(finished), began(finished, "--mode=remote")}
    assert len(work) == len(anew) == 1 and work != anew
    weights.write_text("one")
    assert finished.planned("tables") == {}


def test_results_that_may_only_be_read_can_be_planned(finished):
    """Also with another configuration. Where Snakemake itself can't plan, one line says so."""
    new_run = ("--config", "set=tiny.runs.new.seed=2", "--", "all")
    try:
        writable(finished.root / "results", False)
        result = finished.snakemake("--dry-run", *new_run, prepare=obey_permissions)
        assert result.returncode == 0 and "train new to iteration 4" in result.stdout, result.stdout
        result = finished.snakemake(*new_run, prepare=obey_permissions)
        assert result.returncode == 1 and "results/tiny/config/" in result.stdout, result.stdout
        assert "cannot write (Permission denied)" in result.stdout and "Traceback" not in result.stdout
        assert not (finished.root / "results/tiny/runs/new").exists()
        writable(finished.root / ".snakemake", False)
        result = finished.snakemake("--dry-run", prepare=obey_permissions)
        assert result.returncode == 1 and "you may not write to .snakemake here" in result.stdout, result.stdout
        assert "Traceback" not in result.stdout
    finally:
        writable(finished.root, True)
