"""Vision-language models: processor, teacher-forced inputs, log-probabilities of label tokens."""

from promptecho.vlm.processor import load_processor

__all__ = ["load_processor"]
