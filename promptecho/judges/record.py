"""The record of all calls: append-only JSON Lines journals that several processes keep in one folder.

A call is written down before it is made (`begun`) and again when it ended, each time synced to disk; calls that end at
the same time are synced together. So a reply that was paid for survives a kill, and a call that was cut off still
counts against the budget. Every process writes a journal of its own, which it keeps locked while it lives, and reads
all others. Where the file system has no locks, processes at the same time may ask the same question twice and together
exceed a budget.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from promptecho.errors import DataError
from promptecho.provenance import without_address

Status = Literal["begun", "ok", "unparsable", "refused", "cut", "empty", "failed", "lost", "given_up"]
ANSWERED = ("ok", "unparsable", "refused", "cut", "empty")


class JournalRow(BaseModel):
    """One line of a journal. `call` counts within the journal; the row that ends a call repeats the number of the
    row that began it. Tokens are those to be charged: of a begun or lost call the most it may cost, of a failed one
    none. `estimated`: the reply named no tokens, so these are those reserved. `guess`: what the input was taken for
    beforehand. `limit`: most tokens that the reply was allowed; `finish`: why it ended; `thinking_tokens` are part of
    the output's. `order` of the message's parts and `format` of its images; earlier versions, which sent images first
    and by default as png, wrote none. A row `given_up` ends no call: its question was left without answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    call: int
    judge: str
    key: str
    id: str
    attempt: int
    status: Status
    time: float
    text: str = ""
    reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    guess: int = 0
    model_version: str = ""
    limit: int = 0
    finish: str = ""
    thinking_tokens: int = 0
    order: str = ""
    format: str = ""


@dataclass
class _OtherJournal:
    """Another process's journal, as far as it was read. `open` are calls that did not end yet."""

    path: Path
    offset: int = 0
    lines: int = 0
    finished: bool = False
    open: dict[int, JournalRow] = field(default_factory=dict)


