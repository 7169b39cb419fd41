"""Settings of captioning from a configuration file, with the command line on top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from promptecho.config.caption_server import CaptionServerSection
from promptecho.config.families import Family, family_named
from promptecho.config.models import CaptionsSection, ExperimentConfig, T2iSection, VlmSection
from promptecho.config.rewards import RewardSection
from promptecho.errors import ConfigError
from promptecho.models.locate import job_config
from promptecho.shipped import model_path


@dataclass(frozen=True)
class CaptionSettings:
    """The sections that captioning reads; without a configuration file the models are None."""

    captions: CaptionsSection
    vlm: VlmSection | None = None
    t2i: T2iSection | None = None
    rewards: Sequence[RewardSection] = ()
    experiment: ExperimentConfig | None = None

    def pick(self, key: str, given: Any) -> Any:
        """`given` on the command line, else the value (or default) of `captions.KEY`.

        Raises:
            ConfigError: neither is there.
        """
        value = getattr(self.captions, key) if given is None else given
        if value is None:
            raise ConfigError(f"captions.{key} is not set; give --{key.replace('_', '-')} or a --config that has it")
        return value

    def own_vlm(self, given: str | None, entry: RewardSection | None = None) -> VlmSection | None:
        """The configuration's section of a VLM: that of the name `given` in `models.vlms`, or without it that of a
        reward's `entry`, or else `models.vlm`; None where `given` is a model itself, or there is no configuration."""
        named = {} if self.experiment is None else self.experiment.models.vlms
        name = given if given is not None else entry.vlm if entry is not None else None
        return self.vlm if name is None else named.get(name)

    def server(self, endpoint: str | None) -> CaptionServerSection | None:
        """`captions.server`, where `endpoint` is given at that address; None: transformers in the process captions.

        Raises:
            ConfigError: `endpoint` is none.
        """
        if endpoint is None:
            return self.captions.server
        asked = self.captions.server.model_dump() if self.captions.server is not None else {}
        try:
            return CaptionServerSection(**(asked | {"endpoint": endpoint, "command": None}))
        except ValidationError as error:
            raise ConfigError(f"--endpoint {endpoint}: {error.errors()[0]['msg']}") from None

    @property
    def family(self) -> Family | None:
        """That of the text-to-image model, as `MergeSpec` has it."""
        return None if self.t2i is None else family_named(self.t2i.family)

    def tokenizer(self) -> dict[str, str | None]:
        """Where the text-to-image model's tokenizer is, as `MergeSpec` has it."""
        if self.t2i is None:
            return {}
        part = family_named(self.t2i.family).reader.tokenizer
        path = model_path(self.t2i.path, "t2i")
        return {"tokenizer": path, "tokenizer_revision": self.t2i.revision, "tokenizer_part": part}


def read_settings(config: Path | None) -> CaptionSettings:
    """Read `--config` for this process (`job_config`); without it all keys of `captions` have their defaults.

    Raises:
        ConfigError: the file is missing or invalid.
    """
    if config is None:
        return CaptionSettings(CaptionsSection())
    experiment = job_config(config)
    models = experiment.models
    return CaptionSettings(experiment.captions, models.vlm, models.t2i, experiment.rewards, experiment)
