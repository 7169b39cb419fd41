"""What a plan assumes: named, and printed with every plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from promptecho.config import ExperimentConfig, load_site, read_yaml
from promptecho.config.families import family_named
from promptecho.config.models import SiteModels
from promptecho.config.rewards import RewardSection
from promptecho.errors import ConfigError, DataError
from promptecho.files import read_json
from promptecho.phases import MEASURED, PART_OF, Phase

SITE = Path("config/config.yaml")
TOKENS_PER_WORD = 1.35
ASSUMED_MFU = 0.3  # of phases that no measurement tells


@dataclass(frozen=True)
class Settings:
    """Assumptions of a plan.

    `mfu`: share of the datasheet's FLOP/s that computing reaches (`measured`: in a phase); `transfer`: share of the
    datasheet's bandwidths, of memory and of links; `network_gb_s`: between nodes, for each GPU; `reserve_gb`: memory of
    each GPU that the plan leaves to CUDA, NCCL, kernels' workspace and fragmentation. `prompt_tokens`: of each prompt;
    `reply_tokens`: of a reply that a reward lets the VLM write, the longest of a batch (memory is planned for replies
    of full length). `prompt_cache`: embeddings of prompts are kept on disk; the text encoder is on the GPU only while
    one is missing.
    """

    mfu: float
    transfer: float
    network_gb_s: float
    reserve_gb: float
    prompt_tokens: int
    reply_tokens: int
    query: str
    prompt_cache: bool
    measured: Mapping[str, float] = field(default_factory=dict)  # in place of `mfu`, by phase: `promptecho bench`

    def share(self, phase: Phase) -> float:
        """Of the datasheet's FLOP/s in a phase, what activation checkpointing computes again included."""
        return self.measured.get(PART_OF.get(phase, phase), self.mfu)

    def longest_reply(self, entry: RewardSection) -> int:
        """Tokens of the longest reply that memory is planned for."""
        return entry.options.max_new_tokens

    def reply(self, entry: RewardSection) -> int:
        """Tokens of a reply that time is planned for."""
        return min(self.reply_tokens, self.longest_reply(entry))


def read_mfu(given: str, gpu: str) -> tuple[float, dict[str, float]]:
    """What `--mfu` says: a share for all phases, or the file of `promptecho bench`, which has one for each.

    Returns:
        The share of phases that the file does not tell, and those that it tells.

    Raises:
        ConfigError: neither a share nor such a file, or one that was measured on another GPU than `gpu`.
    """
    try:
        share = float(given)
    except ValueError:
        return ASSUMED_MFU, _measured(Path(given), gpu)
    if not 0.01 <= share <= 1:
        raise ConfigError(f"--mfu {given}: a share lies between 0.01 and 1")
    return share, {}


def _measured(path: Path, gpu: str) -> dict[str, float]:
    try:
        facts = read_json(path)
    except DataError as error:
        raise ConfigError(f"--mfu {path}: neither a share nor a file of `promptecho bench`: {error}") from None
    shares = facts.get("hfu") if isinstance(facts, dict) else None
    if not isinstance(shares, dict) or not shares:
        raise ConfigError(
            f"--mfu {path}: has no shares (hfu): the step `iteration` of `promptecho bench` writes them, on a GPU "
            "whose datasheet is known; give a share instead, such as 0.3"
        )
    for name, share in shares.items():
        if name not in MEASURED or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ConfigError(f"--mfu {path}: hfu.{name}: {share}: no share of a phase between 0 and 1")
    if facts.get("gpu") != gpu.lower():
        raise ConfigError(f"--mfu {path}: measured on {facts.get('gpu')}, not on {gpu}; give --gpu {facts.get('gpu')}")
    return dict(shares)


def caches_prompts(file: Path) -> bool:
    """Whether jobs of a configuration keep embeddings of prompts: as a resolved one says, or else as the site does."""
    raw = read_yaml(file)
    if "models_prompt_cache" in raw:
        return bool(raw["models_prompt_cache"])
    site = load_site(read_yaml(SITE)).models if SITE.is_file() else SiteModels()
    return site.prompt_cache is not None


def usual_prompt_tokens(config: ExperimentConfig) -> int:
    """Tokens of a prompt where nobody says: captions are cut to `max_words`, and most are longer than that; and to what
    the text encoder takes."""
    captions, reader = config.captions, family_named(config.models.t2i.family).reader
    limits = [captions.max_tokens, round(TOKENS_PER_WORD * captions.max_words)]
    limits.append(reader.max_length - reader.template_tokens)
    if captions.prompts is None:
        limits.append(captions.max_new_tokens)
    return min(limits)
