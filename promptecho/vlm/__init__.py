"""Vision-language models: loading, teacher-forced inputs, log-probabilities of label tokens."""

from promptecho.vlm.first_number import first_number_log_probs
from promptecho.vlm.log_probs import TokenLogProbs, label_log_probs
from promptecho.vlm.model import Vlm, load_vlm, model_revision, wrap_vlm
from promptecho.vlm.processor import load_processor

__all__ = [
    "TokenLogProbs",
    "Vlm",
    "first_number_log_probs",
    "label_log_probs",
    "load_processor",
    "load_vlm",
    "model_revision",
    "wrap_vlm",
]
