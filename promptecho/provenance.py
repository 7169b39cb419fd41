"""Where a score or a table comes from: carried by every one of them."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

import promptecho

UNKNOWN = "unknown"
# Once a judge was called MODEL@HOST:PORT. Some models have an @ in their names, such as model@20240620.
_ADDRESS = re.compile(
    r"@(?:localhost|\[[0-9a-f:]+\]|[\w.-]+\.[a-z]{2,}|\d+\.\d+\.\d+\.\d+|[\w.-]+(?=:\d+$))(?::\d+)?$", re.IGNORECASE
)


class Limit(BaseModel):
    """That only the first prompts of a set were judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: int = Field(ge=1)
    of: int = Field(ge=1)

    def __str__(self) -> str:
        return f"first {self.prompts} of {self.of} prompts"


class Provenance(BaseModel):
    """What made one score file. `step` 0 is the base model; `n` counts items, `failures` those without outcome."""

    model_config = ConfigDict(extra="forbid")

    experiment: str = Field(min_length=1)
    run: str = Field(min_length=1)
    step: int = Field(ge=0)
    benchmark: str = Field(min_length=1, description="key of the config's benchmarks, and the folder under scores/")
    scorer: str
    backend: str
    mode: str
    config_digest: str = UNKNOWN
    prompts_digest: str = UNKNOWN
    package_version: str = promptecho.__version__
    git_commit: str = UNKNOWN
    judge_model: str
    template_digest: str | None = Field(None, description="digest of the texts that a judge was asked with")
    baseline: str | None = Field(None, description="run whose images these were compared with, for pairs")
    judge_versions: dict[str, int] | None = Field(None, description="version of the judge -> how many it answered")
    judge_orders: dict[str, int] | None = Field(None, description="order of a message's parts -> how many answers")
    unanswered: dict[str, int] | None = Field(None, description="why a judge did not answer -> how many questions")
    limit: Limit | None = Field(None, description="where not all prompts of the set were judged: which")
    n: int = Field(ge=0)
    failures: int = Field(ge=0)


def without_address(judge: str) -> str:
    """A judge's name without the address of its server, which older records and scores have in it."""
    return _ADDRESS.sub("", judge)


@functools.cache
def git_commit() -> str:
    """Commit of the checkout that this package lies in, "-dirty" added where the package's files differ from it.

    "unknown" for an installed package, without git, or where git refuses; never raises.
    """
    package = Path(promptecho.__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    # A site-packages inside a user's checkout is not part of that checkout.
    if not top or Path(top).resolve() != package.parent:
        return UNKNOWN
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no", "--", ".")
    if not commit:
        return UNKNOWN
    return f"{commit}-dirty" if changes else commit
