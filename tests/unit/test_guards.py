"""Guards: their scores of real images, what tables and curves make of them, and the warning where one falls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tables_world
import yaml
from clip_fixture import picture, save_clip, save_head
from matplotlib.lines import Line2D
from tiny_experiment import Experiment
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import load_experiment, slice_digest
from promptecho.config.guards import is_trained_with, unwatched_runs
from promptecho.errors import ConfigError, DataError
from promptecho.figures.curves import curve_data
from promptecho.figures.draw_curves import ALARM, draw
from promptecho.files import read_json, write_json, write_jsonl
from promptecho.guard_files import GuardProvenance, GuardScores, find_guard_files, read_guard_files
from promptecho.models.required import required_models
from promptecho.publish.evaluation import evaluations
from promptecho.rewards.aesthetic.reward import AestheticReward
from promptecho.scores import ScoreItem
from promptecho.tables.collect import read_score_files
from promptecho.tables.guard_columns import Guards, estimate

TRAINED, WATCHING = "echo", "pickscore"


def write_guard(
    root: Path, guard: str, run: str, step: int, shift: float, *, missing: bool = False, **changes: Any
) -> Path:
    """A guard's file of 20 prompts with two images each: noise that all checkpoints share, some of its own, a shift."""
    shared, own = np.random.default_rng(1).normal(size=(20, 2)), np.random.default_rng([2, step, len(run)])
    values = shared + 0.3 * own.normal(size=(20, 2)) + shift
    items = [
        ScoreItem(
            prompt_id=f"{p:02}", image_index=i, group="all",
            outcome=None if missing and p == 0 else float(values[p, i]), failed=missing and p == 0,
        )
        for p in range(20)
        for i in range(2)
    ]  # fmt: skip
    told: dict[str, Any] = dict(
        experiment="zimage", run=run, step=step, benchmark="set", scorer=guard, backend="reward", mode="official",
        judge_model="m", prompts_digest="g", n=len(items), failures=sum(item.failed for item in items), guard=guard,
        unit="points", trained=guard == TRAINED and run != "base", benchmarks=["geneval"],
    )  # fmt: skip
    provenance = GuardProvenance(**(told | changes))
    path = root / f"{provenance.experiment}/guards/{guard}/{provenance.benchmark}/{run}/{step}.json"
    write_json(path, GuardScores(provenance=provenance, summary={"mean": 0.0}, items=items).model_dump(mode="json"))
    return path


@pytest.fixture
def world(tmp_path) -> Path:
    """Scores of a base and of two seeds at two checkpoints: the second one's guard falls while its reward rises."""
    for run, step in (("base", 0), ("echo-s1", 10), ("echo-s1", 20), ("echo-s2", 20)):
        tables_world.geneval(tmp_path, run, step, 0.5, prompts=2)
        write_guard(tmp_path, TRAINED, run, step, 0.05 * step)
        write_guard(tmp_path, WATCHING, run, step, -1.0 if step == 20 else 0.0, missing=run == "echo-s2")
    return tmp_path / "zimage"


def told(words: list[str]) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def test_the_mean_has_students_interval_over_prompts():
    from scipy import stats

    values = {f"{p}": [float(p), float(p) + 1.0] for p in (1, 4, 2, 8, 5)}
    found, means = estimate(values), [p + 0.5 for p in (1, 2, 4, 5, 8)]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(means), scale=stats.sem(means))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(means), low, high))
    assert (found.n_items, found.n_prompts) == (10, 5)
    assert estimate({"a": [1.0, 3.0]}).low is None


