"""A first experiment file for models and images of one's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

from promptecho.config.families import DEFAULT, family_in, family_named
from promptecho.config.fields import NAME_PATTERN
from promptecho.config.load import load_experiment
from promptecho.errors import ConfigError
from promptecho.files import write_text

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE = TEMPLATES / "own.yaml"
SMALL = TEMPLATES / "small.yaml"  # hours on one GPU


def new_experiment(
    folder: Path, name: str, *, family: str | None, t2i: str, vlm: str, judge: str, images: str | None,
    prompts: str | None, heldout: int, template: Path = TEMPLATE,
) -> Path:  # fmt: skip
    """Write `folder/NAME.yaml` from a template and return its path.

    Raises:
        ConfigError: the name can't be one, the file exists already, there is no such family, or what was given makes
            no valid experiment.
    """
    if not re.match(NAME_PATTERN, name):
        raise ConfigError(f"{name}: a name has lower-case letters, digits, '.', '_' and '-', and begins with one of "
                          "the first two")  # fmt: skip
    path = folder / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path}: exists already; choose another name, or edit that file")
    if (images is None) == (prompts is None):
        raise ConfigError("config new: give either --images FOLDER, to be captioned, or --prompts FILE")
    of = family_named(family or family_in(t2i) or DEFAULT)
    source = ("images", images) if images is not None else ("prompts", prompts)
    watched = min(64, heldout // 4)
    values = {
        "FAMILY": of.name, "T2I": _text(t2i), "VLM": _text(vlm), "JUDGE": _text(judge),
        "HEIGHT": str(of.height), "WIDTH": str(of.width), "GUIDANCE": str(of.guidance_of_training),
        "EVALUATED_WITH": str(of.guidance_scale),
        "SOURCE": f"{source[0]}: {_text(str(source[1]))}", "HELDOUT": str(heldout), "WATCHED": str(watched),
        "JUDGED": str(heldout - watched), "NAME": name,
    }  # fmt: skip
    lines = template.read_text(encoding="utf-8").splitlines(keepends=True)
    text = "".join(["# Made by `promptecho config new`; yours to edit.\n", *lines[1:]])
    text = re.sub(r"\b(" + "|".join(values) + r")\b", lambda found: values[found[0]], text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    try:
        load_experiment(path)
    except ConfigError:
        path.unlink()  # it has been there for a moment only
        raise
    return path


def _text(value: str) -> str:
    """As YAML: in quotes where it must be."""
    return value if re.fullmatch(r"[A-Za-z0-9/._~-]*[A-Za-z/][A-Za-z0-9/._~-]*", value) else json.dumps(value)
