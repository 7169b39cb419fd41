"""A benchmark from outside that asks a kind of judge from outside: both examples in one folder, and a real server.

From prompts to table and curves, as commands in another folder than the checkout's; and what is said where the code of
such a benchmark has a mistake.
"""

from __future__ import annotations

import csv
import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import ended, run
from ollama_server import ollama
from PIL import Image

from promptecho.benchmarks.registry import load_layout
from promptecho.config import load_experiment
from promptecho.config.benchmarks import BENCHMARKS
from promptecho.config.judge_kinds import JUDGE_KINDS
from promptecho.errors import BenchmarkError
from promptecho.files import read_json, read_jsonl

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODULES = ("tint", "tint_asked", "ollama_judge")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with both examples in it, whose modules no other test has loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for kind in (BENCHMARKS, JUDGE_KINDS):
        monkeypatch.setattr(kind, "named", {})
    for name in ("benchmark", "judge"):
        shutil.copytree(EXAMPLES / name, tmp_path / "mine", dirs_exist_ok=True)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def experiment(folder: Path, endpoint: str) -> str:
    """The example's experiment with the other benchmark and a judge."""
    text = (folder / "mine/shapes-tint.yaml").read_text()
    for old, new in (
        ('plugins: ["tint:BENCHMARK"]', 'plugins: ["tint_asked:BENCHMARK", "ollama_judge:KIND"]'),
        ("benchmark: tint\n", "benchmark: tint-asked\n"),
        ("scorer: tint, backend: pixels", "scorer: tint-asked, backend: judge, judge: mine, max_failed_share: 0.2"),
    ):
        assert old in text
        text = text.replace(old, new)
    judge = f'{{kind: ollama, model: "m:7b", endpoint: "{endpoint}", concurrency: 1}}'
    (folder / "mine/asked.yaml").write_text(f"{text}\njudges: {{models: {{mine: {judge}}}}}\n")
    return "mine/asked.yaml"


def images(config: str, prompts: str, folder: str) -> None:
    """An image for each prompt; loads the experiment's plugins in this process."""
    load_experiment(config)
    layout = load_layout("tint-asked", Path(prompts), Path(folder), 1)
    Path(folder).mkdir(parents=True)
    for index in range(len(layout.ids)):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(layout.image_path(index, 0))
    layout.describe(range(len(layout.ids)))


def test_it_asks_counts_and_draws(folder):
    with ollama(lambda text: "No." if "yellow" in text else "Yes.", {"a photo of a blue square": 422}) as (
        address,
        asked,
    ):
        config = experiment(folder, address)
        run(["shapes", "tint-asked", "--per-tag", "2", "--seed", "1", "--out", "p.jsonl", "--config", config])
        images(config, "p.jsonl", "images")
        words = ["--config", config, "--benchmark", "tint", "--images", "images", "--prompts", "p.jsonl"]
        words += ["--answers", "answers"]
        estimate = json.loads(ended(["judge", "--estimate", *words, "--json"])[0])
        assert (estimate["calls"], estimate["recorded"], asked) == (8, 0, [])
        run(["judge", *words, "--out", "judged.json"])
        assert len(asked) == 8
    # Without the server: the record is enough.
    out = "results/e/scores/tint/base/0.json"
    run(["score", *words, "--experiment", "e", "--run", "base", "--step", "0", "--out", out])
    found = read_json(folder / out)
    assert found["summary"] == {"warm": 0.5, "cold": 1.0, "overall": pytest.approx(5 / 7)}
    assert found["provenance"]["judge_versions"] == {"made-up:7b-q4": 7}
    [failed] = [row for row in read_jsonl(Path(out).with_suffix(".raw.jsonl")) if row["failed"]]
    assert failed["prompt_id"] == "blue-1" and "422" in failed["reason"]

    made = ["--benchmark", "tint", "--config", config]
    tables = ["tables", "--table", "tint-asked", "--scores", "results/e", "--out", "tables"]
    run([*tables, *made, "--max-failures", "0.2"])
    [row] = csv.DictReader((folder / "tables/tint.csv").read_text().splitlines())
    assert (row["warm"], row["cold"], row["failures"]) == ("50.0", "100.0", "1")
    run(["figures", "curves", "results/e", "--out", "figures", *made])
    drawn = read_json(folder / "figures/curves_tint.json")
    assert drawn["score"]["base"]["value"] == pytest.approx(5 / 7)
    [warm] = drawn["further_scores"]  # a curve of one group needs no code of its own
    assert (warm["title"], warm["base"]["value"], warm["base"]["n_items"]) == ("of warm colours (%)", 0.5, 4)


def with_mistake(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / f"mine/{file}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[self.question(entry) for", "[QUESTION for", "its scorer fails: AttributeError: 'str' object has no"),
        ("return self.scored(", "self.scored(", "its scorer returns nothing; `score` must return a Scored"),
        ("self.judge.name", "self.judge.nmae", "its scorer fails: AttributeError: 'JudgeBackend' object"),
    ],
)
def test_mistakes_in_a_scorer_are_one_line_that_names_the_benchmark(folder, old, new, told):
    with_mistake(folder, "tint_asked", old, new)
    with ollama(lambda text: "Yes.") as (address, _):
        config = experiment(folder, address)
        run(["shapes", "tint-asked", "--per-tag", "1", "--seed", "1", "--out", "p.jsonl", "--config", config])
        images(config, "p.jsonl", "images")
        words = ["--config", config, "--benchmark", "tint", "--images", "images", "--prompts", "p.jsonl"]
        found = run(["judge", *words, "--answers", "answers", "--out", "judged.json"], code=1)
    assert "promptecho: benchmark tint-asked" in found and told in found and "Traceback" not in found


def test_mistakes_in_its_other_parts_are_named_too(folder):
    from promptecho.tables.kinds import kind_of

    with_mistake(folder, "tint", "self.texts = [", "self.texts = [nothing] + [")
    with_mistake(folder, "tint", "groups=GROUPS,", "group=GROUPS,")
    load_experiment(experiment(folder, "http://localhost:1"))
    (folder / "p.jsonl").write_text('{"data_id": "a", "prompt": "red", "group": "warm", "rgb": [9, 9, 9]}\n')
    with pytest.raises(BenchmarkError, match="its layout fails: NameError: name 'nothing' is not defined; --debug"):
        load_layout("tint-asked", folder / "p.jsonl", folder, 1)
    with pytest.raises(BenchmarkError, match=r"benchmark tint-asked \(tint_asked:BENCHMARK of .*its table fails"):
        kind_of("tint-asked")
