"""What is said of each kind of judge: how it is reached, what it needs, and what may stand in its `request`.

A descriptor is beside the class that asks (promptecho/judges/gemini.py and similar ones) and is found by
promptecho/plugins.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptecho.config.descriptors import NAME
from promptecho.config.fields import Section
from promptecho.plugins import SPEC, Plugins, Registration, wrong_types


@dataclass(frozen=True, kw_only=True)
class JudgeKind:
    """One way to ask a model about images.

    Args:
        name: by which `judges.models.NAME.kind` chooses it; lower-case letters, digits, `_` and `-`.
        summary: what it is, in a few words.
        build: `module:object`, called with the judge's settings (`JudgeSection`); returns a `Judge`
            (promptecho/judges/base.py), which is asked from several threads at once.
        version: raise it when a change of the code asks in another way: all questions are then asked again.
        provider: the address where `endpoint` is null; "": an endpoint must be given.
        key_variable: the environment variable that holds the key where `api_key_env` is null; "": none is needed.
        azure_key_variable: that of Azure's addresses, where it can ask these.
        in_process: the model runs in the job itself, on its GPU: it has no endpoint, no key and no `request`.
        images_first: it sends images before the text, whatever `order` says.
        environment: the conda environment of its jobs: the name of a file of envs/, or the path of a YAML file.
        request: what `request` may hold, a subclass of `Section`; None: whatever the endpoint takes.
        own_parts: what `request` may not hold: the question's own part of a call.
        limit_keys: keys of `request` that limit a reply's length.
        unpacked: keys of `request` whose mappings are sent at the level above.
        camel_case: keys of `request` may be written in camelCase, too.
    """

    name: str
    summary: str
    build: str
    version: int = 1
    provider: str = ""
    key_variable: str = ""
    azure_key_variable: str = ""
    in_process: bool = False
    images_first: bool = False
    environment: str | Path = "judge"
    request: type[Section] | None = None
    own_parts: frozenset[str] = frozenset()
    limit_keys: tuple[str, ...] = ()
    unpacked: tuple[str, ...] = ()
    camel_case: bool = False

    def __post_init__(self) -> None:
        if problems := wrong_types(self):
            raise ValueError(f"JudgeKind: {'; '.join(problems)}")
        if not NAME.fullmatch(self.name):
            problems.append(f"name {self.name!r}: take lower-case letters, digits, _ and -")
        if not SPEC.fullmatch(self.build):
            problems.append(f"build {self.build!r}: expected MODULE:OBJECT")
        if type(self.version) is not int or self.version < 1:
            problems.append(f"version {self.version!r}: count from 1")
        if self.request is not None and not (isinstance(self.request, type) and issubclass(self.request, Section)):
            problems.append("request: must be a subclass of promptecho.judges.Section")
        if self.in_process and (self.provider or self.key_variable):
            problems.append("in_process: then it has neither provider nor key_variable")
        if problems:
            raise ValueError(f"JudgeKind: {'; '.join(problems)}")

    @property
    def parts(self) -> dict[str, str]:
        """Its `module:object` strings by key."""
        return {"build": self.build}

    @property
    def needs(self) -> str:
        """What it needs, in words."""
        if self.in_process:
            return "a GPU for real models"
        address = "network" if self.provider else "an endpoint"
        return f"{address}, a key in {self.key_variable}" if self.key_variable else address


JUDGE_KINDS: Plugins[JudgeKind] = Plugins(
    "judges",
    JudgeKind,
    {
        "gemini": "promptecho.judges.gemini:KIND",
        "openai": "promptecho.judges.openai_compatible:KIND",
        "local": "promptecho.judges.local:KIND",
    },
    noun="judge kind",
)


def judge_kind(name: str) -> JudgeKind:
    """The descriptor of a kind.

    Raises:
        ConfigError: there is none of that name, or it cannot be imported.
    """
    return JUDGE_KINDS.find(name).thing


def available_judge_kinds(ours_only: bool = False) -> list[Registration[JudgeKind]]:
    """All kinds that may be written now and can be imported, ours first."""
    return JUDGE_KINDS.available(ours_only)
