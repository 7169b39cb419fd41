"""FLUX.2 klein."""

from pathlib import Path

from promptecho.config.families import Family, TextEncoder

FAMILY = Family(
    name="flux2",
    title="FLUX.2 klein",
    version=2,  # the single-stream blocks' `to_out` came later
    model="promptecho.t2i.flux2.model:Flux2Klein",
    pipeline_class="Flux2KleinPipeline",
    transformer_class="Flux2Transformer2DModel",
    text_encoders=(TextEncoder(template_tokens=12, max_length=512, deepest_state=27),),
    # Attention of the blocks of two streams; of the others the layer that makes queries, keys, values and the start of
    # the feed-forward layer, and `to_out`, which ends both.
    lora_attention=(
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "to_qkv_mlp_proj",
        "to_out",
    ),
    lora_feed_forward=("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
    comfyui_prefix="transformer.",
    vae_widths="block_out_channels",
    guidance_scale=4.0,
    sizes=(Path(__file__).with_name("sizes.json"),),
)  # fmt: skip
