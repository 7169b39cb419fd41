"""Load what T2I-CompBench++ asks: frozen models with their tokenizers, complete or not at all, in float32.

How GenEval loads its models serves here, too; raise `BENCHMARK.version` where a change there changes scores.
"""

from __future__ import annotations

from typing import Any

from promptecho.benchmarks.geneval.weights import WHERE as WHERE_GENEVAL
from promptecho.benchmarks.geneval.weights import load_frozen, one_line
from promptecho.errors import ModelError
from promptecho.models.locate import stage_model
from promptecho.vlm.processor import check_model_path

WHERE = "without internet, download it to a folder that holds blip-vqa/ and clip/, and name that folder as the model"


def load_with_tokenizer(family: Any, tokenizer_family: Any, path: str, what: str, device: str) -> tuple[Any, Any]:
    """The model and tokenizer at `path`, a folder or hub id.

    Raises:
        ModelError: model or tokenizer is not available or is incomplete.
    """
    checked = stage_model(check_model_path(path, what))
    try:
        model = load_frozen(family, checked, what, device)
    except ModelError as error:
        raise ModelError(str(error).replace(WHERE_GENEVAL, WHERE)) from error
    try:
        return model, tokenizer_family.from_pretrained(checked)
    except Exception as error:  # as in load_frozen
        raise ModelError(f"{path}: cannot load the tokenizer ({one_line(error)}); {WHERE}") from error
