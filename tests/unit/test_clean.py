"""`promptecho clean`: only what a finished experiment no longer needs, only with --yes, never beside a job at work."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from promptecho.benchmarks.packing import pack, restore
from promptecho.cli import app

LISTING = '{"filename": "0.png", "sha256": "SHA"}\n'
OLD = time.time() - 40 * 86400
# Files of results/e by what they are. The keys are those of the policy `clean`.
MAY_GO = {
    "work": [
        "work/caption_shard/00000/aaaa/00000.journal.jsonl",
        "work/generate_shard/base/0/geneval/0/aaaa/done/000000.json",
        "work/generate_shard/base/0/dpg/0/aaaa/done/000000.json",
        "work/train/r/20/aaaa/states/000012/state.json",
        "work/train/r/40/bbbb/states/000032/state.json",
    ],
    "not_finite": ["work/train/r/40/bbbb/not-finite-3/dump.json"],
    "restored_images": ["images/base/0/dpg/.restoring-x/0.png", "images/base/0/.unpacked-y/0.png"],
    "half_written": ["runs/r/20/.adapter.0123abcd.tmp/a", "scores/geneval/base/.0.json.0123abcd.tmp"],
    "logs": ["logs/train/r.20.log"],
    "prompt_cache": ["work/prompts/aa/b.safetensors"],
    "replaced": [
        "runs/r.replaced-0123456789abcdef/20/adapter/a",
        "images/r.replaced-0123456789abcdef/20/geneval/0.png",
        "scores/geneval/r.replaced-0123456789abcdef/20.json",
        "answers/tiif/r.replaced-0123456789abcdef/20.json",
        "tensorboard/r.replaced-0123456789abcdef/events",
        "trackers/wandb/r.replaced-0123456789abcdef/run.json",
        "work/train/r.replaced-0123456789abcdef/40/aaaa/states/000001/state.json",
        "captions.replaced-unknown-2/shards/00000.h5",
        "logs/train/r.replaced-0123456789abcdef.20.log",
    ],
}
STAYS = [
    "config/0123456789abcdef.yaml",
    "captions/captions.h5",
    "captions/shards/00000.h5",
    "runs/r/20/adapter/a",
    "runs/r/20/state/state.json",
    "runs/r/20/metrics.jsonl",
    "runs/r/40/adapter/a",
    "runs/r/40/state/state.json",
    "runs/r/40/metrics.jsonl",
    "runs/r/60/adapter/a",  # neither state nor metrics: not finished
    "work/train/r/60/aaaa/states/000050/state.json",
    "work/caption_shard/00001/aaaa/00001.journal.jsonl",
    "work/generate_shard/r/60/geneval/0/aaaa/done/000000.json",
    "work/file_hashes.json",
    "images/base/0/geneval/0.png",
    "images/base/0/geneval/shards/0.jsonl",
    "images/base/0/dpg/packed.json",
    "judges/gemini/journal.jsonl",
    "judges/gemini/.journal.jsonl.0123abcd.tmp",
    "runs/mine.replaced-by-hand/20/adapter/a",
    "scores/geneval/base/0.json",
    "timings/train/r.20.tsv",
    "logs/train/r.60.log",  # of today
]
DEFAULT = ("work", "restored_images", "half_written", "logs")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    # packed.json is one of STAYS, and as new as the work on its images.
    for name in [*(name for names in MAY_GO.values() for name in names), *STAYS]:
        path = tmp_path / "results/e" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100))
        if name in MAY_GO["logs"] or name.startswith("logs/train/r.replaced"):
            os.utime(path, (OLD, OLD))
    (tmp_path / ".snakemake/incomplete").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("experiments: [e]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def policy(root: Path, **keys: object) -> None:
    (root / "config/config.yaml").write_text(f"experiments: [e]\nclean: {json.dumps(keys)}\n")


def clean(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["clean", *words])
    return result.exit_code, f"{result.output}{result.exception or ''}"


def there(root: Path) -> set[str]:
    results = root / "results/e"
    return {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file() or path.is_symlink()}


def test_nothing_goes_without_yes_and_sizes_are_told_by_kind(root):
    before = there(root)
    for words in ([], ["--dry-run"], ["results/e", "--json"]):
        code, output = clean(*words)
        assert code == 0 and there(root) == before, output
    (facts,) = json.loads(output)
    sizes = {kind: (share["files"], share["bytes"]) for kind, share in facts["kinds"].items() if share["files"]}
    # The replaced run's log is older than 30 days, too.
    assert sizes == {"work": (5, 500), "restored_images": (2, 200), "half_written": (2, 200), "logs": (2, 200)}
    output = clean()[1]
    assert "e: work in progress of finished jobs: 5 files, 500 bytes" in output
    assert "nothing was deleted; with --yes this would free 1.1 KB" in output
    code, output = clean("--yes", "--dry-run")
    assert code == 1 and there(root) == before


def test_by_default_nothing_finished_goes(root):
    gone = {name for kind in DEFAULT for name in MAY_GO[kind]} | {"logs/train/r.replaced-0123456789abcdef.20.log"}
    before = there(root)
    code, output = clean("--yes")
    assert code == 0 and "deleted: 1.1 KB" in output
    assert there(root) == before - gone
    assert not (root / "results/e/work/train/r/20").exists(), "empty folders go with what was in them"
    assert clean("--yes")[1] == "there is nothing to clean\n"


@pytest.mark.parametrize("kind", sorted(MAY_GO))
def test_each_key_of_the_policy_is_for_its_kind_alone(root, kind):
    off: dict[str, object] = {key: False for key in MAY_GO if key != "logs"} | {"logs_days": None}
    policy(root, **off)
    assert "there is nothing to clean" in clean("--yes")[1]
    policy(root, **off | ({"logs_days": 30} if kind == "logs" else {kind: True}))
    gone = set(MAY_GO[kind]) | ({"logs/train/r.replaced-0123456789abcdef.20.log"} if kind == "logs" else set())
    before = there(root)
    assert clean("--yes")[0] == 0
    assert before - there(root) == gone


def test_images_beside_a_packed_file_that_holds_them_go_and_others_stay(root):
    import hashlib

    images = root / "results/e/images/base/0/geneval"
    sha = hashlib.sha256(bytes(100)).hexdigest()
    (images / "shards/0.jsonl").write_text(LISTING.replace("SHA", sha))
    assert pack(images) == 1
    packed = (images / "images.tar").read_bytes()
    restore(images)
    (images / "images.tar").write_bytes(packed)  # a job was killed between the last image and the end of the file
    (images / "1.png").write_bytes(b"made since")
    policy(root, work=False, half_written=False, logs_days=None)
    assert clean("--yes")[0] == 0
    assert not (images / "0.png").exists() and (images / "1.png").read_bytes() == b"made since"
    (images / "0.png").write_bytes(b"made anew")
    assert "there is nothing to clean" in clean("--yes")[1]
    (images / "images.tar").write_bytes(b"torn" * 300)
    code, output = clean("--yes")
    assert code == 1 and "images.tar: cannot read" in output


def test_work_on_images_that_are_made_again_stays(root):
    """`keep: none` deletes the listings, so packed.json alone says that images are done; of before, it says nothing."""
    work, packed = root / "results/e/work/generate_shard/base/0/dpg/0", root / "results/e/images/base/0/dpg/packed.json"
    os.utime(packed, (OLD, OLD))
    assert clean("--yes")[0] == 0 and (work / "aaaa/done/000000.json").exists()
    os.utime(packed)
    assert clean("--yes")[0] == 0 and not work.exists()


@pytest.mark.parametrize("file", ["experiments/f.yaml", "results/f/config/0123456789abcdef.yaml"])
def test_replaced_results_that_a_configuration_names_stay(root, file):
    """An adapter that another experiment judges, or a run that goes on under its new name."""
    other = root / "results/e/runs/r.replaced-0123456789abcdef-1/20/adapter/a"
    other.parent.mkdir(parents=True)
    other.write_text("another one")
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text("runs:\n  old: {adapter: results/e/runs/r.replaced-0123456789abcdef/20/adapter}\n")
    (root / "config/config.yaml").write_text(
        "experiments: [e]\nexperiments_dir: experiments\nclean: {replaced: true}\n"
    )
    before = there(root)
    code, output = clean("results/e", "--yes")
    assert code == 0, output
    assert f"e: results/e/runs/r.replaced-0123456789abcdef is named in {file}, and stays" in output
    assert {name for name in MAY_GO["replaced"] if "/r.replaced" in name} - there(root) == {
        "logs/train/r.replaced-0123456789abcdef.20.log"  # as old as other logs that go
    }
    assert not other.exists() and "captions.replaced-unknown-2/shards/00000.h5" in before - there(root)


def test_links_are_not_followed(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("scratch")
    results = root / "results/e"
    (results / "work/train").rename(elsewhere / "train")
    (results / "work/train").symlink_to(elsewhere / "train")
    (results / "work/caption_shard/00000/aaaa/link").symlink_to(elsewhere)
    (results / "logs/far").symlink_to(elsewhere)
    (elsewhere / "old.log").write_text("of somebody else")
    os.utime(elsewhere / "old.log", (OLD, OLD))
    before = {path for path in elsewhere.rglob("*")}
    code, output = clean("--yes")
    assert code == 0 and "results/e/work/train is a link, and what it leads to stays" in output
    assert {path for path in elsewhere.rglob("*")} == before
    assert not (results / "work/caption_shard/00000").exists()
    (root / "results/whole").symlink_to(results)
    code, output = clean("results/whole", "--yes")
    assert "results/whole is a link" in output and (results / "work/file_hashes.json").exists()


def test_nothing_goes_while_somebody_works_on_the_results(root):
    before = there(root)
    lock = root / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir()
    lock.write_text("results/e/x\n")
    code, output = clean("--yes")
    assert code == 1 and "results/e: Snakemake is at work here, or was killed" in output and there(root) == before
    assert "e: nothing can be deleted now: Snakemake is at work" in clean()[1]
    lock.unlink()

    def mark(path: str) -> Path:  # as Snakemake writes it, long names in parts
        name = base64.urlsafe_b64encode(path.encode()).decode()
        parts = [name[k : k + 254] for k in range(0, len(name), 254)]
        file = root.joinpath(".snakemake/incomplete", *(f"@{part}" for part in parts[:-1]), parts[-1])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
        return file

    for path in ("results/e/runs/r/80/adapter", f"results/e/images/r/20/{'x' * 300}/shards/0.jsonl"):
        file = mark(path)
        code, output = clean("--yes")
        assert code == 1 and "Snakemake has not recorded its end" in output and path in output
        assert there(root) == before
        file.unlink()

    code = "import sys, time; print('ready', flush=True); time.sleep(600)"  # a job, as a process of that name
    (root / "promptecho.py").write_text(code)
    (root / "bin").mkdir()
    (root / "bin/promptecho").write_text(code)
    commands = (["-m", "promptecho", "train"], ["bin/promptecho", "judge", "--run", "plan"])
    for program in (*commands, ["bin/promptecho", "train", "--watch"]):
        job = subprocess.Popen([sys.executable, *program], cwd=root, stdout=subprocess.PIPE)
        try:
            assert job.stdout.readline() == b"ready\n"
            if program[-1] == "--watch":  # it only looks
                assert "nothing can be deleted" not in clean()[1]
                continue
            status, output = clean("--yes")
            assert status == 1 and f"a command of the workflow runs here (process {job.pid})" in output
            assert there(root) == before
        finally:
            job.kill()
            job.wait()
    mark("results/other/runs/r/80/adapter")
    (root / ".snakemake/incomplete/migration_underway").write_text("")
    assert clean("--yes")[0] == 0 and there(root) < before


def test_what_cannot_be_known_or_is_not_here_is_refused(root):
    before = there(root)
    for folder in ("config", "results/no", "results/..", "results/e/..", str(root / "results/..")):
        code, output = clean(folder, "--yes")
        assert code == 1 and "not results/E of this folder" in output, folder
    (root / ".snakemake").rename(root / "elsewhere")
    code, output = clean("--yes")
    assert code == 1 and "nobody can know whether a job still runs" in output
    assert there(root) == before
