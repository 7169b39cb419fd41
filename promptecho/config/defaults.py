"""Models that a backend takes where the configuration names none: ids at the hub they come from."""

from __future__ import annotations

MASK2FORMER = "facebook/mask2former-swin-small-coco-instance"
CLIP = "openai/clip-vit-large-patch14"  # the colours of what Mask2Former finds
MPLUG = "damo/mplug_visual-question-answering_coco_large_en"  # at ModelScope; newer copies are called iic/...
