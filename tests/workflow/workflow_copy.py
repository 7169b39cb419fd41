"""A private copy of the workflow, so that tests may run Snakemake and edit its files."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import snakemake.cli

ROOT = Path(__file__).resolve().parent.parent.parent
# Rules that only ask for files.
TARGETS = ("all", "base", "tables", "figures", "geneval", "dpg", "tiif", "densealign", "textocr", "paper", "words")
TARGETS += ("browse", "geneval2", "longtext", "unigenbench", "oneig_alignment", "oneig_text", "t2icompbench")
TARGETS += ("guards",)
COPIED = ("Snakefile", "workflow", "config", "profiles", "envs", "promptecho")


def _become_snakemake(root: Path, output: int, arguments: list[str], prepare: Callable[[], None]) -> None:
    """Be `python -m snakemake` in `root`, with the copy's own modules, whatever this process has imported; then end."""
    code = 1
    try:
        prepare()
        os.chdir(root)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.stdin, sys.stdout, sys.stderr = (open(k, mode, closefd=False) for k, mode in enumerate("rww"))  # noqa: SIM115
        # The one that it kept when it was imported was pytest's. (`snakemake.shell` is a class by now.)
        sys.modules["snakemake.shell"].STDOUT = sys.stdout
        sys.path.insert(0, str(root))
        for name in [name for name in sys.modules if name.partition(".")[0] == "promptecho"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        snakemake.cli.main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Workflow:
    """A copy of the checkout's workflow in `root`, and Snakemake calls in it."""

    def __init__(self, root: Path):
        self.root = root

    def snakemake(
        self, *arguments: str, profile: str = "local", prepare: Callable[[], None] = lambda: None
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake under a profile; `stdout` of the result holds stderr, too.

        It is a fork of this process, which has imported Snakemake: half the time of a new one. `prepare` is called
        in it first.
        """
        with tempfile.TemporaryFile() as output:
            if (process := os.fork()) == 0:
                _become_snakemake(self.root, output.fileno(), ["--profile", f"profiles/{profile}", *arguments], prepare)
            _, status = os.waitpid(process, 0)
            output.seek(0)
            text = output.read().decode(errors="replace")
        return subprocess.CompletedProcess(list(arguments), os.waitstatus_to_exitcode(status), text)

    def planned(self, *arguments: str, profile: str = "local") -> dict[str, int]:
        """Jobs by rule that a dry run would start, without the targets; fails if the dry run does."""
        result = self.snakemake("--dry-run", *arguments, profile=profile)
        assert result.returncode == 0, result.stdout
        tables = re.findall(r"^job +count\n[- ]+\n(.*?)^total", result.stdout, re.MULTILINE | re.DOTALL)
        if not tables:
            assert "Nothing to be done" in result.stdout, result.stdout
            return {}
        jobs = dict(line.split() for line in tables[-1].splitlines())
        return {rule: int(count) for rule, count in jobs.items() if rule not in TARGETS}

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert old in text, f"{path} does not hold {old!r}"
        file.write_text(text.replace(old, new))

    def finish(self) -> None:
        """Make every output exist and Snakemake believe that it was just made."""
        summary = self.snakemake("--summary").stdout.splitlines()
        for line in summary[summary.index(next(line for line in summary if line.startswith("output_file"))) + 1 :]:
            path = self.root / line.split("\t")[0]
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            else:
                path.mkdir(parents=True, exist_ok=True)
        result = self.snakemake("--touch", "--forceall")
        assert result.returncode == 0, result.stdout


EXPERIMENT = """\
models:
  t2i: {path: shapes, dtype: float32, height: 64, width: 64}
  vlm: {path: shapes, dtype: float32}
captions: {shapes: {count: 40, seed: 1}, num_shards: 3, heldout: 8}
training:
  iterations: 4
  checkpoints: [2, 4]
  prompts_per_iteration: 6
  images_per_prompt: 4
  batch_size: 24
  micro_batch_size: 1 # so that 1, 2, 3, 4 or 8 processes can share it out
runs:
  echo-s1: {seed: 1}
image_sets:
  geneval: {benchmark: geneval, shapes: {per_tag: 1, seed: 1}, num_shards: 2}
benchmarks:
  geneval: {image_set: geneval, scorer: geneval, backend: oracle}
evaluate:
  - {benchmark: geneval}
tables: [geneval]
"""


def copy_checkout(root: Path) -> Workflow:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "weights"))
        else:
            shutil.copy(source, root / name)
    (root / "config/config.yaml").write_text("experiments: [tiny]\n")
    (root / "config/experiments/tiny.yaml").write_text(EXPERIMENT)
    return Workflow(root)
