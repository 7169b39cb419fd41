"""Qwen-Image-Edit-2509 and 2511: Qwen-Image's transformer, which sees an image beside the instruction."""

from dataclasses import replace

from promptecho.config.families import TextEncoder
from promptecho.t2i.qwenimage import FAMILY as QWENIMAGE

FAMILY = replace(
    QWENIMAGE,
    name="qwenimage_edit",
    title="Qwen-Image-Edit",
    model="promptecho.t2i.qwenimage_edit.model:QwenImageEdit",
    pipeline_class="QwenImageEditPlusPipeline",
    text_encoders=(TextEncoder(template_tokens=340, max_length=1088),),  # those of the picture among them
    source_image=True,
    takes=frozenset(),
    sizes=(),
)
