"""A small experiment for tests of the preflight, and the one finding that they expect."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from promptecho.config.yaml_files import deep_merge
from promptecho.doctor.finding import Finding
from promptecho.doctor.preflight import Preflight, make_preflight
from promptecho.doctor.profile import WorkflowProfile, read_profile

EXPERIMENT: dict[str, Any] = {
    "models": {"t2i": {"path": "shapes", "dtype": "float32", "height": 64, "width": 64}, "vlm": {"path": "shapes"}},
    "captions": {"images": "data/images", "heldout": 2},
    "training": {"iterations": 2, "checkpoints": [2]},
    "runs": {"echo": {"seed": 1}},
    "image_sets": {"geneval": {"benchmark": "geneval", "shapes": {"per_tag": 1, "seed": 1}}},
    "benchmarks": {"geneval": {"image_set": "geneval", "scorer": "geneval", "backend": "oracle"}},
    "evaluate": [{"benchmark": "geneval"}],
}

Make = Callable[..., Preflight]


def write_experiment(profile: Path | None = None, **changes: Any) -> Preflight:
    """The preflight of the experiment with changed keys, which is written to the current folder."""
    Path("config/experiments").mkdir(parents=True, exist_ok=True)
    Path("config/config.yaml").write_text("experiments: [tiny]\n")
    Path("config/experiments/tiny.yaml").write_text(yaml.safe_dump(deep_merge(EXPERIMENT, changes)))
    return make_preflight(Path("config/experiments/tiny.yaml"), profile)


def draw(count: int, folder: str = "data/images") -> Path:
    """So many images, each of another size."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.new("RGB", (40 + k, 30), (k, 0, 0)).save(place / f"{k}.png")
    return place


def only(findings: Iterable[Finding], severity: str = "problem") -> Finding:
    """The one finding of a severity."""
    found = [one for one in findings if one.severity == severity]
    assert len(found) == 1, found
    assert found[0].what and (severity == "fine" or (found[0].when and found[0].fix)), found
    return found[0]


def written(folder: Path, text: str) -> WorkflowProfile:
    """A profile with such a file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(text)
    return read_profile(folder)
