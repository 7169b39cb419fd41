"""Fetch models from the hub into ROOT/owner/name: pinned, checked file by file, complete or not there.

A model is downloaded to ROOT/owner/.name.fetch, every file is checked against the hub's own hashes, the record is
written, and the folder is renamed. Killed and started again, it keeps the files that are whole.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptecho.errors import DataError, ModelError, PromptEchoError
from promptecho.files import read_json, sha256_file
from promptecho.hub_record import RECORD, HubRecord, RecordedFile, read_record, write_record
from promptecho.models.hub_access import unreachable
from promptecho.models.required import RequiredModel
from promptecho.models.selection import INDEX, select_files
from promptecho.progress import Progress, progress

HASHING = 4  # files hashed at a time


@dataclass(frozen=True)
class Hub:
    """Where models come from. `endpoint` None: huggingface_hub's own; the token comes from HF_TOKEN alone."""

    endpoint: str | None = None

    @property
    def token(self) -> str | bool:
        return os.environ.get("HF_TOKEN") or False  # False: nor one that lies in a file


class HubSilentError(ModelError):
    """The hub does not answer; `why` says it without the model's name."""

    def __init__(self, source: str, why: str):
        super().__init__(f"{source}: {why}")
        self.why = why


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it: `sha256` of large files, `blob_id` (git's SHA-1) of all others."""

    size: int
    blob_id: str
    sha256: str | None


@dataclass(frozen=True)
class Fetched:
    """What came of a model: `status` is `there` or `fetched`; `files` and `bytes` count downloads of this call."""

    hub_id: str
    folder: Path
    status: str
    record: HubRecord
    files: int = 0
    bytes: int = 0
    pin: bool = False  # the configuration names no commit


def fetch_all(
    models: list[RequiredModel], root: Path, hub: Hub, *, full: bool = False
) -> tuple[list[Fetched], list[str]]:
    """Fetch several models; one that is not available does not stop the others.

    Returns what `fetch` returns for each that came, and a line for each that did not; one line for all that would need
    a hub which does not answer.
    """
    done, problems, unasked = [], [], []
    for model in models:
        try:
            done.append(fetch(model, root, hub, full=full))
        except HubSilentError as error:
            unasked.append((model.source, error))
        except PromptEchoError as error:
            problems.append(str(error))
    if unasked:
        problems.append(f"{', '.join(source for source, _ in unasked)}: {unasked[0][1].why}")
    return done, problems


def fetch(model: RequiredModel, root: Path, hub: Hub, *, full: bool = False) -> Fetched:
    """Bring one model of the hub to `root/owner/name`.

    What is there at the right revision stays, and without a revision whatever is there; only files that are missing,
    or were touched since, are looked at. `full` hashes all.

    Raises:
        ModelError: the hub does not give it, its weights are pickles, or what came is not what the hub describes.
        DataError: the folder was not made by this function and differs; the disk is full.
    """
    folder = Path(root) / model.source
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        record = read_record(folder)
        pin = model.revision is None
        if record is not None and record.fits(model.revision) and not changed_files(folder, record, full=full):
            return Fetched(model.source, folder, "there", record, pin=pin or model.revision != record.commit)
        return _fetch(model, folder, record, hub)


def _fetch(model: RequiredModel, folder: Path, record: HubRecord | None, hub: Hub) -> Fetched:
    # A repair, or a model that is not pinned, stays at its commit.
    fitting = record if record is not None and record.fits(model.revision) else None
    commit, endpoint, remote = _describe(model, fitting.commit if fitting else model.revision, hub)
    components = _components(model, commit, remote, hub)
    names = select_files(model.source, remote, model.kind, components=components, code=model.code, files=model.files)
    wanted = {name: remote[name] for name in names}
    adopted = folder.is_dir() and record is None
    temporary = folder if adopted else folder.with_name(f".{folder.name}.fetch")
    if not adopted:
        _prepare(folder, temporary, wanted)
    hashes = _whole(model.source, temporary, wanted)
    missing = [name for name in wanted if name not in hashes]
    if missing and adopted:
        raise DataError(
            f"{folder}: was not fetched by this command (it has no {RECORD}), and {missing[0]} is not the hub's; move "
            "the folder away and fetch again, or use it as it is without fetching"
        )
    if missing:
        _download(model.source, commit, temporary, wanted, missing, hub)
        hashes |= _whole(model.source, temporary, {name: wanted[name] for name in missing})
        if bad := [name for name in missing if name not in hashes]:
            for name in bad:
                (temporary / name).unlink(missing_ok=True)
            raise ModelError(
                f"{model.source}: {', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}: not what the hub describes "
                "(size or hash), so deleted; run the command again"
            )
    shutil.rmtree(temporary / ".cache", ignore_errors=True)  # the client's notes on the download
    files = {
        name: RecordedFile(size=wanted[name].size, sha256=hashes[name], mtime_ns=(temporary / name).stat().st_mtime_ns)
        for name in wanted
    }
    revision = fitting.revision if fitting and model.revision is None else model.revision
    new = HubRecord(hub_id=model.source, revision=revision, commit=commit, endpoint=endpoint, files=files)
    write_record(temporary, new)
    if not adopted:
        _put_in_place(temporary, folder)
    size = sum(wanted[name].size for name in missing)
    return Fetched(model.source, folder, "fetched", new, len(missing), size, pin=model.revision != commit)


def changed_files(folder: Path, record: HubRecord, *, full: bool = True) -> dict[str, str]:
    """Files that are not what the record says: name -> missing | size | content.

    Without `full`, files whose time of change is the recorded one are not read.
    """
    found, suspects = {}, []
    for name, file in record.files.items():
        path = folder / name
        if not path.is_file():
            found[name] = "missing"
        elif path.stat().st_size != file.size:
            found[name] = "size"
        elif full or path.stat().st_mtime_ns != file.mtime_ns:
            suspects.append(name)
    if suspects:
        hashes = _in_parallel(lambda name: sha256_file(folder / name), suspects, folder, f"check {record.hub_id}")
        found |= {name: "content" for name, sha256 in hashes.items() if sha256 != record.files[name].sha256}
    return found


def _describe(model: RequiredModel, revision: str | None, hub: Hub) -> tuple[str, str, dict[str, RemoteFile]]:
    """Commit, endpoint, and the repository's files by name."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    if (reason := unreachable(api.endpoint)) is not None:
        why = f"the hub ({api.endpoint}) does not answer ({reason}); fetch where there is internet, or name a mirror"
        raise HubSilentError(model.source, f"{why} with --endpoint")
    with _told(model.source, revision, hub):
        commit = api.repo_info(model.source, revision=revision).sha
        entries = list(api.list_repo_tree(model.source, revision=commit, recursive=True))
    if not commit:
        raise ModelError(f"{model.source}: the hub names no commit for {revision or 'the default revision'}")
    files = {
        entry.path: RemoteFile(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in entries
        if isinstance(entry, RepoFile)
    }
    return commit, api.endpoint, files


def _components(model: RequiredModel, commit: str, remote: dict[str, RemoteFile], hub: Hub) -> list[str]:
    """Folders of a pipeline's parts."""
    if model.kind != "pipeline":
        return []
    if INDEX not in remote:
        raise ModelError(f"{model.source}: no {INDEX} in it; models.t2i must be a diffusers pipeline")
    from huggingface_hub import hf_hub_download

    with tempfile.TemporaryDirectory() as folder, _told(model.source, commit, hub):
        path = hf_hub_download(
            model.source, INDEX, revision=commit, local_dir=folder, endpoint=hub.endpoint, token=hub.token
        )
        index = read_json(path)
    return [name for name, value in index.items() if isinstance(value, list) and any(value)]


def _prepare(folder: Path, temporary: Path, wanted: dict[str, RemoteFile]) -> None:
    """Bring what a folder that is to be repaired or replaced has to the temporary one, and delete what is not wanted
    there. The folder itself stays usable meanwhile."""
    for name in wanted:
        source, target = folder / name, temporary / name
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # no hard links here
                shutil.copy2(source, target)
    for path in temporary.rglob("*"):
        if path.is_file() and str(path.relative_to(temporary)) not in wanted:
            path.unlink()


def _download(
    hub_id: str, commit: str, temporary: Path, wanted: dict[str, RemoteFile], missing: list[str], hub: Hub
) -> None:
    temporary.mkdir(parents=True, exist_ok=True)
    total = sum(wanted[name].size for name in missing)
    free = shutil.disk_usage(temporary).free
    if total > free:
        raise DataError(f"{temporary.parent}: {hub_id} needs {total / 1e9:.1f} GB more, and {free / 1e9:.1f} are free")
    for name in missing:
        (temporary / name).unlink(missing_ok=True)
    from huggingface_hub import snapshot_download

    with _told(hub_id, commit, hub), _bytes_shown(f"fetch {hub_id}", temporary, sum(f.size for f in wanted.values()),
                                                  total):  # fmt: skip
        snapshot_download(
            hub_id, revision=commit, local_dir=temporary, allow_patterns=[glob.escape(name) for name in missing],
            endpoint=hub.endpoint, token=hub.token, tqdm_class=_quiet_bar(),
        )  # fmt: skip


def _whole(hub_id: str, folder: Path, wanted: dict[str, RemoteFile]) -> dict[str, str]:
    """SHA-256 of the files that are what the hub describes."""
    there = [name for name, file in wanted.items() if _has_size(folder / name, file)]
    if not there:
        return {}
    hashes = _in_parallel(lambda name: _checked_sha256(folder / name, wanted[name]), there, folder, f"check {hub_id}")
    return {name: sha256 for name, sha256 in hashes.items() if sha256 is not None}


def _has_size(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _checked_sha256(path: Path, file: RemoteFile) -> str | None:
    """SHA-256 of a file of the right size that is what the hub describes, else None."""
    found = sha256_file(path)
    if file.sha256 is not None:
        return found if found == file.sha256 else None
    git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            git.update(chunk)
    return found if git.hexdigest() == file.blob_id else None


def _in_parallel(work: Callable[[str], Any], names: list[str], folder: Path, what: str) -> dict[str, Any]:
    sizes = {name: (folder / name).stat().st_size / 1e6 if (folder / name).is_file() else 0 for name in names}
    total = max(round(sum(sizes.values())), 1)
    results, hashed = {}, 0.0
    with progress(what, total, "MB") as bar, ThreadPoolExecutor(HASHING) as pool:
        for name, result in zip(names, pool.map(work, names), strict=True):
            results[name] = result
            hashed += sizes[name]
            if (step := min(round(hashed), total) - bar.count) > 0:
                bar.advance(step)
    return results


def _put_in_place(temporary: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One fetch of a model at a time."""
    with open(folder.with_name(f".{folder.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f"{folder}: another process fetches it; wait until it is done") from None
        yield


@contextmanager
def _told(hub_id: str, revision: str | None, hub: Hub) -> Iterator[None]:
    """Errors of the hub's client as one line, without the token."""
    import httpx2
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError as error:
        raise ModelError(
            f"{hub_id}: its authors ask you to accept their terms first: do so on the model's page and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{hub_id}: has no revision {revision}; correct the configuration's `revision`") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{hub_id}: the hub has no such model, or shows it only to some (then set HF_TOKEN); check the name"
        ) from error
    except (OSError, ValueError, httpx2.HTTPError, HfHubHTTPError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(hub.token, str):
            reason = reason.replace(hub.token, "***")
        raise ModelError(
            f"{hub_id}: the hub does not give it ({reason}); run the command again, it goes on with the files that are "
            "missing"
        ) from error


@contextmanager
def _bytes_shown(what: str, folder: Path, whole: int, missing: int) -> Iterator[None]:
    """Rate and time left, from the bytes in the folder: that holds for every way in which the client downloads."""
    total, done = max(round(whole / 1e6), 1), round((whole - missing) / 1e6)
    bar = Progress(what, total, "MB", done=done)
    print(f"{what}: {missing / 1e6:.0f} MB of {total} MB", file=sys.stderr, flush=True)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            with suppress(OSError):  # files are renamed while this looks at them
                there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
                if (step := min(round(there), total - 1) - bar.count) > 0:
                    bar.advance(step)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    bar.advance(total - bar.count)


def _quiet_bar() -> type:
    """A progress bar of the client's kind that shows nothing."""
    from huggingface_hub.utils import tqdm

    class Quiet(tqdm):
        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **{**options, "disable": True})

    return Quiet
