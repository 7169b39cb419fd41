"""What a plan assumes: named, and printed with every plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptecho.config import ExperimentConfig, load_site, read_yaml
from promptecho.config.families import family_named
from promptecho.config.models import SiteModels
from promptecho.config.rewards import RewardSection

SITE = Path("config/config.yaml")
TOKENS_PER_WORD = 1.35


@dataclass(frozen=True)
class Settings:
    """Assumptions of a plan.

    `mfu`: share of the datasheet's FLOP/s that computing reaches; `transfer`: share of the datasheet's bandwidths, of
    memory and of links; `network_gb_s`: between nodes, for each GPU; `reserve_gb`: memory of each GPU that the plan
    leaves to CUDA, NCCL, kernels' workspace and fragmentation. `prompt_tokens`: of each prompt; `reply_tokens`: of a
    reply that a reward lets the VLM write, the longest of a batch (memory is planned for replies of full length).
    `prompt_cache`: embeddings of prompts are kept on disk; the text encoder is on the GPU only while one is missing.
    """

    mfu: float
    transfer: float
    network_gb_s: float
    reserve_gb: float
    prompt_tokens: int
    reply_tokens: int
    query: str
    prompt_cache: bool

    def longest_reply(self, entry: RewardSection) -> int:
        """Tokens of the longest reply that memory is planned for."""
        return entry.options.max_new_tokens

    def reply(self, entry: RewardSection) -> int:
        """Tokens of a reply that time is planned for."""
        return min(self.reply_tokens, self.longest_reply(entry))


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
