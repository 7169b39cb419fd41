"""Wan 2.1 and 2.2, text to video."""

from pathlib import Path

from promptecho.config.families import Family, TextEncoder

FAMILY = Family(
    name="wan",
    title="Wan",
    model="promptecho.t2i.wan.model:Wan",
    pipeline_class="WanPipeline",
    transformer_class="WanTransformer3DModel",
    text_encoders=(TextEncoder(template_tokens=1, max_length=512),),
    # Attention among the video's tokens (attn1) and to the text (attn2).
    lora_attention=("to_q", "to_k", "to_v", "to_out.0"),
    lora_feed_forward=("ffn.net.0.proj", "ffn.net.2"),
    vae_defaults={"scale_factor_temporal": 4, "scale_factor_spatial": 8},  # diffusers' AutoencoderKLWan
    height=480,
    width=832,
    frames=81,
    guidance_scale=5.0,
    sizes=(Path(__file__).with_name("sizes.json"),),
)
