"""What gives a run's rows and images to its trackers, and keeps their troubles away from the training.

Each tracker has a thread of its own, which imports its package, begins, writes and closes: a network that hangs holds
nobody up. What goes wrong is told once, in one line; that tracker then gets nothing more in this segment.
"""

from __future__ import annotations

import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from promptecho.config.tracker_kinds import TrackerKind
from promptecho.config.trackers import TrackerSection
from promptecho.errors import DataError, PromptEchoError
from promptecho.files import read_json, write_json
from promptecho.plugins import import_object
from promptecho.trackers.base import TrackedImage, TrackedRun, Tracker

abandoned: list[TrackerFeed] = []  # of this process: failed, or left while they still wrote; their packages may wait
CLOSE_S = 30.0  # how long the end of a segment waits for what was not sent yet
RECORD = "run.json"  # in a tracker's folder of a run


@dataclass(frozen=True)
class Sent:
    """What a tracker has been given of a run: the last iteration up to which it took all rows, and that of its images;
    -1 where there is none. `training` is the digest of what is trained, by which another training is told apart."""

    id: str
    training: str
    row: int = -1
    images: int = -1


def sent_before(folder: Path, training: str | None = None) -> Sent | None:
    """What the record in a tracker's folder says; None where there is none that can be read, or it is of another
    training than the one with this digest."""
    try:
        found = Sent(**read_json(folder / RECORD))
    except (DataError, OSError, TypeError):
        return None
    return found if training in (None, found.training) else None


def tracker_folder(kind: TrackerKind, results: Path, run: str) -> Path:
    """Where a tracker's files of a run are, in `results/E`."""
    return Path(results) / kind.folder.format(name=kind.name, run=run)


class TrackerFeed:
    """One tracker of one segment.

    Args:
        folder: the tracker's own for this run.
        training: the digest of what is trained.
        start_iteration: that of the state from which the segment goes on; -1: the run begins.
        earlier: the run's rows up to there, of which it is given those that it lacks.
        config: as in `TrackedRun`.
        say: tells people one line.
        anew: show it as another run than before, whatever was given already.
    """

    def __init__(
        self, entry: TrackerSection, *, experiment: str, run: str, folder: Path, training: str, start_iteration: int,
        config: Mapping[str, Any], say: Callable[[str], None], anew: bool = False,
        earlier: Sequence[Mapping[str, Any]] = (),
    ):  # fmt: skip
        self.name, self.failed, self._say, self._kind, self._anew = entry.name, False, say, entry.tracker, anew
        self._earlier, self._begun, self._lock = earlier, False, threading.Lock()
        self._begin = (entry, experiment, run, folder, training, start_iteration, config)
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {entry.name}", daemon=True)
        self._thread.start()

    def log(self, row: Mapping[str, Any]) -> None:
        """Give it the row of one iteration."""
        row = dict(row)
        self._queue.put(lambda: self._log(row))

    def log_images(self, iteration: int, images: Sequence[TrackedImage]) -> None:
        """Give it the sample grid of an iteration."""
        self._queue.put(lambda: self._log_images(iteration, images))

    def close(self, seconds: float) -> None:
        """End it; what it has not written within that time stays unwritten, and that is told.

        What the tracker has taken meanwhile may never arrive. So its record is set back to before this segment, unless
        it writes over what it is given again.
        """
        self._queue.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.failed = True
            abandoned.append(self)
            if not self._kind.takes_back and self._lock.acquire(timeout=1.0):  # its folder may hang, too
                with suppress(PromptEchoError):
                    if self._begun:
                        write_json(self._folder / RECORD, asdict(self._at_start))
                self._lock.release()
            self._tell(f"has not taken all rows within {seconds:.0f} s")

    def _work(self) -> None:
        """The thread."""
        try:
            if problem := self._kind.not_installed():
                raise ImportError(problem)
            self._open()
            while (given := self._queue.get()) is not None:
                given()
            self._tracker.close()
            self._note(row=self._last)
        except BaseException as error:  # whatever a library may raise, sys.exit() too: it must not end a training
            if not self.failed:
                self.failed = True
                if not isinstance(error, ImportError):
                    abandoned.append(self)
                told = " ".join(str(error).split())[:300]
                self._tell(told if isinstance(error, ImportError) else f"{type(error).__name__}: {told}")

    def _tell(self, what: str) -> None:
        command = f"promptecho track results/{self._begin[1]} --run {self._begin[2]} --to {self.name}"
        self._say(f"tracker {self.name}: {what}; the rows stay in metrics.jsonl: later, {command}")

    def _open(self) -> None:
        entry, experiment, run, folder, training, start, config = self._begin
        before = None if self._anew else sent_before(folder, training)
        fresh = re.sub(r"[^A-Za-z0-9._-]", "-", f"{experiment}-{run}-{secrets.token_hex(4)}")
        sent = before or Sent(fresh, training)
        if self._kind.takes_back:
            sent = replace(sent, row=min(max(sent.row, sent.images), start), images=min(sent.images, start))
        self._sent = self._at_start = sent
        self._folder, self._last = folder, sent.row
        folder.mkdir(parents=True, exist_ok=True)
        build = import_object(entry.tracker.build, f"tracker {entry.name}")
        resumed = before is not None
        tracked = TrackedRun(experiment, run, sent.id, resumed, sent.row, folder, config, entry.options)
        self._tracker: Tracker = build(tracked)
        self._note()
        self._begun = True
        found = {row["iteration"] for row in self._earlier}
        if lost := [number for number in range(max(sent.row, 0) + 1, start + 1) if number not in found]:
            first, last = lost[0], lost[-1]
            self._say(f"tracker {self.name}: it lacks rows of iterations {first} to {last}: no metrics.jsonl has them")
        for row in self._earlier:
            self._log(row)

    def _log(self, row: Mapping[str, Any]) -> None:
        if row["iteration"] <= self._sent.row:
            return
        self._tracker.log(row)
        # It may hold a row back until the next one comes; killed in between, it is given that row again.
        self._note(row=row["iteration"] if self._kind.takes_back else max(self._last, self._sent.row))
        self._last = row["iteration"]

    def _log_images(self, iteration: int, images: Sequence[TrackedImage]) -> None:
        if iteration <= self._sent.images:
            return
        self._tracker.log_images(iteration, images)
        self._note(images=iteration)

    def _note(self, row: int | None = None, images: int | None = None) -> None:
        sent = self._sent
        row, images = sent.row if row is None else row, sent.images if images is None else images
        with self._lock:
            self._sent = replace(sent, row=row, images=images)
            if not self.failed:
                write_json(self._folder / RECORD, asdict(self._sent))


class TrackerFeeds:
    """All trackers of a segment."""

    def __init__(self, feeds: Sequence[TrackerFeed] = ()):
        self.feeds = list(feeds)

    def log(self, row: Mapping[str, Any]) -> None:
        for feed in self.feeds:
            feed.log(row)

    def log_images(self, iteration: int, images: Sequence[TrackedImage]) -> None:
        for feed in self.feeds:
            feed.log_images(iteration, images)

    def close(self) -> None:
        """End all of them within about the time that one may take."""
        end = time.monotonic() + CLOSE_S
        for feed in self.feeds:
            feed.close(max(end - time.monotonic(), 0.1))
