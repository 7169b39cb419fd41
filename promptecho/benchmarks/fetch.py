"""Fetch the official prompt sets: from a mirror folder, or from where their authors published them."""

from __future__ import annotations

import csv
import http.client
import io
import socket
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promptecho
from promptecho.config.prompt_sources import RAW, Source, SourceFile, sha256
from promptecho.errors import DataError, counted
from promptecho.files import atomic_path, read_json, write_json
from promptecho.plugins import import_object
from promptecho.progress import progress

RECORD = "SOURCE.json"
ATTEMPTS = 4
TIMEOUT = 60.0  # seconds without a byte
MAX_BYTES = 1 << 28  # far above any of the files; an endless answer must not fill the memory


class _Unreachable(Exception):
    """The file cannot be downloaded from there; its text is the reason."""


class _Transient(_Unreachable):
    """... now, but perhaps in a moment."""


@dataclass(frozen=True)
class Origin:
    """Where files may come from: the mirror is looked at first. `base_url` serves repositories as GitHub's raw host
    does (OWNER/NAME/COMMIT/PATH); `wait` seconds, doubled each time, lie between attempts."""

    mirror: Path | None = None
    base_url: str = RAW
    wait: float = 1.0


def fetch_all(sources: list[Source], out: Path, origin: Origin) -> tuple[list[dict[str, Any]], DataError | None]:
    """Fetch several sets; one that is not available does not stop the others.

    Returns what `fetch` returns for each that came, and the error that names the others, a line each.

    Raises:
        DataError: the mirror does not exist.
    """
    if origin.mirror is not None and not origin.mirror.is_dir():
        raise DataError(f"{origin.mirror}: no such folder; a mirror has {sources[0].mirror}/ and others in it")
    records, problems = [], []
    for source in sources:
        try:
            records.append(fetch(source, out, origin))
        except DataError as error:
            problems.append(str(error))
    return records, DataError("\n".join(problems)) if problems else None


def fetch(source: Source, out: Path, origin: Origin) -> dict[str, Any]:
    """Fetch one prompt set into `out/NAME/`: the official files, the packed prompt files, SOURCE.json.

    Files that are there with the right hash stay; of files without a known hash it is that of the first time, which
    SOURCE.json has. A file with a wrong hash never gets its final name.

    Returns what SOURCE.json records, with the folder and the number of prompts by file.

    Raises:
        DataError: a file is neither in the mirror nor available at its URL (names both), or is not the official one.
    """
    folder = Path(out) / source.name
    kept = _recorded(folder)
    files = {}
    with progress(f"fetch {source.name}", len(source.files), "files") as bar:
        for file in source.files:
            content, origin_of_it = _obtain(source, file, folder, origin, kept)
            files[file.name] = {
                "sha256": sha256(content),
                "bytes": len(content),
                "url": _url(source, file, RAW),
                "fetched_from": origin_of_it,
            }
            bar.advance()
    if source.make:
        import_object(source.make, f"prompt set {source.name}")(folder)
    record = {
        "name": source.name,
        "title": source.title,
        "repository": f"https://github.com/{source.repository}",
        "commit": source.commit,
        "licence": source.licence or "none stated by the repository",
        "citation": source.citation,
        "files": files,
    }
    write_json(folder / RECORD, record)
    prompts = {str(folder / name): count_prompts(folder / name, source.id_column) for name in source.prompts}
    return {**record, "folder": str(folder), "prompts": prompts}


