"""What GenEval's perception takes from the hub unless it is told otherwise."""

from __future__ import annotations

DEFAULT_MODEL = "facebook/mask2former-swin-small-coco-instance"
DEFAULT_CLIP = "openai/clip-vit-large-patch14"
