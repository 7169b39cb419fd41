"""The captions table: means over images, paired gains, training seeds taken together."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from promptecho.benchmarks.captions.scorer import summary_of
from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.figures.curves import curve_data
from promptecho.provenance import Provenance
from promptecho.scores import ScoreItem, Scores, write_scores
from promptecho.shapes.world import KINDS
from promptecho.tables.collect import find_score_files, read_score_files
from promptecho.tables.kinds import make_table
from promptecho.tables.latex import to_latex
from promptecho.tables.table import to_csv, to_json, to_markdown

PROMPTS = 120
KIND_OF = [KINDS[p % 8 % 4 if p % 8 < 5 else 3] for p in range(PROMPTS)]  # "pair" more often than the others


def make(root: Path, run: str, step: int, right, *, failed=(), images: int = 1, **changed) -> Path:
    """Write one score file; `right(prompt, image)` says which are."""
    items = [
        ScoreItem(
            prompt_id=f"{p:05}.png", image_index=i, group=KIND_OF[p] if (p, i) not in failed else "other",
            outcome=None if (p, i) in failed else float(right(p, i)), failed=(p, i) in failed,
        )
        for p in range(PROMPTS)
        for i in range(images)
    ]  # fmt: skip
    values = {
        "experiment": "shapes", "run": run, "step": step, "benchmark": "heldout", "scorer": "captions",
        "backend": "oracle", "mode": "official", "judge_model": "oracle", "config_digest": "d1", "git_commit": "c1",
        "prompts_digest": "p1", "n": len(items), "failures": len(failed),
    }  # fmt: skip
    path = root / "shapes/scores/heldout" / run / f"{step}.json"
    write_scores(path, Scores(provenance=Provenance(**values | changed), summary=summary_of(items), items=items))
    return path


def base_right(p: int, _: int) -> bool:
    return p % 10 < 4


@pytest.fixture
def results(tmp_path) -> Path:
    """Base 40 %; seeds 1 to 3 get 10, 20 and 30 % of the prompts more right; another run gets what base gets."""
    make(tmp_path, "base", 0, base_right)
    for seed in (1, 2, 3):
        make(tmp_path, f"echo-s{seed}", 20, lambda p, i, seed=seed: p % 10 < 4 + seed)
    make(tmp_path, "shuffled-s1", 20, base_right)
    return tmp_path


def table_of(root: Path, **options):
    files = read_score_files(find_score_files([root / "shapes"], "heldout"), "captions")
    return make_table("captions", files, name="heldout", **options)


def test_gains_are_paired_and_seeds_are_taken_together(results):
    table = table_of(results)
    assert [row["model"].text for row in table.rows] == [
        "base", "echo-s1 @ 20", "echo-s2 @ 20", "echo-s3 @ 20", "shuffled-s1 @ 20", "echo, 3 seeds @ 20"
    ]  # fmt: skip
    assert [column.label for column in table.columns] == [
        "Model", "Single", "Count", "Relation", "Pair", "Overall", "Δ vs base", "Seeds", "s.d. over seeds", "Prompts",
        "Images", "Failed",
    ]  # fmt: skip
    base, first, second, third, shuffled, pooled = table.rows
    assert "delta" not in base and base["overall"].value == pytest.approx(40)
    for row, gain in ((first, 10), (second, 20), (third, 30)):
        assert row["delta"].value == pytest.approx(gain)
        assert gain - 10 < row["delta"].low < gain < row["delta"].high < gain + 10
        assert row["delta"].note == "p < 0.001" and "seeds" not in row
    same = shuffled["delta"]
    assert same.value == 0 and same.note == "p = 1.000"
    assert -3 < same.low < -1 and same.low == pytest.approx(-same.high)
    assert pooled["delta"].value == pytest.approx(20) and pooled["seed_sd"].value == pytest.approx(10)
    assert pooled["delta"].low < 20 < pooled["delta"].high and pooled["delta"].note == "p < 0.001"
    # Gains of three seeds on the same prompts go together here, so more seeds make the interval no narrower
    # than prompts allow.
    assert pooled["delta"].high - pooled["delta"].low > 0.5 * (second["delta"].high - second["delta"].low)
    assert pooled["overall"].value == pytest.approx(60)
    assert [pooled[key].value for key in ("seeds", "prompts", "images", "failures")] == [3, 120, 360, 0]
    assert any("not where another seed would end" in note for note in table.footnotes)
    assert not table.warnings


def test_overall_is_the_mean_over_images_and_groups_are_means_of_theirs(results):
    row = table_of(results).rows[1]
    for kind in KINDS:
        outcomes = [p % 10 < 5 for p in range(PROMPTS) if KIND_OF[p] == kind]
        assert row[kind].value == pytest.approx(100 * np.mean(outcomes))
    assert row["overall"].value == pytest.approx(50)
    assert row["overall"].value != pytest.approx(np.mean([row[kind].value for kind in KINDS]))


def test_several_images_of_a_prompt_are_no_independent_evidence(tmp_path):
    """Four equal images of each prompt say as much as one: the same interval, but that its variance is estimated."""
    for images, root in ((1, tmp_path / "one"), (4, tmp_path / "four")):
        make(root, "base", 0, base_right, images=images)
        make(root, "echo", 20, lambda p, i: p % 10 < 6, images=images)
    one, four = (table_of(tmp_path / name).rows[1] for name in ("one", "four"))
    for key in ("delta", "overall", "pair"):
        assert one[key].value == pytest.approx(four[key].value)
        assert 1 <= (four[key].high - four[key].low) / (one[key].high - one[key].low) < 1.06
    assert (one["images"].value, four["images"].value, four["prompts"].value) == (120, 480, 120)


def test_failures_leave_the_denominator_and_are_shown(tmp_path):
    make(tmp_path, "base", 0, base_right, failed={(0, 0)})
    make(tmp_path, "echo-s1", 20, lambda p, i: p % 10 < 5, failed={(0, 0)})
    table = table_of(tmp_path)
    assert table.rows[0]["overall"].value == pytest.approx(100 * 47 / 119)
    assert table.rows[1]["delta"].value == pytest.approx(100 * 12 / 119)
    assert [table.rows[1][key].value for key in ("prompts", "images", "failures")] == [119, 119, 1]
    assert any("1 pairs lost" in note for note in table.footnotes)
    with pytest.raises(DataError, match="1 of 120 items failed, more than the 0.1% allowed"):
        table_of(tmp_path, max_failure_share=0.001)


def test_seeds_come_together_only_at_one_step_and_on_the_same_items(results):
    make(results, "echo-s4", 40, base_right)
    make(results, "lone-s1", 20, base_right)
    make(results, "other-s1", 20, base_right)
    make(results, "other-s2", 20, base_right, images=2)
    table = table_of(results)
    assert [row["model"].text for row in table.rows if "seeds" in row] == ["echo, 3 seeds @ 20"]
    assert "other-s2 @ 20 differ from base" in table.warnings[0]
    (results / "shapes/scores/heldout/base/0.json").unlink()
    pooled = table_of(results).rows[-1]
    assert pooled["seeds"].value == 3 and "delta" not in pooled and "seed_sd" not in pooled


def test_without_seeds_there_is_no_column_of_them(results):
    for seed in (2, 3):
        (results / f"shapes/scores/heldout/echo-s{seed}/20.json").unlink()
    table = table_of(results)
    assert "Seeds" not in [column.label for column in table.columns]
    assert not any("several seeds" in note for note in table.footnotes)


def test_absent_groups_and_foreign_ones_are_told(tmp_path):
    path = make(tmp_path, "base", 0, base_right)
    scores = json.loads(path.read_text())
    for item in scores["items"]:
        item["group"] = "pair" if item["group"] == "count" else item["group"]
    path.write_text(json.dumps(scores))
    table = table_of(tmp_path)
    assert "count" not in table.rows[0] and not table.warnings  # nobody asked for one, and no mean lacks it
    for item in scores["items"]:
        if item["group"] == "relation":
            item |= {"outcome": None, "failed": True}
    scores["provenance"]["failures"] = sum(item["failed"] for item in scores["items"])
    path.write_text(json.dumps(scores))
    assert table_of(tmp_path, max_failure_share=1.0).warnings[-1] == "base has no verdict of Relation"
    scores["items"][0]["group"] = "colors"
    path.write_text(json.dumps(scores))
    with pytest.raises(DataError, match=f"{path}: unknown Captions group 'colors'"):
        table_of(tmp_path)


def test_captions_that_nobody_can_judge_keep_no_curve_from_being_drawn(tmp_path):
    lost = {(p, 0) for p in range(5)}  # of a group of their own, none of which has a verdict
    paths = [make(tmp_path, "base", 0, base_right, failed=lost)]
    paths.append(make(tmp_path, "echo-s1", 20, lambda p, i: p % 10 < 6, failed=lost))
    drawn = curve_data(read_score_files(paths, "captions"))["score"]
    assert drawn["base"]["value"] == pytest.approx(json.loads(paths[0].read_text())["summary"]["overall"])
    scores = json.loads(paths[0].read_text())
    scores["summary"]["overall"] += 0.01
    paths[0].write_text(json.dumps(scores))
    with pytest.raises(DataError, match="every item of group 'other' failed"):
        curve_data(read_score_files(paths, "captions"))


def test_all_formats_show_the_same_numbers(results):
    table = table_of(results)
    last = list(csv.DictReader(io.StringIO(to_csv(table))))[-1]
    assert float(last["delta"]) == pytest.approx(20) and float(last["seed_sd"]) == pytest.approx(10)
    assert json.loads(to_json(table))["rows"][-1]["delta"]["value"] == float(last["delta"])
    low, high = (f"{float(last[key]):+.1f}" for key in ("delta_low", "delta_high"))
    assert f"+20.0 [{low}, {high}] p < 0.001" in to_markdown(table)
    assert f"+20.0 & $_{{{low}}}^{{{high}}}$ " in to_latex(table)


def test_tables_command(results, tmp_path):
    out = tmp_path / "out"
    arguments = ["tables", "--table", "captions", "--benchmark", "heldout", "--scores", str(results / "shapes")]
    run = CliRunner().invoke(app, [*arguments, "--out", str(out), "--print"])
    assert run.exit_code == 0, run.output
    kinds = ("csv", "html", "json", "md", "tex")
    assert sorted(path.name for path in out.iterdir()) == [*(f"heldout.{kind}" for kind in kinds), "short"]
    assert "3 seeds" in run.stdout and "+20.0" in run.stdout
