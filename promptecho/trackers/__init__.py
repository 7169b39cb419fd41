"""Trackers: where a run's metrics and sample images can be watched besides its own files; one file each.

A tracker from outside imports what it needs from here; how to write one: docs/extending.md. Nothing here imports torch.
"""

from promptecho.config.tracker_kinds import TrackerKind, TrackerOptions
from promptecho.trackers.base import TrackedImage, TrackedRun, Tracker
from promptecho.trackers.tags import tag_of, tagged

__all__ = ["TrackedImage", "TrackedRun", "Tracker", "TrackerKind", "TrackerOptions", "tag_of", "tagged"]
