"""FLUX.1."""

from pathlib import Path

from promptecho.config.families import Family, TextEncoder

FAMILY = Family(
    name="flux",
    title="FLUX.1",
    model="promptecho.t2i.flux.model:Flux",
    pipeline_class="FluxPipeline",
    transformer_class="FluxTransformer2DModel",
    # CLIP sees the first 77 tokens of a prompt, for its pooled vector; T5 sees the whole.
    text_encoders=(
        TextEncoder(starts_only=True, template_tokens=2, max_length=77),
        TextEncoder(part="text_encoder_2", tokenizer="tokenizer_2", template_tokens=1, max_length=512),
    ),
    # Attention of both kinds of blocks; feed-forward layers of both streams, and what the single ones have first. The
    # single blocks' `proj_out` is left out: the model's last layer has a name that ends likewise.
    lora_attention=("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    lora_feed_forward=("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp"),
    lora_converted=True,
    comfyui_prefix="transformer.",
    guided_in_one_pass=True,
    vae_widths="block_out_channels",
    guidance_scale=3.5,
    sizes=(Path(__file__).with_name("sizes.json"),),
)
