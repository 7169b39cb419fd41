"""The family `sd3`: what there is to know of Stable Diffusion 3 before its code (sd3_model.py) is imported.

Copy this folder and change it; docs/extending.md explains every line.
"""

from promptecho.t2i import Family, TextEncoder

FAMILY = Family(
    name="sd3",
    title="Stable Diffusion 3",
    model="sd3_model:StableDiffusion3",
    # A model's folder is recognised by these two, which its model_index.json names.
    pipeline_class="StableDiffusion3Pipeline",
    transformer_class="SD3Transformer2DModel",
    # CLIP sees the first 77 tokens of a prompt; T5 sees the whole.
    text_encoders=(
        TextEncoder(starts_only=True, template_tokens=2, max_length=77),
        TextEncoder(part="text_encoder_2", tokenizer="tokenizer_2", starts_only=True, template_tokens=2, max_length=77),
        TextEncoder(part="text_encoder_3", tokenizer="tokenizer_3", template_tokens=1, max_length=256),
    ),
    # The image's stream, then the text's.
    lora_attention=("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    lora_feed_forward=("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    comfyui_prefix="transformer.",
    guidance_scale=7.0,
    training_guidance_scale=4.5,
)
