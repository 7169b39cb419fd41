"""Whether Snakemake can read what the profile says."""

from __future__ import annotations

from collections.abc import Iterator

from promptecho.doctor.finding import Finding, fine, problem, unchecked
from promptecho.doctor.preflight import Preflight

START = "the start of Snakemake, or the first submission"


def profile_mistakes(preflight: Preflight) -> Iterator[Finding]:
    """Values that can't be read, each by its key, and those that depend on a job."""
    profile = preflight.profile
    if profile is None:
        return
    for what, fix in profile.mistakes:
        yield problem(what, START, fix)
    for one in profile.computed:
        if one.startswith("set-"):  # of defaults, what is computed concerns rules that say nothing themselves
            told = f"{profile.path}: {one}: is computed for each job, so that the experiment's own value was looked at"
            yield unchecked(told, START, "look whether the partition has that much")
    if not profile.mistakes:
        yield fine(f"{profile.path}: all values can be read")
