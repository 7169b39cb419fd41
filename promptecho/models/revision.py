"""What identifies a model's weights. Nothing here imports torch, unless the hub has to be asked."""

from __future__ import annotations

from pathlib import Path

from promptecho.errors import ModelError
from promptecho.files import digest, fingerprint
from promptecho.models.locate import check_model_path
from promptecho.shipped import model_path


def model_revision(path: str | Path, revision: str | None = None) -> str:
    """What identifies the weights: the revision asked for, the hub's commit, or for a folder a hash of its config
    and safetensors files.

    Deviation: weight files above 1 GiB count with name, size, and first and last MiB instead of a whole read of
    tens of gigabytes by each of many jobs.
    """
    folder = Path(check_model_path(model_path(str(path), "vlm"), revision=revision))
    if not folder.is_dir():
        if revision is not None:
            return revision
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(str(path))
        except Exception as error:  # hub clients raise many types; all mean that the model is not available
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{path}: no such folder, and not to be had as a hub id ({reason})") from error
        return getattr(config, "_commit_hash", None) or "main"
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return "files-" + digest([[file.name, fingerprint(file)] for file in files])
