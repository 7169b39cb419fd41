"""Delete all results of this checkout, after asking: `make clean-results`, or with `CONFIRM=yes` without being asked.

Deleted are all of results/ but its README.md, and Snakemake's own records of it in .snakemake/ (environments of conda
stay). Nothing is deleted while Snakemake or one of its Slurm jobs is at work here: a later Snakemake finds such jobs by
the ledger in .snakemake/.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "plugins/snakemake-executor-plugin-submitit"))  # the checkout's own
KEPT_RECORDS = ("conda", "conda-archive", "singularity")


def main(confirmed: bool) -> None:
    """Say what would be deleted, ask, delete; ends with an error line where that must not be."""
    if problem := at_work(Path.cwd()):
        sys.exit(f"clean-results: {problem}; nothing was deleted")
    found = to_delete(Path.cwd())
    if not found:
        print("clean-results: there is nothing to delete")
        return
    looked = ", ".join(str(folder) for folder in ledgers(Path.cwd())) or "none is in this folder or named by a profile"
    print(
        f"clean-results: looked at these records of Slurm jobs: {looked}; of jobs whose --submitit-logdir is elsewhere "
        "and was given on the command line alone nothing is known: see to them with squeue"
    )
    print("clean-results: this would be deleted, trained checkpoints included:")
    for path in found:
        files, size = measure(path)
        print(f"  {path.relative_to(Path.cwd())}  {files} {'file' if files == 1 else 'files'}, {told(size)}")
    if not confirmed:
        if not sys.stdin.isatty():
            sys.exit("clean-results: nothing was deleted, for nobody can be asked here: make clean-results CONFIRM=yes")
        if answer("Delete all of this? Type yes: ") != "yes":
            sys.exit("clean-results: nothing was deleted")
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    print("clean-results: results/ is empty")


def answer(question: str) -> str:
    """What is typed; nothing at Ctrl-C or Ctrl-D."""
    try:
        return input(question).strip().lower()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""


def to_delete(root: Path) -> list[Path]:
    """What is in results/ and .snakemake/ and goes."""
    results = [path for path in (root / "results").glob("*") if path.name != "README.md"]
    records = [path for path in (root / ".snakemake").glob("*") if path.name not in KEPT_RECORDS]
    return sorted(results) + sorted(records)


def measure(path: Path) -> tuple[int, int]:
    """Files and bytes below a path, links not followed."""
    files = [path] if not path.is_dir() or path.is_symlink() else [one for one in path.rglob("*") if not one.is_dir()]
    return len(files), sum(one.lstat().st_size for one in files)


def told(size: float) -> str:
    """A size in the largest fitting unit."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def at_work(root: Path) -> str | None:
    """Who still works on the results, in words; None if nobody does."""
    if any((root / ".snakemake/locks").glob("*")):
        return (
            "Snakemake is at work here, or was killed: let it finish, or stop it with Ctrl-C; if none is running any "
            "more, run: snakemake --profile profiles/local --unlock"
        )
    for folder in ledgers(root):
        if problem := queued(folder):
            return problem
    return None


def ledgers(root: Path) -> list[Path]:
    """Folders with a ledger of Slurm jobs: the default one, those that profiles name, and what lies in the checkout."""
    import yaml

    folders = [root / ".snakemake/submitit"]
    for profile in sorted((root / "profiles").glob("*/config*.yaml")):
        named = (yaml.safe_load(profile.read_text(encoding="utf-8")) or {}).get("submitit-logdir")
        if named:
            folders.append(root / str(named))
    # Named on a command line alone, but beside the results, or in a folder there.
    for pattern in ("*/ledger.jsonl", "*/*/ledger.jsonl"):
        folders += [path.parent for path in sorted(root.glob(pattern))]
    return [folder for folder in dict.fromkeys(folders) if (folder / "ledger.jsonl").is_file()]


def queued(folder: Path) -> str | None:
    """Jobs of a ledger that Slurm still has, in words."""
    from snakemake_executor_plugin_submitit import queue
    from snakemake_executor_plugin_submitit.ledger import Ledger
    from snakemake_executor_plugin_submitit.slurm import SlurmError

    with tempfile.TemporaryDirectory() as scratch:  # reading compacts the file
        copy = Path(shutil.copy(folder / "ledger.jsonl", scratch))
        submissions = list(Ledger(copy).submissions.values())
    if not submissions:
        return None
    try:
        states = queue.read_squeue()
    except (SlurmError, OSError) as error:
        return (
            f"{folder / 'ledger.jsonl'} names Slurm jobs that may still wait or run, and Slurm can't be asked "
            f"({error}): try again on a host where squeue works, or delete that file if the jobs are gone"
        )
    scripts = {str(Path(submission.folder).resolve() / "submission.sh") for submission in submissions}
    ids = {submission.slurm_id for submission in submissions if submission.slurm_id is not None}
    alive = sorted(
        job_id
        for job_id, state in states.items()
        if (state.alive or state.stuck)
        and (job_id.partition("_")[0] in ids or any(state.script.startswith(script) for script in scripts))
    )
    if not alive:
        return None
    return f"Slurm still has jobs of these results: wait for them, or cancel them: scancel {' '.join(alive)}"


if __name__ == "__main__":
    main(confirmed=sys.argv[1:] == ["--confirm", "yes"])