def test_a_planted_decline_is_warned_of_in_tables_and_curves(world, tmp_path):
    output = told(["tables", "--table", "geneval", "--scores", str(world), "--out", str(tmp_path / "t")])
    warned = [line for line in output.splitlines() if "trained reward up, guard down" in line]
    assert len(warned) == 3  # of each seed at 20, and of both together; not of the checkpoint before
    assert not any("@ 10" in line for line in warned) and any("echo, 2 seeds @ 20" in line for line in warned)
    table = read_json(tmp_path / "t/geneval.json")
    rows = {row["model"]["text"]: row for row in table["rows"]}
    gain = rows["echo-s1 @ 20"]["guard:pickscore:gain"]
    assert gain["high"] < 0 < rows["echo-s1 @ 20"]["guard:echo:gain"]["low"]
    assert gain["value"] == pytest.approx(
        rows["echo-s1 @ 20"]["guard:pickscore"]["value"] - rows["base"]["guard:pickscore"]["value"]
    )
    assert "guard:echo:gain" not in rows["base"] and table["panels"][1]["title"].startswith("Guards")
    text = (tmp_path / "t/geneval.md").read_text()
    assert "**WARNING:** echo-s1 @ 20: trained reward up, guard down: echo +1" in text and "Δ pickscore vs base" in text
    assert "Guards (echo, pickscore) score the same images" in text
    assert "trained reward up" in (tmp_path / "t/short/geneval.tex").read_text()
    # What was gained is told of the benchmark alone; its unit is not the guards'.
    assert not [line for line in told(["show", str(tmp_path / "t/geneval.json")]).splitlines() if "guard:" in line]

    files = read_score_files(sorted(world.glob("scores/geneval/*/*.json")), "geneval")
    data = curve_data(files, Guards(find_guard_files([world], "geneval")))
    echo, pickscore = data["further_scores"][-2:]
    assert (echo["name"], pickscore["name"]) == (TRAINED, WATCHING) and echo["alarms"] == {}
    assert pickscore["alarms"] == {"echo-s1": [20], "echo-s2": [20], "echo": [20]}
    assert pickscore["base"]["value"] == rows["base"]["guard:pickscore"]["value"]
    figure = draw(data, 6.9)
    rings = [line for axes in figure.axes for line in axes.lines if line.get_markersize() == ALARM["markersize"]]
    assert [line.get_xdata().tolist() for line in rings if len(line.get_xdata())] == [[20.0]]
    assert "trained reward up, guard down" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert isinstance(rings[0], Line2D)


def test_a_guard_that_the_configuration_no_longer_has_gets_no_column(world, tmp_path):
    """Where the table is made by hand and the experiment is named; the workflow names the files itself."""
    file = tmp_path / "zimage.yaml"
    experiment: dict[str, Any] = {
        "models": {"t2i": {"path": "shapes"}, "vlm": {"path": "shapes"}}, "captions": {"prompts": "prompts.txt"},
        "runs": {"echo-s1": {}}, "image_sets": {"geneval": {"benchmark": "geneval", "prompts": "prompts.jsonl"}},
    }  # fmt: skip
    for guards, columns in (([TRAINED], {TRAINED}), ([TRAINED, WATCHING], {TRAINED, WATCHING}), ([], set())):
        entries = [{"name": name, "image_sets": ["geneval"]} for name in guards]
        file.write_text(yaml.safe_dump(experiment | {"guards": entries}))
        out = tmp_path / "-".join(["t", *guards])
        told(["tables", "--table", "geneval", "--config", str(file), "--scores", str(world), "--out", str(out)])
        table = (out / "geneval.json").read_text()
        assert {name for name in (TRAINED, WATCHING) if f"guard:{name}" in table} == columns
        found = find_guard_files([world], "geneval", load_experiment(file))
        assert {one.scores.provenance.guard for one in found} == columns
    other = load_experiment(file).model_copy(update={"experiment": "other"})
    assert find_guard_files([world], "geneval", other) == find_guard_files([world], "geneval")


