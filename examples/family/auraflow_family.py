"""The family `auraflow`: what there is to know of AuraFlow before its code (auraflow_model.py) is imported.

Copy this folder and change it; docs/extending.md explains every line.
"""

from promptecho.t2i import Family, TextEncoder

FAMILY = Family(
    name="auraflow",
    title="AuraFlow",
    model="auraflow_model:AuraFlow",
    # A model's folder is recognised by these two, which its model_index.json names.
    pipeline_class="AuraFlowPipeline",
    transformer_class="AuraFlowTransformer2DModel",
    text_encoders=(TextEncoder(template_tokens=1, max_length=256),),
    # The blocks of two streams have all of these, those of one stream the image's alone.
    lora_attention=("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    lora_feed_forward=tuple(
        f"{stream}.{layer}" for stream in ("ff", "ff_context") for layer in ("linear_1", "linear_2", "out_projection")
    ),
    comfyui_prefix="transformer.",
    guidance_scale=3.5,
)
