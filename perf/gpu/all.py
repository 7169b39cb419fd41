"""Everything that a GPU can show of this project in a few minutes, the worthiest first: one command, one report.

    python perf/gpu/all.py --minutes 10 --out gpu.json --report gpu.md
    python perf/gpu/all.py --minutes 10 --out gpu.json --wheels wheels   # a machine with torch and nothing else
    python perf/gpu/all.py --tiny --steps peak,forward --out tiny.json   # what the tests run, on a CPU

Random models of real size (Z-Image 6B, Qwen3-VL-8B) are written to --folder, 39 GB, and measured by the steps of
`promptecho bench`: the card's fastest products; two iterations of `promptecho train` with 4 images of 1024 pixels, as
in docs/performance.md; the reward against the plain call; one forward pass by kernel, compiled and not; the sampler
against diffusers' pipeline; the update; then each implementation of attention. By what steps took on an H200, 10
minutes are enough up to the forward pass that is not compiled; all should take 25. Each step is a process with a time
limit. Results are in --out after every step, whatever happens; Ctrl-C keeps them. `--set KEY=VALUE` changes any key of
the configuration, for all steps. This script needs Python alone, the steps what perf/gpu/requirements.txt names.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from promptecho.bench import report as pages  # noqa: E402
from promptecho.bench.runner import Step, exit_code, progress, run_steps  # noqa: E402
from promptecho.bench.suite import STEPS, chosen, here, steps_of  # noqa: E402

ROOM = 45e9  # bytes of random models, with some to spare
WRITING_S, READING_S = 70, 15  # of the step `models`, as an H200 took: models are written, or there already
TOKENS = {False: 260, True: 12}  # mean length of a prompt: a caption of 200 words; tiny


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="Results, after every step.")
    parser.add_argument("--report", type=Path, help="Markdown file for the table that is printed.")
    parser.add_argument("--steps", help="Which, such as peak,iteration,forward; default: all.")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--folder", type=Path, help="Where models are kept; default: a temporary one.")
    parser.add_argument("--wheels", type=Path, help="Folder of wheels that the steps shall use.")
    parser.add_argument("--images", type=int, default=4, help="Of an iteration, and of a pass.")
    parser.add_argument("--rounds", type=int, default=3, help="Measurements of each, after one that warms up.")
    parser.add_argument("--tiny", action="store_true", help="Tiny models and images.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads.")
    arguments = parser.parse_args()
    names = chosen(arguments.steps)
    if not names:
        parser.error(f"--steps {arguments.steps}: no such step (known: {', '.join(STEPS)})")
    tiny = ["--tiny"] if arguments.tiny else []
    device = ["--device", arguments.device]
    options = [*device, *tiny, "--images", str(arguments.images), "--rounds", str(arguments.rounds)]
    options += ["--tokens", str(TOKENS[arguments.tiny])]
    options += ["--threads", str(arguments.threads)] if arguments.threads else []
    facts = {
        "schema_version": 1, "title": "Random models on one GPU" if not arguments.tiny else "Tiny models",
        "command": shlex.join(["python", *sys.argv]), "changes": arguments.changes,
    }  # fmt: skip
    with folder_of(arguments) as folder, packages(arguments.wheels) as environment:
        command = [sys.executable, str(ROOT / "perf" / "gpu" / "prepare.py"), "--folder", str(folder), *device, *tiny]
        there = all((folder / name).is_dir() for name in ("zimage", "qwen3vl-8b"))
        least = READING_S if there else WRITING_S
        models = Step("models", command, least, 240, environment=here(environment))
        steps = steps_of(
            names, folder / "measured.yaml", options, arguments.changes, needs=("models",), environment=environment
        )
        first = 1 if names[0] == "peak" else 0
        if len(steps) > first:
            steps.insert(first, models)
        if arguments.tiny:  # nothing takes long but starting Python, and that as long as the machine likes
            steps = [replace(step, least_s=0, limit_s=3600) for step in steps]
        results = run_steps(steps, facts, arguments.out, arguments.minutes, progress)
    page = pages.page(results)
    print(page)
    if arguments.report is not None:
        arguments.report.write_text(page, encoding="utf-8")
    return exit_code(results)


@contextlib.contextmanager
def folder_of(arguments: argparse.Namespace) -> Iterator[Path]:
    """Where models are written. Memory is the fastest place; what is not asked for by name is deleted at the end."""
    if arguments.folder is not None:
        yield arguments.folder
        return
    places = [Path("/dev/shm"), Path(tempfile.gettempdir()), Path.cwd()]
    room = {place: shutil.disk_usage(place).free for place in places if place.is_dir()}
    enough = [place for place, free in room.items() if arguments.tiny or free > ROOM]
    if not enough:
        told = ", ".join(f"{place} has {free / 1e9:.0f}" for place, free in room.items())
        sys.exit(f"all.py: random models take {ROOM / 1e9:.0f} GB ({told}); name a roomier place with --folder")
    with tempfile.TemporaryDirectory(prefix="promptecho-models-", dir=enough[0]) as temporary:
        progress(f"models in {temporary}, deleted at the end")
        yield Path(temporary)


@contextlib.contextmanager
def packages(wheels: Path | None) -> Iterator[dict[str, str]]:
    """Environment in which the steps find the packages of a folder of wheels, before those of this machine."""
    if wheels is None:
        yield {}
        return
    files = sorted(wheels.glob("*.whl"))
    if not files:
        sys.exit(f"all.py: --wheels {wheels}: no wheels in it; perf/README.md says how to fetch them")
    if others := [file.name for file in files if not fits(file.name)]:
        version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(f"all.py: --wheels {wheels}: not for {version}: {', '.join(others)}; fetch them with that Python")
    with tempfile.TemporaryDirectory(prefix="promptecho-packages-") as temporary:
        for file in files:
            try:
                with zipfile.ZipFile(file) as archive:
                    archive.extractall(temporary)
            except (zipfile.BadZipFile, RuntimeError) as error:  # damaged; or repacked, and this Python has no lzma
                sys.exit(f"all.py: {file}: cannot be read: {error}; fetch it again, and without repack.py")
        yield {"PYTHONPATH": os.pathsep.join([temporary, *filter(None, [os.environ.get("PYTHONPATH")])])}


def fits(name: str) -> bool:
    """Whether a wheel of this name is for this Python, by its tags (python-abi-platform)."""
    python, abi, _ = name.removesuffix(".whl").split("-")[-3:]
    mine = sys.version_info.minor
    if abi == "abi3":
        return any(int(minor) <= mine for minor in re.findall(r"cp3(\d+)", python))
    return "py3" in python.split(".") or f"cp3{mine}" in python.split(".")


if __name__ == "__main__":
    sys.exit(main())
