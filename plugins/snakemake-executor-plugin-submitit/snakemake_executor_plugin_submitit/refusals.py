"""Errors of Slurm's commands by kind: refused for good, passing by themselves, or a limit on jobs in the queue.

The texts are those of Slurm's own table of errors (20.11 to 25.05), of its commands' options, and of the C library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

REFUSED, PASSING, LIMIT, UNCLEAR = "refused", "passing", "limit", "unclear"


@dataclass(frozen=True)
class Kind:
    """What an error means; of a limit, its name in Slurm's words, and whether it counts this user's jobs only."""

    word: str
    limit: str = ""
    own: bool = False


# The daemons, the network, the file systems and the authentication: nothing is wrong with the request.
_PASSING = re.compile(
    r"unable to contact slurm|unable to connect|communication (connection|shutdown) failure"
    r"|message (send|receive) failure|failed to send entire message|unexpected message received|insane message length"
    r"|zero length message|received message length|header lengths|zero bytes were transmitted|missing socket"
    r"|timed out|timeout|no answer within|connection (refused|reset|rejected|forced closed|closed)|broken pipe"
    r"|transport endpoint|network is|no route to host|host is (down|unreachable)|would block|file descriptor"
    r"|delayed socket error|shutting down|name or service not known|name resolution|unable to resolve"
    r"|can't find an address"
    r"|network dropped|connection abort|no buffer space|communication error|already in use|cannot assign requested"
    r"|no locks available|resource busy|interrupted system call"
    r"|unable to establish|configuration source|slurm\.conf|slurm_persist_conn|slurmdbd|database|munge|authenticat"
    r"|credential|i/o error|input/output error|no space left|quota exceeded|stale file handle|read-only file system"
    r"|cannot allocate memory|too many open files|resource temporarily|temporarily (unable|disabled|unavailable)"
    r"|standby mode|backup controller|takeover|slurmctld.*not respond|try again|retry|rate limit|incompatible versions"
    r"|available now|currently not available|unavailable|not usable now"
    r"|submissions disabled"
    r"|nodes are busy|node not available \(down|reservation is in use|maintenance reservation|prologslurmctld"
    r"|waiting for burst buffer|locked by another sibling|max powered up nodes",
    re.IGNORECASE,
)
# What asks for something else than this cluster has or allows.
_REFUSED = re.compile(
    r"invalid (?!authentication|job credential|user id|group id)|(specification|is|request) invalid"
    r"|(unknown|unrecognized) option|option requires|ambiguous|mutually exclusive|unable to parse|can't parse"
    r"|denied|not permitted|not allowed|no permission|must specify|required, but not provided|needs to be provided"
    r"|not specified|no partition specified|not in this partition|more (processors|tasks|ports) |exceed|too long"
    r"|too large|too many (?!open)|configuration is not available|partition not available|down state"
    r"|required by task is not available|can ?not be satisfied|unable to satisfy|dependency|not supported"
    r"|unsupported|duplicate (generic|gres)"
    r"|insufficient gres|restrictedcorespergpu|cannot request|breached|not federated|no eligible clusters"
    r"|without the current working directory|batch script|unable to open file|dos line breaks|null character"
    r"|this does not look like|--batch option|x11 forwarding|topology|not a valid|illegal|no cluster"
    r"|doesn't allow an argument|not configured|environment is missing|cli_filter plugin terminated",
    re.IGNORECASE,
)
# Names of limits as sbatch writes them before its last line, such as QOSMaxSubmitJobPerUserLimit.
_NAME = re.compile(r"\b((?:QOS|Assoc|Max)[A-Z]\w*)\b")
_POLICY = re.compile(r"violates accounting(/qos)? policy", re.IGNORECASE)
# slurmctld holds as many jobs as slurm.conf's MaxJobCount lets it; sbatch would sleep two minutes over it.
FULL = re.compile(r"job queue full|unable to accept job|unable to create job record|maxjobcount", re.IGNORECASE)
# A site's own words, by its job_submit plugin.
_SITE_LIMIT = re.compile(
    r"(submi\w+|job) limit (was |is |has been )?reached|too many (submitted |queued |pending )?jobs"
    r"|maximum number of (submitted |queued |pending )?jobs|reached .*limit of .*jobs",
    re.IGNORECASE,
)
# What stands before `Unspecified error` is a plugin's refusal, in any language, unless it is of the daemons.
_DAEMONS = re.compile(r"munge|credential|slurm_\w+:|slurmdbd|slurmctld|connection|timed out|contact", re.IGNORECASE)
_PLUGIN = re.compile(r"\blua\b|job_submit|cli_filter|spank", re.IGNORECASE)
_LAST = re.compile(r"submission failed:|submit/allocate failed:", re.IGNORECASE)


def kind_of(text: str) -> Kind:
    """What `text`, an error of sbatch or another Slurm command, means for a further try."""
    if FULL.search(text):
        return Kind(LIMIT, "MaxJobCount")
    if _POLICY.search(text):
        return _policy(text)
    if _SITE_LIMIT.search(text):
        return Kind(LIMIT, own=True)
    # What sbatch says last is slurmctld's answer; what stands before it may be a plugin's or a library's.
    last = _LAST.split(text)[-1]
    if (
        "unspecified error" in last.lower()
        and "\n" in text.strip()
        and (_PLUGIN.search(text) or not _DAEMONS.search(text))
    ):
        return Kind(REFUSED)  # by a plugin, in its own words
    for part in dict.fromkeys((last, text)):
        refused, passing = _REFUSED.search(part), _PASSING.search(part)
        if refused and passing:  # `Rate limit exceeded, please retry`
            return Kind(REFUSED if refused.start() < passing.start() else PASSING)
        if refused or passing:
            return Kind(REFUSED if refused else PASSING)
    return Kind(UNCLEAR)


def _policy(text: str) -> Kind:
    """One text of Slurm for limits on submitted jobs, which pass, and for those on a job's size and time.

    Since 22.05 the limit's name stands before it.
    """
    names = _NAME.findall(text)
    if not names:
        return Kind(LIMIT, own=True)
    if "Submit" not in names[-1]:
        return Kind(REFUSED)
    return Kind(LIMIT, names[-1], own="Grp" not in names[-1] and "PerAccount" not in names[-1])
