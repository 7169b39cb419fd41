"""docs/results-shapes.md is what its kept score files say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from promptecho.files import read_json, write_json, write_text
from promptecho.train.metrics import read_run

ROOT = Path(__file__).parents[2]
PAGE, KEPT, CONFIGS = ROOT / "docs/results-shapes.md", ROOT / "docs/results", ROOT / "config/experiments"
sys.path.insert(0, str(ROOT / "scripts"))


def test_the_page_is_written_again_to_the_same_bytes_and_its_tables_follow_the_scores():
    from results_page import BLOCK, NOT_RUN, page

    text = PAGE.read_text("utf-8")
    assert page(text, KEPT, CONFIGS) == text
    kinds = [match[2] for match in BLOCK.finditer(text)]
    assert kinds.count("results") == 15
    assert {*kinds} == {"results", "gains", "sizes", "path", "audit", "costs", "adapters"}
    empty = page(text, ROOT / "no/such/folder", CONFIGS)
    assert empty.count("No scores are kept yet.") == 15 and f"| promptecho: {NOT_RUN} |" in empty
    assert not any(word in match[0] for match in BLOCK.finditer(empty) for word in (" gains ", "rises", ".png"))


def keep(folder: Path, run: str, step: int, right: int, of: int = 40) -> None:
    """A score file of `of` images, of which the first `right` are right."""
    value = read_json(KEPT / "shapes/scores/heldout/base/0.json")
    value["provenance"] |= {"experiment": folder.name, "run": run, "step": step, "n": of}
    value["items"] = [item | {"outcome": float(k < right)} for k, item in enumerate(value["items"][:of])]
    write_text(folder / f"scores/heldout/{run}/{step}.json", json.dumps(value))


@pytest.fixture
def kept(tmp_path) -> Path:
    """Two seeds of the reference, three of a smaller VLM and of another query, and an audit of both."""
    keep(tmp_path / "ablations", "base", 0, 10)
    for seed, right in ((1, 30), (2, 26)):
        keep(tmp_path / "ablations", f"promptecho-s{seed}", 30, right)
        keep(tmp_path / "ablations", f"promptecho-s{seed}", 15, 39)
    for seed in (1, 2, 3):
        keep(tmp_path / "ablations", f"query-s{seed}", 30, 12)
        keep(tmp_path / "ablations", f"third-s{seed}", 30, 20 + seed)
    write_json(tmp_path / "vlms.json", {"shapes": 3_000_000, "shapes-third": 1_000_000})
    rewards = {f"promptecho-s{seed}": {"0": -1.5, "15": -1.0, "30": -0.9} for seed in (1, 2)}
    write_json(tmp_path / "ablations/training.json", rewards)
    one = {"reward": "echo", "vlm": "shapes", "settings": {}, "failed": None, "image": None, "text": None}
    auc = {"value": 0.8, "low": 0.7, "high": 0.9}
    asked = [one | {"query": query, "auc": auc} for query in ("Describe this image in detail.", "Where is what?")]
    write_json(tmp_path / "audit.json", {"candidates": asked})
    return tmp_path


def rows(lines: list[str]) -> dict[str, list[str]]:
    """First cell -> the others, of a block's table."""
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in table}


