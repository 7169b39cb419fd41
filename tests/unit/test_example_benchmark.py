"""A benchmark from outside, end to end: the example's folder, copied elsewhere, and faults of such benchmarks.

All of it runs as commands in another folder than the checkout's, and nothing of the project changes for it. What
`snakemake NAME` makes of it: tests/workflow/test_plugin_benchmark.py.
"""

from __future__ import annotations

import csv
import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import ended, run
from PIL import Image

from promptecho.config import load_experiment, slice_digest
from promptecho.config.benchmarks import BENCHMARKS, Backend, Benchmark, available_benchmarks
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_json, read_jsonl
from promptecho.plan.evaluation import count_prompts

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "benchmark"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder of its own with the example in it, which no other test has loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(BENCHMARKS, "named", {})
    shutil.copytree(EXAMPLE, tmp_path / "mine")
    yield tmp_path
    sys.modules.pop("tint", None)
    importlib.invalidate_caches()


def facts(*words: object) -> list | dict:
    return json.loads(ended([*map(str, words), "--json"])[0])


def test_the_example_is_checked_generated_scored_and_tabulated(folder):
    config = "mine/shapes-tint.yaml"
    run(["config", "check", config])
    tint = facts("list", "benchmarks", "--config", config)[-1]
    assert (tint["name"], tint["needs"], tint["from"]) == ("tint", {"pixels": "nothing"}, f"{config}: plugins.0")

    # As the workflow does it: jobs read the resolved configuration, which lies in another folder.
    (folder / "write.py").write_text(
        "from promptecho.config.resolve import resolve, write_resolved\n"
        "site = {'experiments': ['shapes-tint'], 'experiments_dir': 'mine'}\n"
        "print(write_resolved(resolve(site)['shapes-tint'], 'results/shapes-tint/config'))\n"
    )
    resolved = ended([], script=folder / "write.py")[0].strip()
    prompts = "results/shapes-tint/prompts/tint/metadata.jsonl"
    run(["shapes", "tint", "--per-tag", "2", "--seed", "1", "--out", prompts, "--config", resolved])
    assert count_prompts(load_experiment(resolved).image_sets["tint"]) == len(read_jsonl(prompts))  # for plans

    images = "results/shapes-tint/images/base/0/tint"
    words = ["--run", "base", "--step", "0", "--image-set", "tint", "--prompts", prompts, "--out", images]
    run(["generate", "--config", resolved, *words, "--work", "work"])
    score = "results/shapes-tint/scores/tint/base/0.json"
    words = ["--benchmark", "tint", "--images", images, "--prompts", prompts, "--images-per-prompt", "2"]
    words += ["--experiment", "shapes-tint", "--run", "base", "--step", "0", "--out", score]
    run(["score", "--config", resolved, *words])
    found = read_json(score)
    assert found["provenance"]["scorer"] == "tint" and found["provenance"]["judge_model"] == "a count of pixels"
    assert len(found["items"]) == 16 and found["summary"]["overall"] > 0.5  # this model has learned its colours
    red = next(row for row in read_jsonl(Path(score).with_suffix(".raw.jsonl")) if row["prompt_id"] == "red-0")
    assert 0 < red["share"] < 1

    run(["tables", "--table", "tint", "--scores", "results/shapes-tint", "--out", "tables", "--config", resolved])
    [row] = csv.DictReader((folder / "tables/tint.csv").read_text().splitlines())
    assert float(row["overall"]) == pytest.approx(100 * found["summary"]["overall"], abs=0.1)
    assert {"warm", "cold"} <= set(row)
    figures = ["figures", "curves", "results/shapes-tint", "--benchmark", "tint", "--out", "figures"]
    run([*figures, "--config", resolved])
    drawn = read_json(folder / "figures/curves_tint.json")["score"]
    assert drawn["title"] == "images in the right colour (%)"
    assert drawn["base"]["value"] == pytest.approx(found["summary"]["overall"])

    run(["browse", "results/shapes-tint", "--config", resolved, "--out", "pages"])
    page = (folder / "pages/tint.html").read_text()
    assert "a photo of a red circle" in page and '["share","' in page  # what its records tell, without code of its own

    # Without the experiment nobody knows it, and that is said.
    told = run(["tables", "--table", "tint", "--scores", "results/shapes-tint", "--print"], code=1)
    assert "unknown benchmark 'tint'; known: geneval" in told and "--config" in told
    assert "unknown benchmark 'tint'" in run(figures, code=1)

    Image.new("RGB", (64, 64)).save(next(Path(images).glob("*.png")))
    again = facts("score", "--config", resolved, *words)
    assert again["summary"]["overall"] < found["summary"]["overall"]


