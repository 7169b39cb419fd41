"""Qwen-Image and Qwen-Image-2512."""

from pathlib import Path

from promptecho.config.families import Family, TextEncoder

FAMILY = Family(
    name="qwenimage",
    title="Qwen-Image",
    model="promptecho.t2i.qwenimage.model:QwenImage",
    pipeline_class="QwenImagePipeline",
    transformer_class="QwenImageTransformer2DModel",
    text_encoders=(TextEncoder(template_tokens=39, max_length=1058),),
    # Both streams of every block: attention and feed-forward layers. Modulation and embeddings stay as they are.
    lora_attention=("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    lora_feed_forward=("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    lora_converted=True,
    comfyui_prefix="diffusion_model.",
    takes=frozenset({"pad_prompts"}),
    vae_widths="dim_mult",
    guidance_scale=4.0,
    training_guidance_scale=3.5,
    sizes=(Path(__file__).with_name("sizes.json"),),
)
