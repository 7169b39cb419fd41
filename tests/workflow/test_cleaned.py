"""After `promptecho clean --yes` Snakemake has nothing to make again, whatever the policy lets go."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from promptecho.cli import app

GOES = (
    "work/train/echo-s1/4/0123456789abcdef/states/000003/state.json",
    "work/caption_shard/00000/0123456789abcdef/00000.journal.jsonl",
    "work/generate_shard/base/0/geneval/0/0123456789abcdef/done/000000.json",
    "work/prompts/aa/b.safetensors",
    "runs/echo-s1.replaced-0123456789abcdef/4/adapter/a",
    "scores/geneval/echo-s1.replaced-0123456789abcdef/4.json",
    "captions.replaced-0123456789abcdef/shards/00000.h5",
    "images/base/0/geneval/.restoring-x/00000/samples/0000.png",
    "tables/.geneval.md.0123abcd.tmp",
    "logs/train/echo-s1.4.log",
)


def test_snakemake_asks_for_nothing_after_cleaning_all_that_a_policy_can_name(finished, monkeypatch):
    results = finished.root / "results/tiny"
    for name in GOES:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("x")
    declared = {path for path in results.rglob("*") if path.is_file()} - {results / name for name in GOES}
    everything = {"not_finite": True, "prompt_cache": True, "replaced": True, "logs_days": 0}
    (finished.root / "config/config.yaml").write_text(f"experiments: [tiny]\nclean: {json.dumps(everything)}\n")
    assert finished.planned() == {}
    monkeypatch.chdir(finished.root)
    result = CliRunner().invoke(app, ["clean", "--yes"])
    assert result.exit_code == 0, result.output
    assert [name for name in GOES if (results / name).exists()] == []
    assert {path for path in declared if not path.is_file() and "logs" not in path.parts} == set()
    assert finished.planned() == {}
