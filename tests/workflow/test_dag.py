"""What Snakemake would do: targets, what a change makes run again, and how a faulty configuration is told."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from promptecho.config import load_experiment

WHOLE = {
    "training_images": 1,
    "caption_shard": 3,
    "captions": 1,
    "train": 2,
    "benchmark_prompts": 1,
    "generate_shard": 6,
    "score": 3,
    "table": 1,
    "curves": 1,
    "samples": 1,
    "training_curves": 1,
}
ENDS = {"table": 1, "curves": 1, "samples": 1}  # what is made from scores
ENDS_OF_ALL = {**ENDS, "training_curves": 1}
AFTER_TRAINING = {"generate_shard": 4, "score": 2, **ENDS_OF_ALL}


def test_default_target_is_everything(workflow):
    assert workflow.planned() == WHOLE


def test_a_path_selects_the_experiment(workflow):
    """`shapes` is not among the listed experiments of this copy."""
    planned = workflow.planned("results/shapes/tables/geneval.md")
    assert planned["table"] == 1
    assert planned["train"] >= 1
    assert list((workflow.root / "results/shapes/config").glob("*.yaml"))


@pytest.mark.parametrize(
    ("target", "without"),
    [
        ("tables", ("curves", "samples", "training_curves")),
        ("figures", ("table",)),
        ("geneval", tuple(ENDS_OF_ALL)),
    ],
)
def test_named_targets(workflow, target, without):
    assert workflow.planned(target) == {rule: n for rule, n in WHOLE.items() if rule not in without}


def test_pages_of_words_are_made_when_asked_for(workflow):
    ends = tuple(ENDS_OF_ALL)
    words = {rule: n for rule, n in WHOLE.items() if rule not in ends} | {"sample_words": 1}
    assert workflow.planned("words") == words
    workflow.edit("config/experiments/tiny.yaml", "runs:", "words: true\nruns:")
    workflow.edit("config/experiments/tiny.yaml", "num_shards: 2}", "num_shards: 2, keep: packed}")
    assert workflow.planned() == WHOLE | {"sample_words": 1, "pack_images": 3}
    result = workflow.snakemake("--dry-run", "--printshellcmds", "results/tiny/figures/words_echo-s1.json")
    images = [f"results/tiny/images/{place}/geneval" for place in ("base/0", "echo-s1/2", "echo-s1/4")]
    assert (
        f"promptecho figures words {' '.join(images)} --scores results/tiny/scores/geneval --config " in result.stdout
    )
    assert "--run echo-s1 --out results/tiny/figures/words_echo-s1.html" in result.stdout
    assert workflow.planned("results/tiny/images/base/0/geneval/packed.json")["sample_words"] == 1


def test_pages_to_browse_are_made_when_asked_for(workflow):
    ends = tuple(ENDS_OF_ALL)
    pages = {rule: n for rule, n in WHOLE.items() if rule not in ends} | {"browse_page": 1}
    assert workflow.planned("browse") == pages
    workflow.edit("config/experiments/tiny.yaml", "runs:", "words: true\nruns:")
    assert workflow.planned("browse") == pages | {"sample_words": 1}


def test_base_model_needs_no_training(workflow):
    planned = workflow.planned("results/tiny/scores/geneval/base/0.json")
    assert planned == {"benchmark_prompts": 1, "generate_shard": 2, "score": 1}


def add_heldout(workflow):
    """Evaluate `tiny` on six of its eight held-out captions too, at the last checkpoint."""
    for old, new in {
        "image_sets:": "image_sets:\n  heldout: {benchmark: captions, heldout: 6, num_shards: 2}",
        "benchmarks:": "benchmarks:\n  heldout: {image_set: heldout, scorer: captions, backend: oracle}",
        "evaluate:": "evaluate:\n  - {benchmark: heldout, at: last}",
        "tables: [geneval]": "tables: [geneval, heldout]",
    }.items():
        workflow.edit("config/experiments/tiny.yaml", old, new)


def test_heldout_captions_are_a_benchmark(workflow):
    add_heldout(workflow)
    assert workflow.planned() == WHOLE | {
        "benchmark_prompts": 2,
        "generate_shard": 10,
        "score": 5,
        "table": 2,
        "curves": 2,
    }
    planned = workflow.planned("results/tiny/scores/heldout/base/0.json")
    captions = {"training_images": 1, "caption_shard": 3, "captions": 1}
    assert planned == {**captions, "benchmark_prompts": 1, "generate_shard": 2, "score": 1}
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "results/tiny/tables/heldout.md").stdout
    prompts = "results/tiny/prompts/heldout/metadata.jsonl"
    for command in (
        f"benchmarks heldout --captions results/tiny/captions/heldout.jsonl --count 6 --out {prompts}",
        f"--image-set heldout --prompts {prompts}",
        "score --benchmark heldout --config results/tiny/config/",
        "tables --table captions --benchmark heldout",
    ):
        assert command in shown


def test_a_benchmark_with_a_model_in_the_job_is_one_job_more(workflow):
    """GenEval 2, by the oracle and by the VLM of the embedded world on the same images; and T2I-CompBench++."""
    edits = {
        "image_sets:": "image_sets:\n  two: {benchmark: geneval2, shapes: {per_tag: 1, seed: 1}, num_shards: 1}\n"
        "  mix: {benchmark: t2icompbench, shapes: {per_tag: 1, seed: 1}, num_shards: 1}",
        "benchmarks:": "benchmarks:\n  two: {image_set: two, scorer: geneval2, backend: oracle}\n"
        "  two-vlm: {image_set: two, scorer: geneval2, backend: vlm, model: shapes}\n"
        "  mix: {image_set: mix, scorer: t2icompbench, backend: oracle}",
        "evaluate:": "evaluate:\n  - {benchmark: two, at: last}\n  - {benchmark: two-vlm, at: last}\n"
        "  - {benchmark: mix, at: last}",
    }
    for old, new in edits.items():
        workflow.edit("config/experiments/tiny.yaml", old, new)
    planned = workflow.planned("geneval2", "t2icompbench")
    assert {rule: planned[rule] for rule in ("benchmark_prompts", "generate_shard", "score")} == {
        "benchmark_prompts": 2,
        "generate_shard": 4,
        "score": 6,
    }
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "results/tiny/scores/two-vlm/base/0.json").stdout
    assert "shapes geneval2 --per-tag 1" in shown and "score --benchmark two-vlm" in shown


def test_several_benchmarks_score_the_images_of_text_rendering(workflow):
    edits = {
        "image_sets:": "image_sets:\n"
        "  words: {benchmark: textocr, shapes: {per_tag: 1, seed: 1, world: gallery}, num_shards: 1}",
        "benchmarks:": "benchmarks:\n  words: {image_set: words, scorer: longtext, backend: gallery}\n"
        "  letters: {image_set: words, scorer: textocr, backend: gallery}\n"
        "  edits: {image_set: words, scorer: oneig_text, backend: vlm, model: gallery}",
        "evaluate:": "evaluate:\n  - {benchmark: words, at: last}\n  - {benchmark: letters, at: last}\n"
        "  - {benchmark: edits, at: last}",
    }
    for old, new in edits.items():
        workflow.edit("config/experiments/tiny.yaml", old, new)
    planned = workflow.planned("longtext", "textocr", "oneig_text")
    assert {rule: planned[rule] for rule in ("benchmark_prompts", "generate_shard", "score")} == {
        "benchmark_prompts": 1,
        "generate_shard": 2,
        "score": 6,
    }


def test_test_points_are_judged_by_a_server_and_by_the_oracle_on_the_same_images(workflow):
    """UniGenBench: one image set; the judge's benchmark has one job more for each checkpoint."""
    server = "{kind: openai, model: UniGenBench-EvalModel, endpoint: 'http://127.0.0.1:9/v1'}"
    edits = {
        "image_sets:": "image_sets:\n  points: {benchmark: unigenbench, shapes: {per_tag: 1, seed: 1}, num_shards: 1}",
        "benchmarks:": f"judges: {{models: {{offline: {server}}}}}\nbenchmarks:\n"
        "  points: {image_set: points, scorer: unigenbench, backend: oracle}\n"
        "  points-judged: {image_set: points, scorer: unigenbench, backend: judge, judge: offline}",
        "evaluate:": "evaluate:\n  - {benchmark: points, at: last}\n  - {benchmark: points-judged, at: last}",
    }
    for old, new in edits.items():
        workflow.edit("config/experiments/tiny.yaml", old, new)
    planned = workflow.planned("unigenbench")
    assert {rule: planned[rule] for rule in ("benchmark_prompts", "generate_shard", "judge", "score")} == {
        "benchmark_prompts": 1,
        "generate_shard": 2,
        "judge": 2,
        "score": 4,
    }


