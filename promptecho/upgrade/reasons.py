"""Why a finished result would be made again, in words: which digest, version, key or input is another one now."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from promptecho.config.changes import changes
from promptecho.config.inputs import inputs_of
from promptecho.config.load import load_experiment
from promptecho.config.slices import slice_value
from promptecho.errors import PromptEchoError
from promptecho.files import digest

# Rule -> stage of its slice of the configuration, and the names that the slice takes from its wildcards.
STAGES: dict[str, tuple[str, dict[str, str]]] = {
    "training_images": ("images", {}),
    "caption_shard": ("caption", {}),
    "captions": ("merge", {}),
    "train": ("train", {"run": "R"}),
    "benchmark_prompts": ("prompts", {"image_set": "S"}),
    "import_adapter": ("adapter", {"run": "R"}),
    "generate_shard": ("generate", {"image_set": "S"}),
    "judge": ("score", {"benchmark": "B"}),
    "score": ("score", {"benchmark": "B"}),
    "guard": ("guard", {"guard": "G", "image_set": "S"}),
}
# What has a digest of its code and nothing else.
CODE = {
    "table": "tables",
    "paper_tables": "tables",
    "curves": "figures",
    "training_curves": "figures",
    "samples": "figures",
    "sample_words": "words",
    "browse_page": "pages of results",
}
_MADE_WITH = re.compile(r"--config (\S*/config/[0-9a-f]{16}\.yaml)")
_SHOWN = 3  # files that a reason names


class Why(NamedTuple):
    """Reasons in words, the recorded parameters (digests) that are others now, and inputs that are newer."""

    reasons: tuple[str, ...]
    before: tuple[str, ...] = ()
    now: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()


FOLLOWS = Why(("what it is made from is made again",))


class Reasons:
    """The reasons of one plan.

    Args:
        protection: the guard of finished trainings, which has Snakemake's plan, its records and the configurations.
    """

    def __init__(self, protection: Any):
        self.protection, self.dag, self.persistence = protection, protection.dag, protection.persistence

    def of(self, job: Any) -> Why:
        """All reasons of a job; for one that only follows another job, that it follows."""
        reason, found = self.dag.reason(job), []
        if reason.forced:
            found.append("its inputs are other ones now")
        if reason.missing_output:
            found.append(f"some of its files are not there ({_named(reason.missing_output)})")
        if reason.incomplete_output:
            found.append("an interrupted job left it")
        if reason.params_changed:
            found += self._parameters(job, reason.params_changed)
        if reason.input_changed:
            found.append("it is made from other files now")
        newer = tuple(sorted(map(str, set(reason.updated_input) - set(reason.updated_input_run))))
        if newer:
            found.append("what it is made from is newer")
        if reason.code_changed:
            found.append("the command of its rule is another one")
        if reason.software_stack_changed:
            found.append("its conda environment is another one")
        if not found:
            return FOLLOWS if reason.updated_input_run else Why(("Snakemake asks for it",))
        if not reason.params_changed:
            return Why(tuple(found), newer=newer)
        sides = (reason.params_changed.only_old, reason.params_changed.only_new)
        before, now = (tuple(sorted(text.strip("'") for text in side)) for side in sides)
        return Why(tuple(found), before, now, newer)

    def _parameters(self, job: Any, changed: Any) -> list[str]:
        """Why the recorded parameters are others: the digest of a slice or of code, or a setting."""
        if job.rule.name in CODE:
            are_digests = all(re.fullmatch(r"'[0-9a-f]{16}'", text) for text in (*changed.only_old, *changed.only_new))
            return [f"the code of {CODE[job.rule.name]}" if are_digests else "its settings"]
        if job.rule.name not in STAGES:
            return ["its parameters"]
        stage, wildcards = STAGES[job.rule.name]
        names = {argument: job.wildcards_dict[wildcard] for argument, wildcard in wildcards.items()}
        if stage in ("train", "merge"):  # their slices are on record
            _, why = self.protection.changed(job, stage, names.get("run"), self.protection.recorded(job))
            if why:
                return why
        digests = {text.strip("'")[:16] for text in (*changed.only_old, *changed.only_new)}
        if stage == "generate" and len(digests) == 1:
            return ["another number of its prompts is wanted (benchmarks.NAME.limit)"]
        return [self._slice(job, stage, names, {text.strip("'")[:16] for text in changed.only_old})]

    def _slice(self, job: Any, stage: str, names: dict[str, str], recorded: set[str]) -> str:
        """What is different in the slice of the configuration that made it, as this version reads that, from now's."""
        now = slice_value(self.protection.experiments[job.wildcards.E], stage, **names)
        made = _MADE_WITH.search(self.persistence.shellcmd(job.output[0]) or "")
        old: dict[str, Any] | None
        if made is not None and Path(made[1]).is_file():
            try:
                old = slice_value(load_experiment(made[1]), stage, **names)
            except PromptEchoError:  # an earlier version's, with keys that have other names now
                return "its slice of the configuration, which this version cannot read as it was"
        else:  # its command takes single settings, no configuration; or it was deleted
            old = self._resolved(job, stage, names, recorded)
        if old is not None and old != now:
            return f"changed since: {', '.join(map(str, changes(stage, old, now)))}"
        known = self.protection.inputs(job.wildcards.E)
        replaced = known.changed(inputs_of(self.protection.experiments[job.wildcards.E], stage, **names))
        if replaced:
            return "; ".join(f"{key}: {path} does not hold what it held then" for key, path in replaced.items())
        why = "the code of its rules" if "code" in now else "the version of its stage, or a file that ships with it"
        return why if old is not None else f"its slice of the configuration, which is not on record; or {why}"

    def _resolved(self, job: Any, stage: str, names: dict[str, str], recorded: set[str]) -> dict[str, Any] | None:
        """The slice with a recorded digest, from a resolved configuration that has it; None where none has."""
        for path in sorted(Path(self.protection.placed(f"results/{job.wildcards.E}/config")).glob("*.yaml")):
            with contextlib.suppress(PromptEchoError):  # an earlier version's, or without this image set
                value = slice_value(load_experiment(path), stage, **names)
                if digest(value) in recorded:
                    return value
        return None


def _named(files: Any) -> str:
    names = sorted(map(str, files))
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
