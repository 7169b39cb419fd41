"""The gallery's models with random weights, in the folders where a package has them, for tests before and without the
trained ones."""

from __future__ import annotations

from pathlib import Path

import torch

from promptecho.gallery.language import gallery_tokenizer
from promptecho.gallery.pictures import reading_recipe
from promptecho.shapes.models import build_text_encoder, build_transformer, build_vae, build_vlm
from promptecho.shapes.train_t2i import save_t2i
from promptecho.shapes.train_vlm import preprocessor, save_vlm
from promptecho.shipped import weights_of


def write_gallery(package: Path) -> Path:
    """Random weights of the gallery below `package`; returns the folder of both models."""
    torch.manual_seed(0)
    tokenizer, folder = gallery_tokenizer(), weights_of("gallery", package)
    folder.mkdir(parents=True)
    save_t2i(build_vae(), build_text_encoder(tokenizer), tokenizer, build_transformer(), folder / "t2i")
    merge = reading_recipe().merge
    save_vlm(build_vlm(tokenizer, merge=merge), tokenizer, folder / "vlm", preprocessor(merge))
    return folder
