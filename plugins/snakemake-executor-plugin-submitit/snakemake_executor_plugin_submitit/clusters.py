"""One start of Snakemake has one cluster: the one that Slurm's commands on this host use.

Its jobs are submitted, looked up and cancelled there alone. What would send jobs to others (`clusters`, a list in
SLURM_CLUSTERS, a federation, whose members take each other's jobs) is refused in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

FEDERATION = ("scontrol", "show", "federation")


def parse_siblings(text: str) -> tuple[str, ...]:
    """The other members of this cluster's federation, from the output of `FEDERATION`; none without one."""
    return tuple(re.findall(r"^Sibling:\s*([^:\s]+)", text, re.MULTILINE))


def cluster_problem(asked: str | None, here: str | None, siblings: tuple[str, ...]) -> str | None:
    """What is wrong with a job for the cluster `asked`; `here` is this cluster, None if its name is not known."""
    if asked is None:
        if not siblings:
            return None
        return (
            f"clusters: none is given, and this cluster shares its jobs with {', '.join(siblings)} (a federation), "
            f"where they could not be followed; set clusters={here!r}, in default-resources"
        )
    if asked == here:
        return None
    where = f"this cluster, {here!r}," if here else "the cluster of this host"
    return (
        f"clusters={asked!r}: jobs go to {where} only; leave it out, or start another Snakemake, in a working folder "
        "of its own, on a host of that cluster"
    )


def environment_problem(environment: Mapping[str, str], here: str | None) -> str | None:
    """What is wrong with SLURM_CLUSTERS, which all of Slurm's commands obey; `here`: as they then call the cluster."""
    asked = environment.get("SLURM_CLUSTERS")
    if not asked or asked == here:
        return None
    if "," in asked or asked == "all":
        return f"SLURM_CLUSTERS={asked}: names several clusters, and jobs of one start go to one; unset it"
    return f"SLURM_CLUSTERS={asked}: no cluster of this name answers; unset it"