def test_another_number_of_heldout_captions_reruns_their_images_alone(workflow):
    add_heldout(workflow)
    workflow.finish()
    assert workflow.planned() == {}
    workflow.edit("config/experiments/tiny.yaml", "heldout: 6", "heldout: 5")
    assert workflow.planned() == {"benchmark_prompts": 1, "generate_shard": 4, "score": 2, "table": 1, "curves": 1}
    workflow.edit("config/experiments/tiny.yaml", "heldout: 5", "heldout: 9")
    assert "image_sets.heldout.heldout: 9 is more than captions.heldout" in workflow.snakemake("--dry-run").stdout


JUDGED = {
    "image_sets:": "image_sets:\n  dense: {benchmark: captions, heldout: 6, num_shards: 2}",
    "benchmarks:": "judges: {models: {one: {kind: openai, model: m, endpoint: 'http://127.0.0.1:9/v1'}}}\n"
    "benchmarks:\n  dense: {image_set: dense, scorer: densealign, backend: judge, judge: one}",
    "evaluate:": "evaluate:\n  - {benchmark: dense, at: all}",
    "tables: [geneval]": "tables: [geneval, dense]",
}


def add_judged(workflow):
    """Compare the images of each checkpoint with the base model's, by a judge."""
    for old, new in JUDGED.items():
        workflow.edit("config/experiments/tiny.yaml", old, new)


