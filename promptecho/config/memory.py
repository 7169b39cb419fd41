"""Which keys lower the memory of which phase: only those that are not at their best already.

Unless it is said otherwise, the keys change no result, so a run goes on from its state with them.
"""

from __future__ import annotations

from promptecho.config.judge_kinds import judge_kind
from promptecho.config.load import needs_vlm, run_rewards, run_training, run_vlms
from promptecho.config.models import ExperimentConfig
from promptecho.config.rewards import VlmSection
from promptecho.phases import Phase

ANEW = "(other results: begins anew)"
CACHE = "set models.prompt_cache of the site's file to a folder"  # the text encoder then leaves the GPU


def training_keys(config: ExperimentConfig, run: str, processes: int, phase: str, device: str) -> list[str]:
    """What lowers a phase of `promptecho train` on one of so many processes: phrases such as "lower KEY (8)".

    Args:
        phase: one of promptecho/phases.py.
    """
    training = run_training(config, run)
    t2i, mode = config.models.t2i, training.reward_placement.mode
    has_vlm = needs_vlm(config, run)
    found = []
    if phase == Phase.SAMPLE:
        found += _lower("training.sampling.batch_size", training.sampling.batch_size)
    if phase == Phase.DECODE:
        found += _decoding(config, "training.sampling.batch_size", training.sampling.batch_size)
    if phase == Phase.REWARD:
        section = "training.rewards" if training.rewards else "rewards"
        for index, entry in enumerate(run_rewards(config, run)):
            found += _lower(f"{section}.{index}.batch_size", entry.batch_size)
        if mode == "dedicated":
            found.append(f"raise training.reward_placement.per_node ({training.reward_placement.per_node})")
        several = training.reward_placement.per_node > 1 if mode == "dedicated" else processes > 1
        shared = mode == "offloaded" or (several and mode != "replicated")
        if shared and has_vlm and training.reward_placement.gather == "phase":
            found.append("set training.reward_placement.gather: layer")
    if phase == Phase.UPDATE:
        if training.activation_checkpointing != "full":
            found.append("set training.activation_checkpointing: full")
        if not training.per_timestep and training.timesteps.per_sample > 1:
            found.append(f"set training.per_timestep: true {ANEW}")
    if phase in (Phase.UPDATE, Phase.PRECOMPUTE):
        found += _lower("training.micro_batch_size", training.micro_batch_size)
    # What lies there beside it.
    whole = mode == "replicated" or (mode == "colocated" and processes == 1)  # else nothing is scored while sampling
    if phase in (Phase.SAMPLE, Phase.DECODE) and device != "cpu" and whole and config.compute.overlap != "off":
        found.append("set compute.overlap: off")
    if has_vlm and phase != Phase.LOAD_T2I:
        if device != "cpu" and mode in ("colocated", "replicated"):
            found.append("set training.reward_placement.mode: offloaded")
        elif device == "cpu" and mode == "replicated" and processes > 1:
            found.append("set training.reward_placement.mode: colocated")
    own_process = mode == "dedicated" and phase in (Phase.REWARD, Phase.LOAD_VLM)
    if _keeps_encoder(config, phase, device) and not own_process:
        found.append(CACHE)
    may_shard = training.zero_stage < 3 and not training.has_several_sizes
    if may_shard and processes > 1 and device != "cpu" and not own_process:
        found.append("set training.zero_stage: 3")
    if phase in (Phase.REWARD, Phase.LOAD_VLM):
        for key, vlm in run_vlms(config, run).items():
            found += _bfloat16(key.replace(f"runs.{run}.", "training."), vlm.dtype)
    else:
        full = training.finetuning == "full"  # which needs float32
        found += [f"set training.finetuning: lora {ANEW}"] if full else _bfloat16("models.t2i", t2i.dtype)
    return found


def generation_keys(config: ExperimentConfig, image_set: str, phase: str, device: str) -> list[str]:
    """... of `promptecho generate`: load_t2i, encode, sample, decode, save."""
    key, size = f"image_sets.{image_set}.batch_size", config.image_sets[image_set].batch_size
    found = []
    if phase in (Phase.SAMPLE, Phase.SAVE):
        found += _lower(key, size)
    if phase == Phase.DECODE:
        found += _decoding(config, key, size)
    if _keeps_encoder(config, phase, device):
        found.append(CACHE)
    return found + _bfloat16("models.t2i", config.models.t2i.dtype)


def caption_keys(vlm: VlmSection | None, batch_size: int, dtype: str, phase: str, device: str) -> list[str]:
    """... of `promptecho caption shard`: load_vlm, caption. `vlm` None: all comes from the command line."""
    found = _lower("captions.batch_size" if vlm else "--batch-size", batch_size) if phase == "caption" else []
    return found + (_bfloat16("models.vlm", dtype) if vlm else _dtype_option(dtype))


def reward_keys(batch_size: int, dtype: str, phase: str, device: str) -> list[str]:
    """... of `promptecho reward`: load_vlm, reward."""
    return (_lower("--batch-size", batch_size) if phase == Phase.REWARD else []) + _dtype_option(dtype)


def score_keys(config: ExperimentConfig | None, judge: str | None, phase: str, device: str) -> list[str]:
    """... of `promptecho score` and `judge`, whose models look at one image (or question) at a time.

    Args:
        judge: key of `judges.models` where one of this process answers.
    """
    found = []
    if config is not None and judge is not None and judge_kind(config.judges.models[judge].kind).in_process:
        key, section = f"judges.models.{judge}", config.judges.models[judge]
        found += [f"lower {key}.max_output_tokens ({section.max_output_tokens})", *_bfloat16(key, section.dtype)]
    return [*found, *([] if device == "cpu" else ["end other processes on it", "use --device cpu"])]


def _keeps_encoder(config: ExperimentConfig, phase: str, device: str) -> bool:
    """Whether the text encoder is on the GPU without being needed there."""
    return device != "cpu" and config.models_prompt_cache is None and phase != Phase.ENCODE


def _decoding(config: ExperimentConfig, key: str, size: int) -> list[str]:
    t2i = config.models.t2i
    found = []
    if size > 1 and not t2i.vae_slicing:
        found.append("set models.t2i.vae_slicing: true")
    if not t2i.vae_tiling:
        found.append(f"set models.t2i.vae_tiling: true {ANEW}")
    return found or _lower(key, size)


def _lower(key: str, value: int) -> list[str]:
    return [f"lower {key} ({value})"] if value > 1 else []


def _bfloat16(key: str, dtype: str) -> list[str]:
    return [f"set {key}.dtype: bfloat16 {ANEW}"] if dtype == "float32" else []


def _dtype_option(dtype: str) -> list[str]:
    return ["give --dtype bfloat16"] if dtype == "float32" else []
