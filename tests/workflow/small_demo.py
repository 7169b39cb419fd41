"""The embedded experiment as `make demo` leaves it, with the same names and checkpoints, but of a few images only.

Snakemake says which commands its jobs would run; they are run here, one after the other in one process, which shares
the imports of others (tests/unit/forked.py). Then Snakemake takes note of the files as its own.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from forked import ended  # noqa: E402

# What each job would do, its outputs among it.
VERBOSE = ("--quiet", "host")
COPIED = ("Snakefile", "workflow", "config", "profiles", "envs", "scripts", "Makefile", "README.md", "docs", "examples")

# Both read JSON, a list of lists of words, and write a list of [exit code, output]: the first in the folder and from
# the file that it is given, the second from standard input.
PROMPTECHO = """
import glob, json, os, sys
from typer.testing import CliRunner
from promptecho.cli import app
os.chdir(sys.argv[1])
ended = []
for words in json.load(open(sys.argv[2])):
    words = [name for word in words for name in (sorted(glob.glob(word)) or [word] if "*" in word else [word])]
    result = CliRunner().invoke(app, words)
    ended.append([result.exit_code, f"{result.output}\\n{result.exception or ''}"])
    if result.exit_code and sys.argv[3:] == ["stop"]:
        break
json.dump(ended, sys.stdout)
"""
SNAKEMAKE = """
import json, os, sys, tempfile
import snakemake.cli, snakemake.workflow, snakemake.dag, snakemake.scheduling.greedy, snakemake.logging
import promptecho.config
ended = []
for words in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as sink:
        child = os.fork()
        if not child:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            try:
                snakemake.cli.main(words)
            except SystemExit as end:
                sys.stdout.flush()
                os._exit(end.code or 0)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sink.seek(0)
        ended.append([code, sink.read()])
json.dump(ended, sys.stdout)
"""

LEFT_OUT = ("dpg", "textocr", "densealign")  # three benchmarks are enough


def promptecho(root: Path, lines: list[str], *options: str) -> list[tuple[int, str]]:
    """Exit code and output of each command in `root`, one after the other; with `stop` up to the first that fails."""
    with tempfile.TemporaryDirectory() as folder:
        script, calls = Path(folder) / "commands.py", Path(folder) / "calls.json"
        script.write_text(PROMPTECHO)
        calls.write_text(json.dumps([shlex.split(line)[1:] for line in lines]))
        stdout, _ = ended([root, calls, *options], script=script)
    return _pairs(stdout)


def _pairs(stdout: str) -> list[tuple[int, str]]:
    return [(code, output) for code, output in json.loads(stdout[stdout.rindex("[[") :])]


def plans(root: Path, commands: list[list[str]]) -> list[tuple[int, str]]:
    """Exit code and output of a dry run of each Snakemake command, with every job's outputs."""
    calls = []
    for words in commands:
        words = [word.replace("/path/to/promptecho", str(root)) for word in words[words.index("snakemake") + 1 :]]
        profile = [] if "--profile" in words else ["--profile", "profiles/local"]  # a sentence may leave it out
        calls.append([*VERBOSE, "--dry-run", *profile, *words])
    done = subprocess.run(
        [sys.executable, "-c", SNAKEMAKE], cwd=root, input=json.dumps(calls), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return _pairs(done.stdout)


def shrink(path: Path) -> None:
    """Keep what names anything in an experiment, and make it small."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["captions"] |= {"shapes": {"count": 24, "seed": 11}, "heldout": 10}
    training = raw["training"]
    training |= {
        "prompts_per_iteration": 1,
        "images_per_prompt": 2,
        "update_images_per_prompt": None,
        "batch_size": 2,
        "micro_batch_size": 2,
    }
    training["lora"] = {"rank": 2, "alpha": 4, "target_modules": ["to_q"]}
    training |= {"save_every_s": 600, "heldout": {"prompts": 2, "every": 20}}
    training["sampling"] |= {"num_inference_steps": 1, "batch_size": 2}
    training["timesteps"]["per_sample"] = 1
    for name in LEFT_OUT:
        raw["benchmarks"].pop(name)
        raw["image_sets"].pop(name, None)
        raw["tables"].remove(name)
    raw["evaluate"] = [entry for entry in raw["evaluate"] if entry["benchmark"] in raw["benchmarks"]]
    raw["image_sets"]["heldout"]["num_shards"] = 1
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
    lines = ["promptecho " + re.sub(r"\$\{SNAKEMAKE_STOP_FILE.*\}", "", command) for command, _ in commands]
    lines = [line.replace("--threads 2", "--threads 1") for line in lines]  # models this small wait for each other
    for line, (code, output) in zip(lines, promptecho(root, lines, "stop"), strict=False):
        assert code == 0, f"{line}: exit code {code}\n{output[-3000:]}"
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