def test_pairs_are_judged_before_they_are_scored(workflow):
    add_judged(workflow)
    planned = workflow.planned("densealign")
    # Images of the base model and of two checkpoints, in two shards each; judged and scored: the checkpoints alone.
    assert {rule: planned[rule] for rule in ("generate_shard", "judge", "score")} == {
        "generate_shard": 6,
        "judge": 2,
        "score": 2,
    }
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "results/tiny/scores/dense/echo-s1/2.json").stdout
    for part in (
        "--images results/tiny/images/echo-s1/2/dense",
        "--baseline results/tiny/images/base/0/dense",
        "--answers results/tiny/judges/one",
        "--out results/tiny/answers/dense/echo-s1/2.json",
    ):
        assert part in shown, shown


def test_another_judge_asks_again_and_one_benchmark_touches_no_other(workflow):
    add_judged(workflow)
    workflow.finish()
    assert workflow.planned() == {}
    workflow.edit("config/experiments/tiny.yaml", "model: m,", "model: m, concurrency: 2,")
    assert workflow.planned() == {}
    workflow.edit("config/experiments/tiny.yaml", "127.0.0.1:9", "node8:8000")
    assert workflow.planned() == {}, "a server that moves is the same judge"
    workflow.edit("config/experiments/tiny.yaml", "judge: one", "judge: one, max_failed_share: 0.05")
    assert workflow.planned() == {"table": 1}
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "tables").stdout
    assert "--max-failures tiny/dense=0.05" in shown, shown
    workflow.edit("config/experiments/tiny.yaml", "judge: one, max_failed_share: 0.05", "judge: one")
    workflow.edit("config/experiments/tiny.yaml", "model: m,", "model: n,")
    assert workflow.planned() == {"judge": 2, "score": 2, "table": 1, "curves": 1}
    assert workflow.planned("geneval") == {}


def test_a_published_adapter_is_imported_and_evaluated(workflow):
    workflow.edit("config/experiments/tiny.yaml", "runs:", "runs:\n  authors: {adapter: /models/theirs, step: 900}")
    planned = workflow.planned("results/tiny/scores/geneval/authors/900.json")
    assert planned == {"benchmark_prompts": 1, "import_adapter": 1, "generate_shard": 2, "score": 1}
    workflow.edit("config/experiments/tiny.yaml", "theirs, step: 900}", "theirs, step: 900, alpha: 128}")
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "results/tiny/adapters/authors").stdout
    assert "--source /models/theirs --alpha 128.0 --out" in shown
    shown = workflow.snakemake("--dry-run", "results/tiny/scores/geneval/authors/2.json").stdout
    assert "run authors has no checkpoint 2 (checkpoints: 900)" in shown
    shown = workflow.snakemake("--dry-run", "results/tiny/adapters/echo-s1").stdout
    assert "adapters.echo-s1: no such entry (known: authors)" in shown


