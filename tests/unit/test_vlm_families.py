"""Other families than Qwen3-VL, in their real classes with tiny random weights: scored and captioned alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_vlm import _tokenizer, build, image

from promptecho.captions.captioner import GenerationSettings, caption_images
from promptecho.vlm import label_log_probs, load_vlm
from promptecho.vlm.inputs import batch_inputs, label_text, render_prompt

QUERY = "Describe this image in detail."
LABELS = ["A red circle.", "three green triangles and a yellow star", "x"]
# A space between generation prompt and answer, and one behind the answer, as LLaVA's own template has them.
LLAVA_TEMPLATE = (
    "{%- for message in messages -%}{{ message.role.upper() + ': ' }}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{ '<image>\n' }}{%- else -%}{{ part.text + ' ' }}{%- endif -%}{%- endfor -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"
)
TEXT = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            max_position_embeddings=512)


def save(folder: Path, model, tokenizer) -> None:
    from transformers import GenerationConfig

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)


def llava(folder: Path) -> None:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = _tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                              image_size=32, patch_size=8, projection_dim=32)
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(vocab_size=len(tokenizer), **TEXT),
                         image_token_id=tokenizer.convert_tokens_to_ids("<image>"))
    torch.manual_seed(0)
    save(folder, LlavaForConditionalGeneration(config), tokenizer)
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32), tokenizer, patch_size=8,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=LLAVA_TEMPLATE,
    ).save_pretrained(folder)


def qwen2_5_vl(folder: Path) -> None:
    """Same files as Qwen3-VL's, another model and processor class, also with a video part."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    build(folder)
    settings = folder / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("Qwen3VLProcessor", "Qwen2_5_VLProcessor"))
    tokenizer = _tokenizer()
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in
           [("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start")]}
    config = Qwen2_5_VLConfig(
        text_config=dict(vocab_size=len(tokenizer), rope_parameters=rope, **TEXT),
        vision_config=dict(depth=2, hidden_size=32, intermediate_size=64, num_heads=2, patch_size=4, window_size=16,
                           out_hidden_size=32, fullatt_block_indexes=[1]),
        **ids,
    )
    torch.manual_seed(0)
    save(folder, Qwen2_5_VLForConditionalGeneration(config), tokenizer)


@pytest.fixture(scope="module", params=[llava, qwen2_5_vl], ids=lambda make: make.__name__)
def vlm(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family") / request.param.__name__
    request.param(folder)
    return load_vlm(folder)


def test_equals_the_loss_and_does_not_depend_on_the_batch(vlm):
    images = [image(i, (32 + 8 * i, 40)) for i in range(3)]
    together = label_log_probs(vlm, images, LABELS, QUERY, batch_size=3)
    for picture, label, row in zip(images, LABELS, together, strict=True):
        [alone] = label_log_probs(vlm, [picture], [label], QUERY, batch_size=1)
        torch.testing.assert_close(row.log_probs, alone.log_probs, atol=1e-5, rtol=0)
        text = label_text(vlm, QUERY, label, name="p")
        inputs = batch_inputs(vlm, [picture], [text.text], padding_side="right")
        labels = torch.full_like(inputs["input_ids"], -100)
        labels[0, -len(text.label_ids):] = torch.tensor(text.label_ids)
        assert row.mean == pytest.approx(-vlm.model(**inputs, labels=labels).loss.item(), abs=1e-5)
        assert "".join(row.tokens).strip() == label


def test_captions_do_not_depend_on_the_batch(vlm):
    settings = GenerationSettings(max_new_tokens=8, temperature=1.0)
    images, ids = [image(i) for i in range(3)], ["a", "b", "c"]
    together = caption_images(vlm, images, ids, QUERY, settings)
    assert together == [caption_images(vlm, [p], [i], QUERY, settings)[0] for p, i in zip(images, ids, strict=True)]


def test_image_matters(vlm):
    a, b = label_log_probs(vlm, [image(0), image(1)], [LABELS[1]] * 2, QUERY, batch_size=2)
    assert (a.log_probs - b.log_probs).abs().max() > 1e-4
    assert "ASSISTANT:" in render_prompt(vlm, QUERY) or "assistant" in render_prompt(vlm, QUERY)
