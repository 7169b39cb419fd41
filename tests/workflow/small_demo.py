"""The embedded experiment as `make demo` leaves it, with the same names and checkpoints, but of a few images only.

Snakemake says which commands its jobs would run; they are run here, one after the other in one process, which imports
torch once instead of fifty times. Then Snakemake takes note of the files as its own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("Snakefile", "workflow", "config", "profiles", "envs", "scripts", "Makefile", "README.md", "docs")

# Read in `root` from standard input: one command a line, without `promptecho`.
ONE_PROCESS = """
import shlex, sys
from promptecho.cli import app
for line in sys.stdin:
    try:
        app(shlex.split(line), standalone_mode=False)
    except SystemExit as end:
        if end.code:
            sys.exit(f"{line}: exit code {end.code}")
"""


def shrink(path: Path) -> None:
    """Keep what names anything in an experiment, and make it small."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["captions"] |= {"shapes": {"count": 24, "seed": 11}, "heldout": 10, "max_new_tokens": 12}
    training = raw["training"]
    training |= {"prompts_per_iteration": 1, "images_per_prompt": 2, "batch_size": 2, "micro_batch_size": 2}
    training |= {"lora": {"rank": 2, "alpha": 4}, "save_every_s": 600, "heldout": {"prompts": 2, "every": 20}}
    training["sampling"] |= {"num_inference_steps": 1, "batch_size": 2}
    training["timesteps"]["per_sample"] = 1
    for image_set in raw["image_sets"].values():
        image_set |= {"num_inference_steps": 1, "images_per_prompt": 2 if image_set["benchmark"] == "geneval" else 1}
        if "heldout" in image_set:
            image_set["heldout"] = 6
        else:
            image_set["shapes"]["per_tag"] = 1
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


def build(root: Path) -> Path:
    """A finished demo in `root`: a checkout's files, and results/shapes."""
    for name in COPIED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, root / name)
    (root / "promptecho").symlink_to(ROOT / "promptecho")
    shrink(root / "config/experiments/shapes.yaml")
    planned = snakemake(root, "--dry-run", "--printshellcmds")
    commands = re.findall(r"^ *Shell command: python -m promptecho (.+?) 2>&1 \| tee -i (\S+)$", planned, re.MULTILINE)
    total = int(re.search(r"^total +(\d+)", planned, re.MULTILINE)[1])
    assert len(commands) == total - 1, "every job but `all` is one command of promptecho"
    for _, log in commands:
        (root / log).parent.mkdir(parents=True, exist_ok=True)
        (root / log).touch()
    lines = [re.sub(r"\$\{SNAKEMAKE_STOP_FILE.*\}", "", command) for command, _ in commands]
    done = run([sys.executable, "-c", ONE_PROCESS], root, "\n".join(lines))
    assert done.returncode == 0, done.stdout[-3000:]
    snakemake(root, "--touch", "--forceall")
    return root


def run(command: list[str], root: Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=root, input=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


def snakemake(root: Path, *arguments: str) -> str:
    done = run([sys.executable, "-m", "snakemake", "--profile", "profiles/local", *arguments], root)
    assert done.returncode == 0, done.stdout
    return done.stdout
