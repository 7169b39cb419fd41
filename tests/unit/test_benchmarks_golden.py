"""`benchmarks verify`: which file is of which kind, and cases that are malformed."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from promptecho.benchmarks.geneval.golden import OFFICIAL_COUNTS, read_tags
from promptecho.benchmarks.golden import checks, find_kind, verify
from promptecho.benchmarks.tiif.golden import check_tiif_summary
from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.files import read_jsonl

ROOT = Path(__file__).resolve().parent.parent.parent
# A box beside another: what the official evaluator says of them.
RELATION = {
    "id": "r1", "a": [0, 0, 9, 9], "b": [100, 0, 109, 9], "relations_of_a_to_b": ["left of"], "iou": 0.0,
}  # fmt: skip


def write(path: Path, *lines) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    return path


@pytest.mark.parametrize(
    "name",
    ["geneval/relations.jsonl", "geneval/relations_more.jsonl", "geneval/relations-2.jsonl",
     "deep/geneval/relations2.jsonl", "geneval/pairs.jsonl", "elsewhere/boxes.jsonl", "boxes.jsonl"],
)  # fmt: skip
def test_files_of_other_names_are_recognised(tmp_path, name):
    write(tmp_path / name, RELATION, {**RELATION, "id": "r2", "iou": 0.5})
    (report,), skipped = verify(tmp_path)
    assert (report.file, report.total, report.passed, skipped) == (name, 2, 1, [])
    assert report.failures[0]["id"] == "r2" and "iou: expected" in report.failures[0]["problems"][0]


def test_a_folder_of_one_benchmark_works_too(tmp_path):
    write(tmp_path / "geneval" / "relations.jsonl", RELATION)
    (report,), _ = verify(tmp_path / "geneval")
    assert (report.file, report.passed) == ("relations.jsonl", 1)


def test_links_are_followed_and_circles_end(tmp_path):
    (store := tmp_path / "store" / "3f").mkdir(parents=True)
    file = write(store / "a1", RELATION)
    (golden := tmp_path / "golden").mkdir()
    (golden / "geneval").symlink_to(store)
    (golden / "geneval" / "relations.jsonl").symlink_to(file)
    (golden / "geneval" / "circle").symlink_to(golden)
    (report,), skipped = verify(golden)
    assert (report.file, report.passed, skipped) == ("geneval/relations.jsonl", 1, [])


def test_the_name_decides_before_the_keys_and_folders_tell_namesakes_apart():
    case = {"answers": {}, "judge": "x", "expected": {}}
    assert find_kind(Path("/g/tiif/summary.jsonl"), [case]) == "tiif/summary.jsonl"
    assert find_kind(Path("/g/geneval/summary.jsonl"), [case]) == "geneval/summary.jsonl"
    assert find_kind(Path("/g/other/summary.jsonl"), [case]) == "tiif/summary.jsonl"
    assert find_kind(Path("/g/geneval/summaryx.jsonl"), [{}]) is None
    assert find_kind(Path("/g/geneval/new.jsonl"), ["no object", {"id": 1}]) is None


def test_malformed_cases_fail_by_name_and_the_others_still_count(tmp_path):
    name = "geneval/relations.jsonl"
    no_box = {key: value for key, value in RELATION.items() if key != "b"}
    write(
        tmp_path / name, b"", {"id": 7, **{k: v for k, v in no_box.items() if k != "id"}}, b"{torn", b"\xff\xfe", [1],
        {**RELATION, "a": "box"}, {**RELATION, "id": "good"}, {k: v for k, v in RELATION.items() if k != "id"},
        b"[" * 99999,
    )  # fmt: skip
    (report,), _ = verify(tmp_path)
    assert (report.total, report.passed) == (8, 2)
    assert [failure["id"] for failure in report.failures] == ["7", "line 3", "line 4", "line 5", "r1", "line 9"]
    problems = [failure["problems"][0] for failure in report.failures]
    assert "KeyError: 'b'" in problems[0] and "not valid JSON" in problems[1] and "found list" in problems[3]
    run = CliRunner().invoke(app, ["benchmarks", "verify", "--golden", str(tmp_path)])
    assert run.exit_code == 1 and f"{name}: 2/8 passed" in run.output and "  line 3: not valid JSON" in run.output


def test_a_file_without_cases_is_no_success(tmp_path):
    write(tmp_path / "geneval" / "relations.jsonl", b"")
    (report,), _ = verify(tmp_path)
    assert (report.total, report.passed) == (1, 0)


def test_the_known_tags_are_those_of_the_official_prompts(shared):
    official = shared / "benchmarks" / "mirror" / "geneval" / "evaluation_metadata.jsonl"
    assert read_tags(None) == read_tags(official) and len(read_tags(None)) == sum(OFFICIAL_COUNTS.values()) == 553


def test_summaries_need_no_prompt_file(golden_folder, tmp_path):
    """The official tags are known; a folder far from the prompts is checked all the same."""
    (tmp_path / "geneval").mkdir()
    shutil.copy(golden_folder / "geneval" / "summary.jsonl", tmp_path / "geneval")
    (report,), _ = verify(tmp_path)
    assert report.total == report.passed > 0
    with pytest.raises(DataError, match="nowhere.jsonl: no such file"):
        verify(tmp_path, tmp_path / "nowhere.jsonl")


def test_cases_that_may_not_be_published_are_reproduced_too(shared):
    """TIIF-Bench's questions and real replies of judges, where they lie beside the checkout."""
    reports, _ = verify(shared / "benchmarks" / "golden")
    assert sum(report.total for report in reports) > 800
    assert [failure for report in reports for failure in report.failures] == []


