"""The model that LongText-Bench's published code asks, as the hub calls it."""

from __future__ import annotations

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
