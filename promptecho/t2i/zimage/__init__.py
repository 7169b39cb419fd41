"""Z-Image."""

from pathlib import Path

from promptecho.config.families import Family, TextEncoder

FAMILY = Family(
    name="zimage",
    title="Z-Image",
    model="promptecho.t2i.zimage.model:ZImage",
    pipeline_class="ZImagePipeline",
    transformer_class="ZImageTransformer2DModel",
    text_encoders=(TextEncoder(template_tokens=8),),
    lora_attention=("to_q", "to_k", "to_v", "to_out.0"),
    lora_feed_forward=("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    lora_converted=True,
    # Z-Image's own names for what diffusers calls to_q, to_k, to_v and to_out.0.
    lora_fused={
        "attention.qkv": (("to_q", "to_k", "to_v"), ("to.q", "to.k", "to.v")),
        "attention.out": (("to_out.0",), ("to_out_0",)),
    },
    comfyui_prefix="diffusion_model.",
    vae_widths="block_out_channels",
    positions="axes_lens",
    guidance_scale=4.0,
    training_guidance_scale=3.5,
    sizes=(Path(__file__).with_name("sizes.json"),),
)
