"""All that `promptecho` commands with models import, so that forks of one process share it; nothing computes here."""

from __future__ import annotations

import gc

import setuptools  # noqa: F401  (asked for by DeepSpeed while it begins)
import transformers.models.qwen2.tokenization_qwen2
import transformers.models.qwen2_vl.image_processing_pil_qwen2_vl
import transformers.models.qwen3_vl.processing_qwen3_vl  # noqa: F401

import promptecho.captions.shard
import promptecho.config.load
import promptecho.generate
import promptecho.rewards.echo.reward
import promptecho.rewards.inferscore.reward
import promptecho.t2i.qwenimage.model
import promptecho.t2i.zimage.model
import promptecho.train.loop
import promptecho.vlm  # noqa: F401
from promptecho.cli import app  # noqa: F401  (all commands)
from promptecho.train.engine import import_deepspeed

import_deepspeed()
gc.collect()
gc.freeze()  # a collection in a fork would write to, and so copy, every page
