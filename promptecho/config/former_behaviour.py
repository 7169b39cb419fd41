"""Keys that came later than results that exist, and what these were made with."""

from __future__ import annotations

from typing import Any

# Keys that are younger than results that exist: dotted path (without the names of entries) and the value at which all
# is as before the key existed. At that value a key is left out of the digests, so that an upgrade reruns nothing.
FORMER_BEHAVIOUR: dict[str, Any] = {
    # Not quite as before, where images are larger or transparent: their finished captions stay all the same.
    "captions.max_pixels": 1024 * 1024,
    "captions.background": "white",
    "captions.server": None,
    "captions.shapes.world": "shapes",
    "image_sets.shapes.world": "shapes",
    "training.update_images_per_prompt": None,
    "training.height": None,
    "training.width": None,
    "training.sizes": None,
    "training.buckets": None,
    "training.size_by": "draw",
    "training.init_adapter": None,
    "training.finetuning": "lora",
    "training.lr_schedule": "constant",
    "training.lr_decay_iterations": None,
    "training.lr_floor": 0.0,
    "training.algorithm": "awm",
    "training.nft.beta": 1.0,
    "training.grpo.noise_level": 0.7,
    "training.lora.init": "kaiming",
    "training.lora.layers": "all",
    "training.timesteps.grid_first": 0,
    "training.timesteps.grid_share": 1.0,
    "training.advantage.factor": 1.0,
    "training.kl_ema.ramp": None,
    "training.ema.warmup": False,
    "training.adam_eps": 1e-8,
    "training.sampling.schedule": "pipeline",
    "image_sets.schedule": "pipeline",
    "adapters.schedule": None,
    "adapters.pad_prompts": None,
    "models.t2i.pad_prompts": "none",
    "models.t2i.frames": 1,
    "adapters.alpha": None,
    "benchmarks.parser": "tolerant",
    "benchmarks.order": "official",
    "benchmarks.questions_per_call": 1,
    "benchmarks.limit": None,
    "judges.models.request": {},
    "rewards.vlm": None,
    "rewards.echo.reduction": "mean",
    "rewards.echo.include_eos": False,
    "rewards.echo.frames": None,
}
