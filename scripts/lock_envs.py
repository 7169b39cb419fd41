"""Which files exactly each environment of `envs/` consists of, as `envs/NAME.linux-64.lock.txt`.

`python scripts/lock_envs.py` has pip find out (`pip install --dry-run --ignore-installed --report`; nothing is
installed) and writes the lock files; `--check` compares with those that are there: does every file still resolve, to
the same versions? Both take an index of packages and minutes. What the stages have in common is asked for once: with
`constraints.txt` every version is decided, so that the answer for all together holds for each.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from promptecho.envs.spec import ENVS, exact_versions, read_spec  # noqa: E402

ALONE = ("mplug",)  # its versions clash with the others', and it has no lock file
TARGET = {"python_version": "3.11", "python_full_version": "3.11.7", "implementation_name": "cpython"}
TARGET |= {"platform_python_implementation": "CPython", "sys_platform": "linux", "platform_system": "Linux"}
TARGET |= {"platform_machine": "x86_64", "os_name": "posix"}
HEAD = """\
# All files of the environment {name} for CPython 3.11 on Linux x86-64 with their hashes, as PyPI has them: with the
# build of torch for CUDA where there is torch. Written by scripts/lock_envs.py; not by hand.
# pip install --require-hashes --no-deps -r envs/{name}.linux-64.lock.txt
"""


class NoIndex(Exception):
    """No index of packages can be reached."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare versions with the lock files; write nothing")
    parser.add_argument("--report", type=Path, help="take what pip has found for the stages from its report")
    chosen = parser.parse_args()
    names = sorted(file.stem for file in ENVS.glob("*.yaml"))
    found: dict[str, dict[str, Any]] = {}
    try:
        together = [name for name in names if name not in ALONE]
        report = json.loads(chosen.report.read_text()) if chosen.report else resolve(together)
        found = dict.fromkeys(together, packages_of(report))
        if not chosen.report:
            for name in ALONE:
                print(f"{name}: resolves to {len(resolve([name])['install'])} packages")
    except NoIndex as error:
        print(f"NO INDEX: environments were not resolved: {error}", file=sys.stderr)
        return 0
    wrong = []
    for name, packages in found.items():
        pins = read_spec(ENVS / f"{name}.yaml").packages
        closed = closure(packages, pins)
        file = ENVS / f"{name}.linux-64.lock.txt"
        if chosen.check:
            wrong += differences(name, file, closed)
        else:
            file.write_text(HEAD.format(name=name) + "".join(lines(closed)), encoding="utf-8")
        print(f"{name}: resolves to {len(closed)} packages")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


def resolve(names: Iterable[str]) -> dict[str, Any]:
    """pip's report on the packages of these environments together.

    Raises:
        NoIndex: the index does not answer.
        SystemExit: they do not resolve; says what pip said.
    """
    pins = sorted({pin for name in names for pin in read_spec(ENVS / f"{name}.yaml").packages})
    constraints = [] if set(names) <= set(ALONE) else ["--constraint", str(ROOT / "constraints.txt")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--report", str(report)]
        command += ["--use-feature=fast-deps", "--quiet", *constraints, *pins]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return json.loads(report.read_text())
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    if any("(from versions: none)" in line for line in said):
        raise NoIndex(said[0])
    raise SystemExit("\n".join([f"{', '.join(names)}: does not resolve", *said]))


def packages_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of pip's report by plain name."""
    return {plain(one["metadata"]["name"]): one for one in report["install"]}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(packages: Mapping[str, Any], pins: Iterable[str]) -> dict[str, Any]:
    """The packages that some need, with what these need in turn."""
    found: dict[str, Any] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(pin) for pin in pins]
    while waiting:
        one = waiting.pop()
        name, extras = plain(one.name), frozenset(one.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found[name] = packages[name]
        waiting += needs(packages[name]["metadata"], extras)
    return dict(sorted(found.items()))


def needs(metadata: Mapping[str, Any], extras: Iterable[str]) -> Iterator[Requirement]:
    """What a package requires on the platform of the lock files."""
    for text in metadata.get("requires_dist", []):
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate(TARGET | {"extra": extra}) for extra in ("", *extras)):
            yield one


def lines(packages: Mapping[str, Any]) -> Iterator[str]:
    for one in packages.values():
        hashed = one["download_info"]["archive_info"]["hashes"]["sha256"]
        version = one["metadata"]["version"].partition("+")[0]
        yield f"{one['metadata']['name']}=={version} \\\n    --hash=sha256:{hashed}\n"


def differences(name: str, file: Path, packages: Mapping[str, Any]) -> list[str]:
    """Versions that are now others than a lock file has; not what a build of torch brings for its GPUs, and not hashes:
    another index may have another build of torch."""
    now = exact_versions("".join(lines(packages)))
    locked = exact_versions(file.read_text(encoding="utf-8")) if file.is_file() else ()
    return [f"{name}: {one}: not in {file.name}" for one in now if one not in locked] + [
        f"{name}: {one}: in {file.name}, and no longer needed" for one in locked if one not in now
    ]


if __name__ == "__main__":
    sys.exit(main())
