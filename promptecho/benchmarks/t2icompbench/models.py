"""T2I-CompBench++'s real perception, as far as it can be had: BLIP-VQA for attributes, CLIP for actions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from promptecho.benchmarks.t2icompbench.blip_vqa import BlipVqa
from promptecho.benchmarks.t2icompbench.clip_similarity import ClipSimilarity
from promptecho.benchmarks.t2icompbench.defaults import BLIP_VQA, CLIP_SCORE
from promptecho.benchmarks.t2icompbench.measures import Measure, by_phrases, by_similarity
from promptecho.benchmarks.t2icompbench.rules import ATTRIBUTES
from promptecho.cluster.device import choose_device
from promptecho.errors import ModelError


def model_paths(model: str | None) -> tuple[str, str]:
    """BLIP-VQA and CLIP that one name means: None is the defaults; a folder holds `blip-vqa/` and `clip/`; anything
    else is BLIP-VQA's hub id, with the default CLIP.

    Raises:
        ModelError: the folder lacks one of the two.
    """
    if model is None:
        return BLIP_VQA, CLIP_SCORE
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model, CLIP_SCORE
    for name, hub_id in (("blip-vqa", BLIP_VQA), ("clip", CLIP_SCORE)):
        if not (folder / name).is_dir():
            raise ModelError(f"{folder}: no folder {name}/ in it; download {hub_id} to {folder / name}")
    return str(folder / "blip-vqa"), str(folder / "clip")


class BlipAndClip:
    """`CompbenchEye` by models.

    Raises:
        ModelError: a model is not available, is incomplete, or is not of the right kind.
    """

    def __init__(self, model: str | None = None, device: str = "auto"):
        paths, device = model_paths(model), choose_device(device)
        blip, clip = BlipVqa(paths[0], device), ClipSimilarity(paths[1], device)
        # Folders by their last part: the same weights elsewhere are the same judge, which the revision tells.
        names = [Path(path).resolve().name if Path(path).is_dir() else path for path in paths]
        self.name = f"{names[0]}@{blip.revision} + {names[1]}@{clip.revision}"
        self.measures: Mapping[str, Measure] = {
            **dict.fromkeys(ATTRIBUTES, by_phrases(blip.probabilities)),
            "non_spatial": by_similarity(clip.similarity),
        }