def test_nothing_is_warned_of_where_the_interval_holds_0_or_no_reward_is_known_as_trained(world, tmp_path):
    for run in ("echo-s1", "echo-s2"):
        write_guard(tmp_path, WATCHING, run, 20, 0.0)
    words = ["tables", "--table", "geneval", "--scores", str(world), "--out", str(tmp_path / "t")]
    assert "guard down" not in told(words)
    for run in ("echo-s1", "echo-s2"):
        write_guard(tmp_path, WATCHING, run, 20, -1.0)
    for path in world.glob("guards/echo/**/*.json"):
        path.unlink()
    assert "guard down" not in told(words)
    assert "No guard is known to be the reward that echo-s1, echo-s2 was trained with" in (
        (tmp_path / "t/geneval.md").read_text()
    )
    # A table of scores alone has nothing of guards.
    scores = sorted(map(str, world.glob("scores/geneval/*/*.json")))
    told(["tables", "--table", "geneval", "--scores", *scores, "--out", str(tmp_path / "alone")])
    alone = read_json(tmp_path / "alone/geneval.json")
    assert "guard" not in json.dumps([alone["columns"], alone["footnotes"], alone["provenance"], alone["panels"]])


def test_the_images_that_a_benchmark_scores_now_decide_which_files_are_its_guards(world, tmp_path):
    """Not the benchmarks that a file names, which were those of the day when it was written."""
    write_guard(tmp_path, TRAINED, "base", 0, 0.0, benchmark="other", benchmarks=["geneval"])
    write_guard(tmp_path, TRAINED, "base", 0, 0.0, benchmark="new", benchmarks=[])
    for place in ("other", "set", "new"):
        write_config(world, {"geneval": {"image_set": place}})
        found = find_guard_files([world], "geneval")
        assert found and {file.path.parent.parent.name for file in found} == {place}


def write_config(results: Path, benchmarks: dict) -> None:
    newest = read_json(results / "scores/geneval/base/0.json")["provenance"]["config_digest"]
    (results / "config").mkdir(exist_ok=True)
    (results / f"config/{newest}.yaml").write_text(yaml.safe_dump({"benchmarks": benchmarks}))


def test_footnotes_tell_of_failed_images_and_of_runs_whose_reward_no_guard_is(tmp_path):
    files = [
        write_guard(tmp_path, TRAINED, "echo-s1", 20, 0.0),
        write_guard(tmp_path, WATCHING, "echo-s1", 20, 0.0, missing=True),
        write_guard(tmp_path, WATCHING, "echo-s1", 20, 0.0, experiment="other"),
        write_guard(tmp_path, WATCHING, "published", 1, 0.0, adapter=True),
    ]
    guards, places = Guards(read_guard_files(files)), [("zimage", "echo-s1", 20), ("zimage", "published", 1)]
    notes = guards.notes([*places, ("zimage", "unwatched", 3)])
    assert len(notes) == 2
    assert "Guard pickscore has no value of 2 of 80 images" in notes[1] and "echo-s1 @ 20: 2 of 40" in notes[1]
    assert guards.notes([("mine", "echo-s1", 20)])[1:] == [
        f"Guard {guard} has scored no row of this table: its files are of {files}. An experiment is named by its "
        "configuration's file."
        for guard, files in (
            (TRAINED, "zimage: echo-s1 @ 20"),
            (WATCHING, "other: echo-s1 @ 20, zimage: echo-s1 @ 20, zimage: published @ 1"),
        )
    ]
    notes = guards.notes([*places, ("other", "echo-s1", 20)])
    assert "the reward that other: echo-s1 was trained with" in notes[-1]


def test_guards_of_one_name_that_ask_different_models_have_a_column_each(tmp_path):
    mine = write_guard(tmp_path, TRAINED, "base", 0, 0.0)
    theirs = write_guard(tmp_path, TRAINED, "base", 0, 1.0, experiment="other", judge_model="OTHER")
    guards = Guards(read_guard_files([mine, theirs]))
    assert guards.titles == ["echo (OTHER)", "echo (m)"] and guards.models()["echo (m)"] == "m"
    assert [*guards.cells([("other", "base", 0)])] == ["guard:echo (OTHER)"]


