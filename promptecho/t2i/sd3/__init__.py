"""Stable Diffusion 3.5."""

from pathlib import Path

from promptecho.config.families import Family, TextEncoder

FAMILY = Family(
    name="sd3",
    title="Stable Diffusion 3.5",
    model="promptecho.t2i.sd3.model:StableDiffusion3",
    pipeline_class="StableDiffusion3Pipeline",
    transformer_class="SD3Transformer2DModel",
    # Both CLIPs see the first 77 tokens of a prompt; T5 sees the whole.
    text_encoders=(
        TextEncoder(starts_only=True, template_tokens=2, max_length=77),
        TextEncoder(part="text_encoder_2", tokenizer="tokenizer_2", starts_only=True, template_tokens=2, max_length=77),
        TextEncoder(part="text_encoder_3", tokenizer="tokenizer_3", template_tokens=1, max_length=256),
    ),
    # Of both streams, and of the image's second attention that the medium model has; then their feed-forward layers.
    lora_attention=("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    lora_feed_forward=("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    comfyui_prefix="transformer.",
    vae_widths="block_out_channels",
    positions="pos_embed_max_size",
    guidance_scale=4.5,
    sizes=(Path(__file__).with_name("sizes.json"),),
)