def test_a_run_begins_with_an_adapter_or_another_run(workflow):
    runs = (
        "runs:\n  start: {adapter: /models/theirs}\n  warm: {init_adapter: start}\n  later: {init_adapter: echo-s1@2}"
    )
    workflow.edit("config/experiments/tiny.yaml", "runs:", runs)
    checkpoint = "results/tiny/runs/{}/4/adapter"
    told = workflow.snakemake("--dry-run", checkpoint.format("warm")).stdout
    assert "tiny: runs.start.adapter: /models/theirs: no such folder" in told and "Job stats" not in told
    workflow.edit("config/experiments/tiny.yaml", "/models/theirs", "org/theirs")
    planned = workflow.planned(checkpoint.format("warm"))
    assert (planned["import_adapter"], planned["train"]) == (1, 2) and "generate_shard" not in planned
    assert workflow.planned(checkpoint.format("later"))["train"] == 3
    told = workflow.snakemake("--dry-run", "--printshellcmds", checkpoint.format("later")).stdout
    assert told.count("--init-adapter results/tiny/runs/echo-s1/2/adapter") == 2
    assert "--resume results/tiny/runs/later/2 --init-adapter" in told


def test_what_the_base_model_gets_needs_no_training(workflow):
    assert workflow.planned("base") == {"benchmark_prompts": 1, "generate_shard": 2, "score": 1}
    workflow.edit("config/experiments/tiny.yaml", "{benchmark: geneval}", "{benchmark: geneval, base: false}")
    shown = workflow.snakemake("--dry-run", "base").stdout
    assert "no entry of evaluate of the listed experiments asks for the base model (base: true)" in shown
    assert "base" not in workflow.planned("all"), "other targets can do without it"


def test_the_paper_s_tables_take_all_scores(workflow):
    planned = workflow.planned("paper")
    assert planned == {rule: n for rule, n in WHOLE.items() if rule not in ENDS_OF_ALL} | {"paper_tables": 1}
    workflow.edit("config/config.yaml", "experiments:", "paper_rows: {Z-Image (Baseline): tiny/base}\nexperiments:")
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "tables").stdout
    assert "--paper-rows 'Z-Image (Baseline)=tiny/base'" in shown  # with tiny in them they are tables like others


def test_images_are_packed_when_all_is_made_of_them(workflow):
    workflow.edit("config/experiments/tiny.yaml", "seed: 1}, num_shards: 2", "seed: 1}, num_shards: 2, keep: packed")
    assert workflow.planned() == WHOLE | {"pack_images": 3}
    assert workflow.planned("results/tiny/images/base/0/geneval/packed.json")["samples"] == 1
    workflow.finish()
    assert workflow.planned() == {}
    module = workflow.root / "promptecho/benchmarks/geneval/rules.py"
    module.write_text(module.read_text() + "\n# reworded\n")
    assert workflow.planned() == {"score": 3, "pack_images": 3, **ENDS}
    shown = workflow.snakemake("--dry-run", "results/tiny/images/base/0/nothing/packed.json").stdout
    assert "image_sets.nothing: no such entry" in shown


def test_deleted_images_are_made_again_only_where_they_are_needed(workflow):
    workflow.edit("config/experiments/tiny.yaml", "seed: 1}, num_shards: 2", "seed: 1}, num_shards: 2, keep: none")
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "results/tiny/images/base/0/geneval/packed.json").stdout
    assert "benchmarks pack results/tiny/images/base/0/geneval --delete" in shown
    workflow.finish()
    for listing in workflow.root.glob("results/tiny/images/*/*/geneval/shards/*.jsonl"):
        listing.unlink()
    assert workflow.planned() == {}
    module = workflow.root / "promptecho/benchmarks/geneval/rules.py"
    module.write_text(module.read_text() + "\n# reworded\n")
    assert workflow.planned() == {"generate_shard": 6, "score": 3, "pack_images": 3, **ENDS}


def test_lint_is_clean(workflow):
    result = workflow.snakemake("--lint")
    assert result.returncode == 0, result.stdout
    assert "good condition" in result.stdout


def test_prompts_of_the_user_replace_captioning(workflow):
    (workflow.root / "my prompts.txt").write_text("a red square\n")
    workflow.edit("config/experiments/tiny.yaml", "shapes: {count: 40, seed: 1}", 'prompts: "my prompts.txt"')
    planned = workflow.planned()
    assert "caption_shard" not in planned and planned["captions"] == 1
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "results/tiny/captions/captions.h5").stdout
    assert "caption prompts --prompts 'my prompts.txt'" in shown


