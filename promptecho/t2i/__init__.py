"""Text-to-image models: their families, the LoRA adapter and its file formats.

A family from outside imports its descriptor from here, and `DiffusersModel` from `promptecho.t2i.diffusers_model`; how
to write one: docs/extending.md. Nothing here imports torch.
"""

from promptecho.config.families import Family, TextEncoder

__all__ = ["Family", "TextEncoder"]
