"""Resources of a group that are what its jobs have in common, where Snakemake would add them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_YES = ("true", "yes", "on", "1")


def in_common(members: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """`resumable` if all jobs are, and the smallest `requeue_limit`; a malformed value goes first, to be refused."""
    resumable = [one.get("resumable") or False for one in members]
    found: dict[str, object] = {"resumable": next((value for value in resumable if not _is_yes(value)), True)}
    limits = [one["requeue_limit"] for one in members if one.get("requeue_limit") is not None]
    if limits:
        found["requeue_limit"] = min(limits, key=lambda limit: limit if isinstance(limit, int) else -1)
    return found


def _is_yes(value: object) -> bool:
    return value.lower() in _YES if isinstance(value, str) else isinstance(value, int) and value > 0