def experiment(folder: Path, **changes) -> Path:
    text = (folder / "mine/shapes-tint.yaml").read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    (folder / "mine/e.yaml").write_text(text)
    return Path("mine/e.yaml")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("scorer: tint", "scorer: tnit", "benchmarks.tint.scorer: input should be 'geneval'"),
        ("scorer: tint", "scorer: tnit", "did you mean tint?"),
        ("backend: pixels", "backend: oracle", "benchmarks.tint.backend: tint has no oracle; it has pixels"),
        ("backend: pixels", "backend: pixles", "did you mean pixels?"),
        ("benchmark: tint\n", "benchmark: densealign\n", "densealign looks at images of captions"),
        ("benchmark: tint\n", "benchmark: captions\n", "image_sets.tint.shapes: makes no captions; give heldout"),
        ("backend: pixels", "backend: pixels, mode: fixed", "benchmarks.tint.mode: tint has only official"),
        ("images_per_prompt: 2", "images_per_prompt: 2\n    width: 32", None),
    ],
)  # fmt: skip
def test_mistakes_are_told_as_for_our_own(folder, old, new, told):
    path = experiment(folder, one=(old, new))
    if told is None:
        assert load_experiment(path).image_sets["tint"].width == 32
        return
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    assert told in str(caught.value)


def test_its_version_decides_what_is_scored_again(folder):
    def slices(**versions: int) -> list[str]:
        config = load_experiment(experiment(folder))
        found = BENCHMARKS.named["tint"].thing
        for key, value in versions.items():
            object.__setattr__(found, key, value)
        how = {"score": {"benchmark": "tint"}, "tables": {"benchmark": "tint"}, "prompts": {"image_set": "tint"}}
        how["generate"] = {"image_set": "tint"}
        return [slice_digest(config, stage, **names) for stage, names in how.items()]

    first = slices(version=1, prompts_version=1)
    raised, prompts = slices(version=2), slices(version=1, prompts_version=2)
    assert [a != b for a, b in zip(first, raised, strict=True)] == [True, True, False, False]
    assert [a != b for a, b in zip(first, prompts, strict=True)] == [False, False, True, False]


def a_benchmark(**changes) -> dict:
    facts = {"name": "mine", "title": "Mine", "summary": "", "scorer": "mine:Scorer", "layout": "mine:Layout"}
    return {**facts, "table": "mine:TABLE", "backends": (Backend(name="eye", summary=""),), **changes}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "My bench"}, "name 'My bench': take lower-case letters"),
        ({"scorer": "Scorer"}, "scorer 'Scorer': expected MODULE:OBJECT"),
        ({"table": ""}, "table '': expected MODULE:OBJECT"),
        ({"layout": ""}, "give either layout, or images_of"),
        ({"images_of": "captions"}, "give either layout, or images_of"),
        ({"backends": ()}, "backends: give one at least"),
        ({"backends": (Backend(name="judge", summary=""),)}, "is called judge, and no other"),
        ({"version": 0}, "version 0: count from 1"),
        ({"modes": ("fixed",)}, "modes ('fixed',)"),
        ({"curves": ()}, "curves: give one at least"),
    ],
)
def test_a_descriptor_that_cannot_be_is_refused(changes, told):
    with pytest.raises(ValueError, match="Benchmark: ") as caught:
        Benchmark(**a_benchmark(**changes))
    assert told in str(caught.value)