def test_images_of_the_user_replace_rendering(workflow):
    (workflow.root / "photos").mkdir()
    shutil.copy(Path(__file__).parents[2] / "docs/before-after.png", workflow.root / "photos")
    workflow.edit("config/experiments/tiny.yaml", "shapes: {count: 40, seed: 1}", "images: photos")
    planned = workflow.planned("results/tiny/captions/captions.h5")
    assert planned == {"caption_shard": 3, "captions": 1}


def test_problems_are_told_together_and_nothing_starts(workflow):
    workflow.edit("config/experiments/tiny.yaml", "  batch_size: 24", "  batch_size: 5\n  learning_rat: 1")
    workflow.edit("config/experiments/tiny.yaml", "heldout: 8", "heldout: many")
    result = workflow.snakemake()
    assert result.returncode != 0
    for problem in (
        "tiny.yaml: captions.heldout: input should be a valid integer",
        "tiny.yaml: training.batch_size: 5 does not divide the 24 images",
        "tiny.yaml: training.learning_rat: is not a known key",
    ):
        assert problem in result.stdout
    assert "Job stats" not in result.stdout
    assert not (workflow.root / "results").exists()


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("results/tiny/runs/echo-s1/3/adapter", "run echo-s1 has no checkpoint 3 (checkpoints: 2, 4)"),
        ("results/tiny/runs/nobody/4/adapter", "runs.nobody: no such run"),
        ("results/tiny/scores/geneval/base/2.json", "run base has no checkpoint 2"),
        ("results/tiny/scores/dpg/base/0.json", "benchmarks.dpg: no such entry"),
        ("results/tiny/figures/curves_dpg.png", "benchmarks.dpg: no such benchmark"),
        ("results/tiny/figures/samples_base.png", "no table has scores of run base"),
        ("results/tiny/figures/single_column/samples_base.pdf", "no table has scores of run base"),
        ("results/nowhere/tables/geneval.md", "nowhere.yaml: no such experiment"),
        ("tabels", "tabels: no such target; nothing was started; did you mean tables?"),
        ("results/tiny/runs/echo-s1", "results/tiny/runs/echo-s1: no rule makes a file or folder of this name"),
    ],
)
def test_targets_that_cannot_be(workflow, target, problem):
    result = workflow.snakemake("--dry-run", target)
    assert result.returncode != 0
    assert problem in result.stdout
    # No word about rules and functions: they are right.
    for noise in ("Exception", "Traceback", "Wildcards:", 'File "', "input functions"):
        assert noise not in result.stdout


def test_a_setting_that_snakemake_would_drop_is_told(workflow):
    words = ["--dry-run", "--config", "experiments=tiny", "-q", "--config", "set=tiny.training.seed=2"]

    def type_them():
        sys.argv = ["snakemake", *words]

    result = workflow.snakemake(*words, prepare=type_them)
    assert result.returncode != 0 and "the last one alone, without experiments=tiny: write all" in result.stdout
    assert "Traceback" not in result.stdout


def test_images_that_are_not_there_are_told_with_their_key(workflow):
    images = "set=tiny.captions.shapes=null tiny.captions.images=data/nowhere"
    result = workflow.snakemake("--dry-run", "--config", images, "--", "all")
    assert result.returncode != 0
    assert "tiny: captions.images: data/nowhere: there is no such file or folder. Put it there" in result.stdout
    for noise in ("Exception", "Traceback", "Wildcards:", 'File "'):
        assert noise not in result.stdout


def test_finished_work_is_left_alone(finished):
    assert finished.planned() == {}


@pytest.mark.parametrize(
    "setting",
    ["training.save_every_s=7", "training.micro_batch_size=4", "captions.batch_size=3", "training.zero_stage=2"],
)
def test_keys_that_move_work_around_rerun_nothing(finished, setting):
    assert finished.planned("--config", f"set=tiny.{setting}", "--", "all") == {}


def test_later_checkpoint_runs_the_new_segment_only(finished):
    finished.edit("config/experiments/tiny.yaml", "iterations: 4", "iterations: 6")
    finished.edit("config/experiments/tiny.yaml", "[2, 4]", "[2, 4, 6]")
    assert finished.planned() == {"train": 1, "generate_shard": 2, "score": 1, **ENDS_OF_ALL}


def test_new_run_leaves_the_others_alone(finished):
    finished.edit("config/experiments/tiny.yaml", "echo-s1: {seed: 1}", "echo-s1: {seed: 1}\n  echo-s2: {seed: 2}")
    assert finished.planned() == {"train": 2, "generate_shard": 4, "score": 2, **ENDS_OF_ALL}