def test_costs_and_adapters_are_those_of_the_runs(tmp_path):
    from results_costs import adapters_block, costs_block, keep_adapters, keep_costs

    source = tmp_path / "results/pair"
    for run, adapter in (("a-s1", b"one"), ("b-s1", b"one"), ("c-s1", b"two")):
        write_text(source / f"runs/{run}/10/adapter/adapter_model.safetensors", adapter.decode())
        rows = [{"iteration": k, "seconds_sample": k / 2, "memory_gb_sample": 1.0 + k} for k in (1, 2, 3)]
        write_text(source / f"runs/{run}/10/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text(source / "runs/a-s1.replaced-1/10/adapter/adapter_model.safetensors", "three")  # was moved aside
    keep_costs(source, tmp_path / "kept", [read_run(source, run) for run in ("a-s1", "b-s1", "c-s1")])
    keep_adapters(source, tmp_path / "kept")
    assert costs_block(tmp_path / "kept", "pair", "a-s1")[2] == "| sample | 3 | 1.00 | 0.50 - 1.50 | 4.00 |"
    lines = adapters_block(tmp_path / "kept", "pair", "10")
    assert [line.split(" | ")[1] for line in lines[2:4]] == ["a-s1, b-s1 |", "c-s1 |"]
    assert lines[5] == "- a-s1, b-s1: the same file, byte for byte."
    assert "no metrics are kept yet" in costs_block(tmp_path / "kept", "pair", "d-s1")[0]
    assert "no adapters of iteration 20" in adapters_block(tmp_path / "kept", "pair", "20")[0]

    elsewhere = tmp_path / "elsewhere/pair"  # of another checkout: what is kept of the others stays
    write_text(elsewhere / "runs/d-s1/10/adapter/adapter_model.safetensors", "two")
    write_text(elsewhere / "runs/d-s1/10/metrics.jsonl", '{"iteration": 1, "seconds_sample": 2.0}\n')
    keep_costs(elsewhere, tmp_path / "kept", [read_run(elsewhere, "d-s1")])
    keep_adapters(elsewhere, tmp_path / "kept")
    lines = adapters_block(tmp_path / "kept", "pair", "10")
    assert [line.split(" | ")[1] for line in lines[2:4]] == ["a-s1, b-s1 |", "c-s1, d-s1 |"]
    assert costs_block(tmp_path / "kept", "pair", "a-s1")[2] == "| sample | 3 | 1.00 | 0.50 - 1.50 | 4.00 |"


def test_trainings_are_compared_by_seed_together_and_with_the_reference(kept):
    from results_gains import gains_block

    lines = gains_block(kept, CONFIGS, "heldout")
    found = rows(lines)
    assert [cell.split(" ")[0] for cell in found["promptecho"]] == ["+50.0", "+40.0", "not", "+45.0", "+45.0", "–"]
    assert found["promptecho"][4].endswith(", n 2") and "[-18.5, +108.5]" in found["promptecho"][4]  # t of one degree
    assert found["query"][3].startswith("+5.0 [") and found["query"][5].startswith("-40.0 [")  # over two seeds
    assert found["sum"] == ["not run yet"] * 6
    assert any(line.startswith("- query: ") and line.endswith("less than it.") for line in lines)
    assert any(line.startswith("- third: ") for line in lines)


def test_gain_against_the_size_of_the_vlm_and_against_the_reward(kept):
    from results_gains import audit_block, path_block, rank_correlation, sizes_block
    from results_pictures import draw_pictures

    found = rows(sizes_block(kept, CONFIGS, "heldout"))
    assert {"promptecho", "third", "tenth", "scores"} < {*found} and len(found) == 6  # with head and rule
    assert found["third"][0] == "1.00" and found["third"][3] == "+27.5 +30.0 +32.5"
    assert found["tenth"] == ["not run yet"] * 4
    text = "\n".join(path_block(kept, CONFIGS, "heldout"))
    assert "iteration 15 to 30: the reward changes by +0.100, and the score falls" in text
    assert "the reward rises while the score falls" in text
    assert [path.name for path in draw_pictures(kept, CONFIGS, "heldout")] == [
        "gain-by-vlm.png", "reward-and-score.png"
    ]  # fmt: skip
    audited = rows(audit_block(kept, CONFIGS, "heldout"))
    assert "permuted" not in audited and "unscaled" not in audited  # the same reward as before
    assert audited["query"][0] == "80.0 [70.0, 90.0]" and audited["query"][3].endswith("3 seeds")
    assert audited["sum"] == ["not audited yet"] * 3 + ["not run yet"]
    pairs = [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)]
    assert rank_correlation(pairs) == "+1.00 (n = 4, p = 0.083)" and "n = 3" in rank_correlation(pairs[:3])


def test_audits_of_the_same_images_are_kept_together(tmp_path):
    from results_page import add_audit

    one = {"reward": "echo", "vlm": "shapes", "query": "q", "settings": {}, "failed": None, "auc": {}, "pairs": {}}
    for name, n in (("a", 4), ("b", 4), ("a", 4), ("c", 5)):
        report = {"settings": {"n": n}, "candidates": [one | {"label": name, "failed": "no room" if n == 5 else None}]}
        write_json(tmp_path / "report.json", report)
        if n == 5:
            with pytest.raises(SystemExit, match="of other captions or images than"):
                add_audit(tmp_path / "report.json", tmp_path)
        else:
            add_audit(tmp_path / "report.json", tmp_path)
    assert [one["label"] for one in read_json(tmp_path / "audit.json")["candidates"]] == ["a", "b"]