def count_prompts(path: Path, id_column: str = "") -> int:
    """Prompts in a prompt file: the lines of JSON Lines, or what is distinct in the `id_column` of a CSV."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return len({row[id_column] for row in csv.DictReader(io.StringIO(text, newline=""))})
    return sum(bool(line.strip()) for line in text.split("\n"))


def _obtain(
    source: Source, file: SourceFile, folder: Path, origin: Origin, kept: dict[str, dict[str, str]]
) -> tuple[bytes, str]:
    """The file's content, and where it was fetched from; afterwards it lies in `folder`."""
    path = _inside(folder, file.name)
    known = kept.get(file.name, {})
    if path.is_file():
        content = _read(path)
        unchanged = file.pinned or known.get("sha256") in (None, sha256(content))  # or put there by hand
        unchanged &= file.pinned or known.get("commit") in (None, source.commit)
        if unchanged and file.problem(content) is None:
            return content, known.get("fetched_from", "found in place")
    mirrored = None if origin.mirror is None else origin.mirror / source.mirror / file.name
    url = _url(source, file, origin.base_url)
    if mirrored is not None and mirrored.is_file():
        content, place, remedy = _read(mirrored), str(mirrored), "copy the official file there again"
    else:
        try:
            content, place, remedy = _download(url, origin.wait), url, "what answers is not the official host"
        except _Unreachable as error:
            where = "no mirror is given" if mirrored is None else f"{mirrored} does not exist"
            raise DataError(
                f"{source.name}/{file.name}: {where}, and {url} cannot be fetched ({error}); run this where GitHub can "
                f"be reached, or give --mirror FOLDER with {source.mirror}/{file.name} in it"
            ) from error
    problem = file.problem(content)
    if problem is not None:
        raise DataError(f"{place}: not the official file: {problem}; {remedy}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return content, place


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read ({error.strerror or error}); fix permissions") from error


def _download(url: str, wait: float) -> bytes:
    """The content at `url`, tried again where that may help."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

    attempts = Retrying(
        retry=retry_if_exception_type(_Transient),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=wait, max=30),
        reraise=True,
    )
    return attempts(_download_once, url)


def _download_once(url: str) -> bytes:
    headers = {"User-Agent": f"promptecho/{promptecho.__version__}"}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            content = response.read(MAX_BYTES)
            expected = response.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        kind = _Transient if error.code >= 500 or error.code in (408, 425, 429) else _Unreachable
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        # Without a name server there is no network, and waiting does not help.
        kind = _Unreachable if isinstance(error.reason, socket.gaierror) else _Transient
        raise kind(str(error.reason)) from error
    except (http.client.HTTPException, OSError) as error:
        raise _Transient(f"{type(error).__name__}: {error}".rstrip(": ")) from error
    except ValueError as error:  # no URL
        raise _Unreachable(str(error)) from error
    if expected is not None and expected.isdigit() and len(content) != int(expected):
        raise _Transient(f"the connection ended after {len(content)} of {expected} bytes")
    return content


def _recorded(folder: Path) -> dict[str, dict[str, str]]:
    """Where the files of an earlier call came from, their commit and their SHA-256."""
    if not (folder / RECORD).is_file():
        return {}
    try:
        record = read_json(folder / RECORD)
        kept = {"commit": record["commit"]}
        return {
            name: {**kept, **{key: facts[key] for key in ("fetched_from", "sha256")}}
            for name, facts in record["files"].items()
        }
    except (DataError, KeyError, TypeError, AttributeError):
        return {}  # a record of another kind: it is written again


def _url(source: Source, file: SourceFile, base_url: str) -> str:
    path = urllib.parse.quote(f"{source.repository}/{source.commit}/{file.path}")
    return f"{base_url.rstrip('/')}/{path}"


def _inside(folder: Path, name: str) -> Path:
    """`folder/name`, refused where it would lie outside of the folder, through a link too."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{path}: leads out of {folder}; remove the link, or correct the name")
    return path


def describe(record: dict[str, Any]) -> str:
    """What a person should know of a fetched set."""
    lines = [f"{record['title']}: {counted(count, 'prompt')} in {path}" for path, count in record["prompts"].items()]
    lines.append(f"  from {record['repository']} at {record['commit'][:12]}; licence: {record['licence']}")
    if record["licence"].startswith("none"):
        lines.append("  Ask the authors before you pass these files on; this project does not hold a copy of them.")
    return "\n".join([*lines, f"  please cite: {record['citation']}"])