def test_our_own_descriptors_name_what_there_is():
    from promptecho.config.benchmarks import load_part

    for found in available_benchmarks(ours_only=True):
        for key in ("scorer", "layout", "table", "shapes", "verdicts", "golden"):
            if getattr(found.thing, key):
                assert load_part(found.thing.name, key) is not None
        for backend in found.thing.backends:
            assert (EXAMPLE.parents[1] / "envs" / f"{backend.environment}.yaml").is_file()
    with pytest.raises(ConfigError, match="has no layout"):
        load_part("densealign", "layout")


@pytest.mark.parametrize(
    ("row", "told"),
    [('{"data_id": "a", "prompt": "a cat", "group": "hot", "rgb": [0, 0, 0]}', "prompt 1: group 'hot'"),
     ('{"data_id": "a", "prompt": "a cat", "group": "warm", "rgb": [0, 0]}', "rgb [0, 0]")],
)  # fmt: skip
def test_faults_of_its_prompts_are_told_with_their_line(folder, row, told):
    from promptecho.benchmarks.registry import load_layout

    load_experiment(experiment(folder))
    (folder / "p.jsonl").write_text(f"{row}\n")
    with pytest.raises(DataError) as caught:
        load_layout("tint", folder / "p.jsonl", folder, 1)
    assert told in str(caught.value)


# Where a benchmark may be named outside of its own folder, and why.
NAMED = {
    "promptecho/config/benchmarks.py": "the list of our own, in the order of tables",
    "promptecho/tables/published.json": "the paper's tables and numbers",
    "promptecho/commands/examples.py": "examples of the embedded and the paper's experiments",
    "promptecho/config/templates/own.yaml": "an experiment file",
    "promptecho/config/templates/small.yaml": "an experiment file",
    "promptecho/measure_gallery.py": "what the VAE leaves of drawings, also for this benchmark's questions",
    "promptecho/config/training_parts.py": "what the authors of AWM trained on",
    "workflow/schemas/experiment.schema.json": "generated",
}


def test_no_file_but_a_benchmarks_own_names_it():
    names = [name for name in BENCHMARKS.built_in if name != "captions"]  # which are also training's
    own = re.compile(rf"promptecho/benchmarks/({'|'.join(BENCHMARKS.built_in)})/")
    named = re.compile("|".join([*names, "DPG-Bench", "TIIF-Bench", "DenseAlign"]), re.IGNORECASE)
    found = {}
    for folder in ("promptecho", "workflow", "profiles"):
        for path in sorted((EXAMPLE.parents[1] / folder).rglob("*")):
            file = str(path.relative_to(EXAMPLE.parents[1]))
            if path.suffix in (".py", ".smk", ".yaml", ".json", ".rst") and not own.match(file):
                lines = path.read_text(encoding="utf-8").splitlines()
                if told := [line.strip() for line in lines if named.search(line)]:
                    found[file] = told
    assert {file: lines for file, lines in found.items() if file not in NAMED} == {}
    assert NAMED.keys() <= found.keys()


def test_images_in_zip_files_are_for_benchmarks_that_say_so(folder):
    config = folder / "mine/shapes-tint.yaml"
    config.write_text(config.read_text().replace("benchmark: tint\n", "benchmark: tint\n    storage: zip\n"))
    assert load_experiment(config).image_sets["tint"].storage == "zip"
    code = folder / "mine/tint.py"
    code.write_text(code.read_text().replace(" archives=True,", ""))
    sys.modules.pop("tint", None)
    BENCHMARKS.named.clear()
    with pytest.raises(ConfigError, match="image_sets.tint.storage: tint does not say that it reads images from ZIP"):
        load_experiment(config)