def test_evaluation_guidance_reruns_images_but_not_training(finished):
    finished.edit("config/experiments/tiny.yaml", "num_shards: 2}", "num_shards: 2, guidance_scale: 2.0}")
    assert finished.planned() == {"generate_shard": 6, "score": 3, **ENDS}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("benchmarks/geneval/rules.py", {"score": 3, **ENDS}),
        ("benchmarks/geneval/table.py", ENDS),
        ("benchmarks/dpg/rules.py", {}),
        ("judges/__init__.py", {}),
        ("tables/__init__.py", {"table": 1}),
        ("figures/__init__.py", {"curves": 1, "samples": 1, "training_curves": 1}),
        ("config/__init__.py", {}),
        ("captions/__init__.py", {}),
    ],
)
def test_code_counts_for_scores_and_tables_only(finished, file, expected):
    module = finished.root / "promptecho" / file
    module.write_text(module.read_text() + "\n# reworded\n")
    assert finished.planned() == expected


def test_values_can_be_set_for_one_call(finished):
    """Whatever form they come in; what a change of training means is in test_protect.py."""
    for setting in ("tiny={training: {learning_rate: 1e-3}}", "set=tiny.training.learning_rate=1e-3"):
        planned = finished.planned("--config", setting, "retrain=echo-s1", "--", "all")
        assert planned == {"train": 2, **AFTER_TRAINING}


def test_job_elsewhere_reads_the_configuration_it_was_made_for(workflow):
    """The main process hands on the resolved configuration's path; a later edit does not reach a queued job."""
    workflow.planned()
    (resolved,) = (workflow.root / "results/tiny/config").glob("*.yaml")
    assert load_experiment(resolved).captions.heldout == 8
    workflow.edit("config/experiments/tiny.yaml", "heldout: 8", "heldout: 9")
    pinned = f"resolved_configs={{'tiny': 'results/tiny/config/{resolved.name}'}}"
    remote = ("--mode", "remote", "--nolock", "--dry-run", "--printshellcmds", "--config", pinned, "--")
    result = workflow.snakemake(*remote, "results/tiny/captions/captions.h5")
    assert result.returncode == 0, result.stdout
    assert f"--config results/tiny/config/{resolved.name}" in result.stdout
    assert [path.name for path in (workflow.root / "results/tiny/config").glob("*.yaml")] == [resolved.name]


GUARDED = {
    "image_sets:": "guards:\n  - {name: echo}\n  - {name: aesthetic, column: looks, image_sets: [geneval]}\n"
    "image_sets:",
}


def test_guards_score_each_checkpoint_and_go_into_tables_and_curves(workflow):
    for old, new in GUARDED.items():
        workflow.edit("config/experiments/tiny.yaml", old, new)
    (workflow.root / "models").mkdir()
    (workflow.root / "models/sac+logos+ava1-l14-linearMSE.pth").write_bytes(b"x")
    assert workflow.planned() == WHOLE | {"guard": 6}
    ends = {rule: n for rule, n in WHOLE.items() if rule not in ("score", *ENDS_OF_ALL)}
    assert workflow.planned("guards") == ends | {"guard": 6}
    shown = workflow.snakemake("--dry-run", "--printshellcmds", "results/tiny/tables/geneval.md").stdout
    for part in (
        "promptecho guard --name looks --images results/tiny/images/echo-s1/4/geneval --config results/tiny/config/",
        "--run echo-s1 --step 4 --work results/tiny/work/guard/looks/geneval/echo-s1/4/",
        "--out results/tiny/guards/looks/geneval/echo-s1/4.json",
        "--guards results/tiny/guards/echo/geneval/base/0.json --guards results/tiny/guards/echo/geneval/echo-s1/2",
    ):
        assert part in shown, shown
    # Images stay until guards have seen them.
    workflow.edit("config/experiments/tiny.yaml", "num_shards: 2}", "num_shards: 2, keep: packed}")
    assert workflow.planned("results/tiny/images/base/0/geneval/packed.json")["guard"] == 2


def test_a_guard_is_added_to_what_is_finished(finished):
    assert finished.planned() == {}
    finished.edit("config/experiments/tiny.yaml", "image_sets:", "guards: [{name: echo}]\nimage_sets:")
    assert finished.planned() == {"guard": 3, "table": 1, "curves": 1}
