"""A whole tiny experiment on disk: both models, captions and an experiment file; and its commands."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import tiny_t2i
import tiny_vlm
import yaml

PROMPTS = [
    "A red circle.", "Three blue squares.", "The image shows a green ring.", "There is a star above a cross.",
    "Two yellow triangles.", "A purple star and a black cross.",
]  # fmt: skip
TRAINING = {
    "iterations": 8,
    "checkpoints": [2, 8],
    "prompts_per_iteration": 2,
    "images_per_prompt": 4,
    "batch_size": 4,
    "passes": 2,
    "micro_batch_size": 2,
    "learning_rate": 5.0e-3,
    "lora": {"rank": 4, "alpha": 8},
    "sampling": {"num_inference_steps": 3, "guidance_scale": 1.0, "batch_size": 4},
    "timesteps": {"per_sample": 2},
    "kl_base": {"weight": 0.1},
    "ema": {"decay": 0.5},
    "save_every_s": 0,
}


class Experiment:
    """Files of one experiment under `folder`."""

    def __init__(self, folder: Path, *, t2i: Path | None = None, vlm: Path | None = None):
        from promptecho.captions.merge import MergeSpec, import_prompts

        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.t2i, self.vlm = t2i or tiny_t2i.shared_folder(), vlm or tiny_vlm.shared_folder()
        (folder / "prompts.txt").write_text("\n".join(PROMPTS))
        self.captions = folder / "captions.h5"
        import_prompts(
            folder / "prompts.txt",
            MergeSpec(
                out=self.captions, heldout_out=folder / "heldout.jsonl", heldout=0, max_words=200, max_tokens=512,
                tokenizer=None, tokenizer_revision=None, max_rejected_share=0.0, seed=0,
            ),
        )  # fmt: skip

    def config(self, name: str = "exp", *, sections: dict[str, Any] | None = None, **training: Any) -> Path:
        """Write an experiment file with the one run `r`; keyword arguments go over TRAINING, one level deep."""
        merged = copy.deepcopy(TRAINING)
        for key, value in training.items():
            merged[key] = {**merged[key], **value} if isinstance(merged.get(key), dict) else value
        models = {
            "t2i": {"family": "zimage", "path": str(self.t2i), "dtype": "float32", "height": 32, "width": 32},
            "vlm": {"path": str(self.vlm), "dtype": "float32"},
        }
        content = {
            "models": models,
            "captions": {"prompts": str(self.folder / "prompts.txt"), "heldout": 0},
            "training": {key: value for key, value in merged.items() if value is not None},
            "runs": {"r": {"seed": 1}},
            **(sections or {}),
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def segment(self, name: str, config: Path, to: int, **options: Any):
        """The `Segment` that trains run `r` of `config` into `folder/name/to`, for tests in this process."""
        from promptecho.config import load_experiment
        from promptecho.train.trainer import Segment

        options = {"run": "r", "captions": self.captions, **options}
        folder = self.folder / name
        return Segment(
            config=load_experiment(config), to=to, out=folder / str(to), work=folder / "work" / str(to), **options
        )

    def train(self, config: Path, to: int, name: str, *more: Any, run: str = "r") -> list[str]:
        """Arguments of `promptecho train` into `folder/name/to`."""
        return [
            "train", "--config", str(config), "--run", run, "--to", str(to), "--captions", str(self.captions),
            "--out", str(self.folder / name / str(to)), "--work", str(self.folder / name / "work" / str(to)),
            "--threads", "1", *map(str, more),
        ]  # fmt: skip


def metrics_without_times(folder: Path) -> list[dict]:
    from promptecho.files import read_jsonl

    rows = read_jsonl(folder / "metrics.jsonl")
    measured = ("seconds", "images_per_s", "memory_gb")
    return [{k: v for k, v in row.items() if not k.startswith(measured)} for row in rows]


def same_bytes(a: Path, b: Path) -> list[str]:
    """Names of weights in which two checkpoint folders differ."""
    names = [f"adapter/{name}" for name in ("adapter_model.safetensors", "adapter_config.json")]
    names += [f"adapter/{name}.safetensors" for name in ("pytorch_lora_weights", "comfyui_lora")]
    names += [f"state/{name}.safetensors" for name in ("weights", "exp_avg", "exp_avg_sq", "kl_ema", "ema")]
    return [name for name in names if (a / name).read_bytes() != (b / name).read_bytes()]
