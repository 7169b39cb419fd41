"""What is said of each tracker: a place outside of `results/` where a run's metrics and images can be watched.

A descriptor is beside the class that writes (promptecho/trackers/tensorboard.py and similar ones) and is found by
promptecho/plugins.py.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import ValidationError

from promptecho.config.descriptors import NAME
from promptecho.config.fields import Section
from promptecho.plugins import SPEC, Plugins, Registration, wrong_types


class TrackerOptions(Section):
    """Settings of a tracker; all keys have defaults."""

    def missing(self) -> str:
        """What else these settings need and this machine lacks, such as a key, with the fix; "": nothing."""
        return ""


@dataclass(frozen=True, kw_only=True)
class TrackerKind:
    """One tracker.

    Args:
        name: by which `training.trackers` chooses it; lower-case letters, digits, `_` and `-`.
        summary: what it is, in a few words.
        build: `module:object`, called with one `promptecho.trackers.TrackedRun`; returns a `Tracker`
            (promptecho/trackers/base.py).
        package: the Python package that it imports; "": none that has to be installed for it.
        install: the command that installs it.
        options: pydantic model of its settings, a subclass of `TrackerOptions`; they stand below its name beside
            `name`.
        takes_back: a run that goes on from an earlier iteration can write over what came after it. Where it cannot,
            iterations that were written are not written again.
        folder: where its files are, in the folder of the experiment's results; {name} and {run} are replaced; the
            latter is needed.
    """

    name: str
    summary: str
    build: str
    package: str = ""
    install: str = ""
    options: type[Section] | None = None
    takes_back: bool = False
    folder: str = "trackers/{name}/{run}"

    def __post_init__(self) -> None:
        if problems := wrong_types(self):
            raise ValueError(f"TrackerKind: {'; '.join(problems)}")
        if not NAME.fullmatch(self.name) or self.name == "name":
            problems.append(f"name {self.name!r}: take lower-case letters, digits, _ and -, and not `name`")
        if not SPEC.fullmatch(self.build):
            problems.append(f"build {self.build!r}: expected MODULE:OBJECT")
        if self.options is not None and not (
            isinstance(self.options, type) and issubclass(self.options, TrackerOptions)
        ):
            problems.append("options: must be a subclass of promptecho.trackers.TrackerOptions")
        elif self.options is not None:
            try:
                self.options()
            except ValidationError as error:
                keys = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
                problems.append(f"options: {keys}: must have a default that is valid")
        problems += self._folder_problems()
        if problems:
            raise ValueError(f"TrackerKind: {'; '.join(problems)}")

    def _folder_problems(self) -> list[str]:
        try:
            found = PurePosixPath(self.folder.format(name="NAME", run="RUN"))
        except (LookupError, ValueError, AttributeError):  # other keys, or braces that are not closed
            found = PurePosixPath("/")
        if found.is_absolute() or ".." in found.parts or "RUN" not in str(found):
            told = "take a path in results/E, without .., with {run} and no other key than {name}"
            return [f"folder {self.folder!r}: {told}"]
        return []

    @property
    def parts(self) -> dict[str, str]:
        """Its `module:object` strings by key."""
        return {"build": self.build}

    def not_installed(self) -> str:
        """Why it cannot be used with this Python, with the fix; "": it can."""
        try:
            if not self.package or importlib.util.find_spec(self.package) is not None:
                return ""
        except ModuleNotFoundError:  # of a package above it
            pass
        return f"the package {self.package} is not installed" + (f": {self.install}" if self.install else "")


TRACKERS: Plugins[TrackerKind] = Plugins(
    "trackers",
    TrackerKind,
    {
        "tensorboard": "promptecho.trackers.tensorboard:KIND",
        "trackio": "promptecho.trackers.trackio:KIND",
        "wandb": "promptecho.trackers.wandb:KIND",
    },
    noun="tracker",
)


def tracker_kind(name: str) -> TrackerKind:
    """The descriptor of a tracker.

    Raises:
        ConfigError: there is none of that name, or it cannot be imported.
    """
    return TRACKERS.find(name).thing


def available_trackers(ours_only: bool = False) -> list[Registration[TrackerKind]]:
    """All trackers that may be written now and can be imported, ours first."""
    return TRACKERS.available(ours_only)
