"""Load a frozen vision-language model with its processor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from promptecho.cluster.attention import attention_option
from promptecho.errors import ModelError
from promptecho.models.locate import stage_model
from promptecho.models.revision import model_revision as model_revision
from promptecho.shipped import model_path
from promptecho.vlm.processor import check_model_path, load_processor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Vlm:
    """A frozen image-text-to-text model in eval mode; of an outline (`load_outline`), `model` is None.

    `context_length` counts all tokens, those of the image included; `eos_ids` are the tokens that end an answer.
    `in_step()` is a context for all passes of a model that may be sharded over several ranks (vlm/sharding.py): it
    ends on all of them together, however many passes each has run. `placed` is where a sharded model computes.
    """

    path: str
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    context_length: int
    eos_ids: tuple[int, ...]
    placed: torch.device | None = None
    in_step: Callable[[], AbstractContextManager] = nullcontext

    @property
    def device(self) -> torch.device:
        return self.placed or self.model.device

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer


def load_vlm(
    path: str | Path,
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
    attention: str = "auto",
) -> Vlm:
    """Load any Hugging Face image-text-to-text model for inference: frozen, in eval mode, on `device`.

    A local folder is looked at first; `owner/name` is otherwise left to huggingface; `shapes` is the embedded model.
    Device `auto` is the first GPU where there is one. `attention` is `compute.attention`.

    Raises:
        ModelError: the folder is missing or incomplete, the dtype is unknown, or the library can't load the model.
    """
    import transformers

    if dtype not in DTYPES:
        raise ModelError(f"{path}: unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    checked = stage_model(check_model_path(model_path(str(path), "vlm"), revision=revision), revision)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    processor = load_processor(checked, revision=revision, trust_remote_code=trust_remote_code)
    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            checked, dtype=DTYPES[dtype], revision=revision, trust_remote_code=trust_remote_code,
            **attention_option(attention),
        )  # fmt: skip
    except Exception as error:  # the library raises anything from OSError to SafetensorError; all mean the same here
        reason = " ".join(str(error).split())[:300]
        fix = "check that the folder is complete"
        if attention != "auto":
            fix += f" and that what compute.attention: {attention} needs is installed"
        raise ModelError(f"{path}: cannot load the model ({reason}); {fix}") from error
    model.requires_grad_(False)
    model.eval()
    try:
        model.to(device)  # type: ignore[arg-type]  # the library's wrapper of `to` has lost `self`
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"{path}: cannot move the model to {device} ({str(error).splitlines()[0]})") from error
    return wrap_vlm(str(path), model, processor)


def wrap_vlm(path: str, model: Any, processor: Any) -> Vlm:
    """A `Vlm` from a model that is already built (sharded, for example) and its processor."""
    from promptecho.vlm.label_pass import prepare

    prepare(model)
    eos: list[int] = []
    for ids in (model.generation_config.eos_token_id, processor.tokenizer.eos_token_id):
        eos += ids if isinstance(ids, list) else [] if ids is None else [ids]
    return Vlm(path, model, processor, _context_length(model.config), tuple(dict.fromkeys(eos)))


def load_outline(path: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Vlm:
    """A model's processor and context length, without its weights: enough to render and count texts.

    Raises:
        ModelError: the folder is missing or incomplete.
    """
    import transformers

    checked = check_model_path(model_path(str(path), "vlm"), revision=revision)
    processor = load_processor(checked, revision=revision, trust_remote_code=trust_remote_code)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(checked, **options)
    return Vlm(str(path), None, processor, _context_length(config), ())


def _context_length(config: Any) -> int:
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