def test_an_archive_of_a_folder_is_checked_like_the_folder(golden_folder):
    inside, whole = verify(ROOT / "tests/data/golden.tar.xz"), verify(golden_folder)
    assert inside == whole and sum(report.total for report in inside[0]) == 1005


def test_what_is_no_archive_is_told_in_a_line(tmp_path):
    whole = (ROOT / "tests/data/golden.tar.xz").read_bytes()
    for name, content in {"text": b"{}", "cut.tar.xz": whole[:100_000], "none.tar.xz": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: not a readable tar archive of golden cases") as error:
            verify(tmp_path / name)
        assert "\n" not in str(error.value)


def test_an_archive_writes_nothing_outside(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(write(tmp_path / "file", RELATION), "../geneval/relations.jsonl")
    with pytest.raises(DataError, match="evil.tar: not a readable tar archive of golden cases"):
        verify(tmp_path / "evil.tar")


def test_every_check_is_there():
    assert all(callable(kind.function) for kind in checks().values())


def test_a_scenario_without_its_question_file_is_a_failed_case(golden_folder, tmp_path):
    (tmp_path / "dpg").mkdir()
    shutil.copy(golden_folder / "dpg" / "scenarios.jsonl", tmp_path / "dpg")
    (report,), _ = verify(tmp_path)
    assert report.total > 0 and report.passed == 0
    assert ".csv" in report.failures[0]["problems"][0]


def test_a_scenario_s_question_file_lies_beside_it_wherever_that_is(golden_folder, tmp_path):
    shutil.copytree(golden_folder / "dpg", tmp_path / "elsewhere")
    (report,), skipped = verify(tmp_path)
    assert (report.passed, report.total, skipped) == (9, 9, [])


def test_a_model_that_only_one_side_has_is_a_difference(golden_folder):
    case = read_jsonl(golden_folder / "tiif" / "summary.jsonl")[0]
    assert check_tiif_summary(case) == []
    assert check_tiif_summary({**case, "answers": {}}) and check_tiif_summary({**case, "expected": {}})


def test_what_a_case_does_not_need_may_be_left_out(golden_folder, tmp_path):
    cases = {name: read_jsonl(golden_folder / "geneval" / f"{name}.jsonl") for name in ("cases", "crops")}
    plain = next(c for c in cases["cases"] if "options" not in c and not c["colors"])
    crop = next(c for c in cases["crops"] if not c["options"] and c["mask_b64"] is None)
    write(tmp_path / "geneval/cases.jsonl", {key: value for key, value in plain.items() if key != "colors"})
    optional = ("options", "mask_b64")
    write(tmp_path / "geneval/crops.jsonl", {key: value for key, value in crop.items() if key not in optional})
    reports, _ = verify(tmp_path)
    assert [(report.passed, report.total) for report in reports] == [(1, 1), (1, 1)]
