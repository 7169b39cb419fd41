"""The models that T2I-CompBench++ asks, as the hub calls them: BLIP-VQA and CLIP ViT-B/32, as published."""

from __future__ import annotations

BLIP_VQA = "Salesforce/blip-vqa-capfilt-large"  # transformers' form of model_base_vqa_capfilt_large.pth
CLIP_SCORE = "openai/clip-vit-base-patch32"