class Record:
    """The calls of `judge` that are recorded in `folder`, which need not exist yet.

    Safe for threads. Reading makes no file; the first call makes this process's journal. Without `sync_begun` only the
    ends of calls are synced: a machine that loses its power may forget that calls were on their way, of which only a
    budget needs to know.

    Raises:
        DataError: a journal cannot be read or is damaged; names file and line.
    """

    def __init__(self, folder: str | Path, judge: str, *, sync_begun: bool = True):
        self.folder, self.judge = Path(folder), judge
        self.calls = 0  # begun ever
        self.input_tokens = self.output_tokens = 0  # charged to calls that ended, or were cut off
        self._lock = threading.RLock()
        self._sync_begun, self._sync_lock = sync_begun, threading.Lock()
        self._written = self._synced = 0  # rows of this process
        self._journals: dict[str, _OtherJournal] = {}
        self._replies: dict[str, list[tuple[float, str, JournalRow]]] = defaultdict(list)
        self._given_up: dict[str, JournalRow] = {}
        self._former: dict[str, tuple[tuple[str, ...], ...]] = {}
        self.former_limits: set[tuple[str, int]] = set()  # (judge, limit of tokens) of calls of earlier versions
        self._own: _OtherJournal | None = None
        self._file: int | None = None
        self.refresh()

    def replies(self, key: str) -> list[JournalRow]:
        """What was answered to the question of this key so far, oldest first."""
        with self._lock:
            former, as_png = (
                [entry for one in keys for entry in self._replies.get(one, ())]
                for keys in self._former.get(key, ((), ()))
            )
            entries = [*self._replies.get(key, ()), *(entry for entry in former if not entry[2].order)]
            entries += [entry for entry in as_png if not entry[2].format]
            return [row for _, _, row in sorted(entries, key=lambda entry: entry[:2])]

    def adopt(self, key: str, former: tuple[str, ...], as_png: tuple[str, ...] = ()) -> None:
        """Take what earlier versions recorded under other keys as answers to the question of `key`: under `former`
        before they knew an order of parts, under `as_png` before they recorded the format of images."""
        with self._lock:
            self._former[key] = tuple(tuple(one for one in keys if one in self._replies) for keys in (former, as_png))

    def given_up(self, key: str) -> str | None:
        """Why the question of this key was left without an answer when it was last asked; None: it was not."""
        with self._lock:
            row = self._given_up.get(key)
            return row.reason if row else None

    def give_up(self, key: str, id: str, reason: str) -> None:
        """Record that a question stays without an answer, so that it is not asked again only to find this out."""
        with self._lock:
            own = self._open_own()
            number = self._append(
                JournalRow(call=own.lines, judge=self.judge, key=key, id=id, attempt=0, status="given_up",
                    time=time.time(), reason=reason)
            )  # fmt: skip
        self._sync(number)

    def all_replies(self) -> list[JournalRow]:
        """Every reply of this judge, in no particular order."""
        with self._lock:
            return [row for rows in self._replies.values() for _, _, row in rows]

    def reserved(self) -> tuple[int, int, int]:
        """(calls, input tokens, output tokens) that are on their way now, here or in other processes."""
        with self._lock:
            rows = [row for journal in self._all() for row in journal.open.values()]
            return len(rows), sum(row.input_tokens for row in rows), sum(row.output_tokens for row in rows)

    def asked_elsewhere(self, key: str) -> bool:
        """Whether another live process is asking this question now."""
        with self._lock:
            return any(row.key == key for journal in self._journals.values() for row in journal.open.values())

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold off all other processes that use the folder, and know what they recorded."""
        with self._lock:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise self._disk_error(self.folder, error) from None
            try:
                with contextlib.suppress(OSError):  # some network file systems have no locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                self.refresh()
                yield
            finally:
                os.close(descriptor)

    def begin(
        self, key: str, id: str, attempt: int, *, input_tokens: int, output_tokens: int, guess: int,
        order: str = "images_first", format: str = "png",
    ) -> JournalRow:  # fmt: skip
        """Write down that a call is about to be made, and what it may cost; within `transaction`. `output_tokens` is
        the most that the reply is allowed."""
        with self._lock:
            own = self._open_own()
            row = JournalRow(
                call=own.lines, judge=self.judge, key=key, id=id, attempt=attempt, status="begun", time=time.time(),
                input_tokens=input_tokens, output_tokens=output_tokens, guess=guess, limit=output_tokens,
                order=order, format=format,
            )  # fmt: skip
            number = self._append(row)
            if self._sync_begun:
                self._sync(number)
            return row

    def end(self, begun: JournalRow, status: Status, **values) -> JournalRow:
        """Write down how a call ended; `values` are further fields of its row. Returns once it is on the disk."""
        row = begun.model_copy(update={"status": status, "time": time.time(), **values})
        with self._lock:
            number = self._append(row)
        self._sync(number)
        return row

    def refresh(self) -> None:
        """Read what other processes wrote since."""
        with self._lock:
            for path in sorted(self.folder.glob("[!.]*.jsonl")):
                journal = self._journals.setdefault(path.name, _OtherJournal(path))
                if not journal.finished and (self._own is None or path != self._own.path):
                    self._read(journal)

    def close(self) -> None:
        """Give this process's journal free: what is still open in it counts as cut off."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all(self) -> list[_OtherJournal]:
        return [*self._journals.values(), *([self._own] if self._own else [])]

    def _open_own(self) -> _OtherJournal:
        if self._own is None:
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            path = self.folder / f"{stamp}-{uuid.uuid4().hex[:8]}.jsonl"
            hidden = path.with_name(f".{path.name}")  # nobody must find it before it is locked
            try:
                self._file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
                with contextlib.suppress(OSError):  # as above
                    fcntl.flock(self._file, fcntl.LOCK_EX)
                os.replace(hidden, path)
                with contextlib.suppress(OSError):  # not every file system syncs folders
                    folder = os.open(self.folder, os.O_RDONLY)
                    try:
                        os.fsync(folder)
                    finally:
                        os.close(folder)
            except OSError as error:
                raise self._disk_error(path, error) from None
            self._own = _OtherJournal(path)
        return self._own

    def _append(self, row: JournalRow) -> int:
        """Write a row; its number, for `_sync`."""
        own = self._open_own()
        assert self._file is not None, "open from the first row to `close`"
        data = (row.model_dump_json(exclude_defaults=True) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise self._disk_error(own.path, error) from None
        self._count(own, row)
        self._written += 1
        return self._written

    def _sync(self, number: int) -> None:
        """Return once so many rows are on the disk. One thread syncs what all have written by then."""
        with self._sync_lock:
            if self._synced >= number:
                return
            assert self._own is not None and self._file is not None, "open from the first row to `close`"
            written = self._written
            try:
                os.fsync(self._file)
            except OSError as error:
                raise self._disk_error(self._own.path, error) from None
            self._synced = written

    @staticmethod
    def _disk_error(path: Path, error: OSError) -> DataError:
        return DataError(
            f"{path}: cannot write ({error.strerror or error}); free space or fix permissions, then rerun to continue"
        )

    def _count(self, journal: _OtherJournal, row: JournalRow) -> None:
        journal.lines += 1
        if row.judge != self.judge and without_address(row.judge) != self.judge:
            return
        if row.status == "begun":
            self.calls += 1
            journal.open[row.call] = row
            if not row.limit:
                self.former_limits.add((row.judge, row.output_tokens))
            return
        if row.status == "given_up":
            last = self._given_up.get(row.key)
            self._given_up[row.key] = row if last is None or row.time >= last.time else last
            return
        begun = journal.open.pop(row.call, None)
        if not row.limit and begun is not None:
            row = row.model_copy(update={"limit": begun.output_tokens})
        self.input_tokens += row.input_tokens
        self.output_tokens += row.output_tokens
        if row.status in ANSWERED:
            self._replies[row.key].append((row.time, journal.path.name, row))

    def _read(self, journal: _OtherJournal) -> None:
        alive = _is_locked(journal.path)  # before reading: what a dead process wrote is then all there
        try:
            with open(journal.path, "rb") as file:
                file.seek(journal.offset)
                data = file.read()
        except OSError as error:
            raise DataError(f"{journal.path}: cannot read ({error.strerror or error})") from None
        whole = data.rfind(b"\n") + 1  # a line without its end is being written, or was when its process died
        for line in data[:whole].splitlines():
            try:
                row = JournalRow.model_validate_json(line)
            except ValidationError:
                raise DataError(
                    f"{journal.path}:{journal.lines + 1}: damaged line; delete it to go on without what it recorded"
                ) from None
            self._count(journal, row)
        journal.offset += whole
        if not alive:
            journal.finished = True
            for row in journal.open.values():  # cut off: perhaps charged, the reply is lost
                self.input_tokens += row.input_tokens
                self.output_tokens += row.output_tokens
            journal.open.clear()


def _is_locked(path: Path) -> bool:
    """Whether the process that writes the journal lives; False where the file system has no locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