def guarded(tmp_path: Path, guards: list) -> Path:
    sections = {
        "models": {
            "t2i": {"path": "shapes", "dtype": "float32", "height": 64, "width": 64},
            "vlm": {"path": "shapes", "dtype": "float32"},
            "vlms": {"third": {"path": "shapes-third", "dtype": "float32"}},
        },
        "guards": guards,
        "image_sets": {"set": {"benchmark": "geneval", "shapes": {"per_tag": 1, "seed": 1}, "num_shards": 2}},
        "benchmarks": {"geneval": {"image_set": "set", "scorer": "geneval", "backend": "oracle"}},
        "evaluate": [{"benchmark": "geneval"}],
    }
    return Experiment(tmp_path).config(sections=sections)


def draw_images(tmp_path: Path, count: int) -> Path:
    """An image folder of two shards, two images for each prompt."""
    images = tmp_path / "images/base/0/set"
    for shard in range(2):
        rows = []
        for k in range(shard, count, 2):
            file = images / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(k, (32, 32)).save(file)
            rows.append({"prompt_id": f"p{k // 2:02}", "image_index": k % 2, "prompt": "A cat.", "filename": file.name})
        write_jsonl(images / f"shards/{shard}.jsonl", rows)
    return images


def guard_words(tmp_path: Path, name: str, config: Path, images: Path) -> list[str]:
    return ["guard", "--name", name, "--config", str(config), "--images", str(images), "--run", "base", "--step", "0",
            "--work", str(tmp_path / "work"), "--device", "cpu"]  # fmt: skip


def test_guards_may_share_a_work_folder_and_an_image_that_cannot_be_read_is_a_failed_item(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    clip = save_clip(tmp_path / "clip")
    options = {"path": str(clip), "head": f"~/{save_head(tmp_path / 'head.pth').name}"}
    guards = [
        {"name": "aesthetic", "column": "looks", "aesthetic": options},
        {"name": "clipscore", "column": "others", "clipscore": {"path": str(clip)}},
    ]
    config, images = guarded(tmp_path, guards), draw_images(tmp_path, 4)
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:60])
    found = {}
    for column in ("looks", "others"):
        output = told([*guard_words(tmp_path, column, config, images), "--out", str(tmp_path / f"{column}.json")])
        assert f"guard {column}: prompt p01: {images / '2.png'}" in output
        written = read_json(tmp_path / f"{column}.json")
        found[column] = [item["outcome"] for item in written["items"]]
        assert written["provenance"]["failures"] == 1 and found[column][2] is None
    assert all(one != other for one, other in zip(*found.values(), strict=True) if one is not None)


def test_what_is_published_has_the_guards_that_the_configuration_asks_for_alone(world, tmp_path):
    config = load_experiment(guarded(tmp_path, [{"name": TRAINED}]))
    ((table, _),) = evaluations(world, config, "echo-s1", 20)
    assert {column.key for column in table.columns if "guard:" in column.key} == {"guard:echo", "guard:echo:gain"}


