"""What tables say of judges."""

from __future__ import annotations

from pathlib import Path

import pytest
from tables_world import densealign

from promptecho.benchmarks.densealign.table import DENSEALIGN
from promptecho.errors import DataError
from promptecho.tables.collect import find_score_files, read_score_files
from promptecho.tables.compare import check_comparable, check_versions, comparison


def table(root: Path, **values):
    files = read_score_files(find_score_files([root], "densealign"), "densealign")
    return comparison(DENSEALIGN, files, name="x", **values)


def test_versions_of_a_judge_that_are_mixed_are_told_or_refused(tmp_path):
    one, two = ({f"gpt-4o-{date}": 60} for date in ("2024-08-06", "2024-11-20"))
    densealign(tmp_path, "a", 40, 0.5, 0.2, judge_versions=one)
    same = densealign(tmp_path, "b", 40, 0.5, 0.2, judge_versions=one)
    assert table(tmp_path / "zimage").warnings == []
    densealign(tmp_path, "b", 40, 0.5, 0.2, judge_versions=two)
    [warning] = table(tmp_path / "zimage").warnings
    assert "gpt-4o-2024-08-06: a @ 40; gpt-4o-2024-11-20: b @ 40" in warning
    # Scores of earlier versions have it in the raw records alone.
    densealign(tmp_path, "b", 40, 0.5, 0.2)
    same.with_suffix(".raw.jsonl").write_text('{"x": 1, "model_version": "gpt-4o-2024-11-20"}\n{"model_version": ""}\n')
    files = read_score_files(find_score_files([tmp_path / "zimage"], "densealign"), "densealign")
    assert table(tmp_path / "zimage").warnings == [warning]
    with pytest.raises(DataError, match="several versions .* judges.mixed_versions is refuse"):
        check_versions(files)


def test_orders_of_messages_that_are_mixed_are_told(tmp_path):
    densealign(tmp_path, "a", 40, 0.5, 0.2)  # of an earlier version
    densealign(tmp_path, "b", 40, 0.5, 0.2, judge_orders={"official": 60})
    [warning] = table(tmp_path / "zimage").warnings
    assert "images_first: a @ 40; official: b @ 40" in warning
    densealign(tmp_path, "b", 40, 0.5, 0.2, judge_orders={"images_first": 60})
    assert table(tmp_path / "zimage").warnings == []


def test_scores_of_a_judge_that_moved_belong_together(tmp_path):
    densealign(tmp_path, "a", 40, 0.5, 0.2, judge_model="m@127.0.0.1:33397")
    densealign(tmp_path, "b", 40, 0.5, 0.2, judge_model="m")
    check_comparable(read_score_files(find_score_files([tmp_path / "zimage"], "densealign"), "densealign"))
    assert any("judged by: m." in note for note in table(tmp_path / "zimage").footnotes)


@pytest.mark.parametrize("name", ["", "densealign", "zimage/densealign"])
def test_the_share_of_failed_items_is_one_of_a_benchmark(name, tmp_path):
    densealign(tmp_path, "a", 40, 0.5, 0.2, failed=3)
    assert table(tmp_path / "zimage", max_failure_share={name: 0.05}).rows[0]["failures"].value == 3
    with pytest.raises(DataError, match="3 of 60 items failed, more than the 1.0% allowed; .*benchmarks.densealign"):
        table(tmp_path / "zimage", max_failure_share={"other": 0.05})