def test_images_are_scored_once_whatever_interrupts(tmp_path, monkeypatch):
    clip, head = save_clip(tmp_path / "clip"), save_head(tmp_path / "head.pth")
    options = {"path": str(clip), "head": str(head)}
    config = guarded(tmp_path, [{"name": "aesthetic", "column": "looks", "aesthetic": options, "batch_size": 40}])
    images = draw_images(tmp_path, 50)
    words = guard_words(tmp_path, "looks", config, images)
    told([*words, "--out", str(tmp_path / "whole.json")])

    calls, usual = [], AestheticReward.__call__

    def cut(self, pictures, *rest):
        calls.append(len(pictures))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return usual(self, pictures, *rest)

    monkeypatch.setattr(AestheticReward, "__call__", cut)
    words[words.index("--work") + 1] = str(tmp_path / "again")
    assert CliRunner().invoke(app, [*words, "--out", str(tmp_path / "cut.json")]).exit_code != 0
    assert calls == [40, 10] and not (tmp_path / "cut.json").exists()
    told([*words, "--out", str(tmp_path / "cut.json")])
    assert calls == [40, 10, 10]
    assert (tmp_path / "cut.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    written = read_json(tmp_path / "cut.json")
    keys = [(item["prompt_id"], item["image_index"]) for item in written["items"]]
    assert keys == sorted(keys) and len(keys) == 50 and written["summary"]["mean"] < 0
    assert written["provenance"]["benchmarks"] == ["geneval"] and written["provenance"]["judge_model"] == str(clip)


def test_what_is_wrong_with_guards_is_told_before_anything_starts(tmp_path):
    faulty = [
        {"name": "echo", "vlm": "thrid"}, {"name": "echo"}, {"name": "pickscore", "vlm": "third"},
        {"name": "clipscore", "image_sets": ["sett"]}, {"name": "aesthetic", "query": "What?", "weight": 2},
        {"name": "expected_score", "clipscore": {}, "column": "Bad Name"},
    ]  # fmt: skip
    with pytest.raises(ConfigError) as error:
        load_experiment(guarded(tmp_path, faulty))
    lines = str(error.value)
    for part in ("guards.4.weight: is not a known key", "guards.5.column"):
        assert part in lines, lines
    del faulty[4]["weight"], faulty[5]["column"]
    with pytest.raises(ConfigError) as error:
        load_experiment(guarded(tmp_path, faulty))
    lines = str(error.value)
    for part in ("guards.1.column: echo is another guard's already", "guards.2.vlm: pickscore is given by no VLM",
                 "guards.0.vlm: thrid",
                 "guards.3.image_sets.0: sett: no such image set (known: set); did you mean set?",
                 "guards.4.query: aesthetic has none", "guards.5.clipscore: expected_score has no"):  # fmt: skip
        assert part in lines, lines


def test_what_decides_scores_and_which_reward_is_the_trained_one(tmp_path):
    other = {"name": "echo", "column": "echo-third", "vlm": "third"}
    config = load_experiment(file := guarded(tmp_path, [{"name": "echo"}, other, {"name": "pickscore"}]))
    echo, third, pickscore = config.guards
    assert is_trained_with(config, "r", echo) and not is_trained_with(config, "base", echo)
    assert not is_trained_with(config, "r", third) and not is_trained_with(config, "r", pickscore)
    assert unwatched_runs(config) == ""
    raw = yaml.safe_load(file.read_text())
    raw["guards"] = [{**raw["guards"][1], "image_sets": ["set", "unscored"]}, raw["guards"][2]]
    raw["image_sets"]["unscored"] = raw["image_sets"]["set"]
    (alone := file.with_name("alone.yaml")).write_text(yaml.safe_dump(raw))
    checked = told(["config", "check", str(alone)])
    assert "guards: none is the reward that r trains with" in checked
    assert "guards.0.image_sets: no benchmark of evaluate scores unscored, so that echo-third never" in checked
    keys = [key for model in required_models(config) for key in model.keys]
    assert {"models.vlms.third.path", "guards.2.pickscore.path"} <= {*keys}

    def digests(**changes) -> list[str]:
        raw = yaml.safe_load(file.read_text())
        raw["guards"][2] |= changes
        file.write_text(yaml.safe_dump(raw))
        now = load_experiment(file)
        return [slice_digest(now, "guard", guard=guard.title, image_set="set") for guard in now.guards]

    before = digests()
    assert len({*before}) == 3
    assert digests(column="people", image_sets=["set"], batch_size=3) == before
    assert digests(pickscore={"revision": "abc"})[2] != before[2]
    with pytest.raises(ConfigError, match="none is called peple .known: echo, echo-third, people.; did you mean"):
        slice_digest(load_experiment(file), "guard", guard="peple", image_set="set")


def test_a_file_that_is_no_guards_is_refused(world):
    with pytest.raises(DataError, match=r"0\.json: provenance\.guard: .* no guard's score file"):
        read_guard_files([world / "scores/geneval/base/0.json"])
    double = world / "guards/echo/other/base/0.json"
    write_json(double, read_json(world / "guards/echo/set/base/0.json"))
    with pytest.raises(DataError, match="the same guard, run and step"):
        find_guard_files([world], "geneval")
