"""Other families than Qwen3-VL, in their real classes with tiny random weights: scored and captioned alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_vlm import _tokenizer, build, image

from promptecho.captions.captioner import GenerationSettings, caption_images
from promptecho.errors import ModelError
from promptecho.images import load_image
from promptecho.vlm import label_log_probs, load_vlm
from promptecho.vlm.inputs import batch_inputs, label_text, render_prompt
from promptecho.vlm.sharding import find_blocks, shard_vlm

QUERY = "Describe this image in detail."
LABELS = ["A red circle.", "three green triangles and a yellow star", "x"]
# A space between generation prompt and answer, and one behind the answer, as LLaVA's own template has them.
LLAVA_TEMPLATE = (
    "{%- for message in messages -%}{{ message.role.upper() + ': ' }}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{ '<image>\n' }}{%- else -%}{{ part.text + ' ' }}{%- endif -%}{%- endfor -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"
)
# Turns between markers, the image's place being one token that the processor replaces.
TURNS = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\n' }}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{ 'IMAGE' }}{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}"
    "{{ '<|im_end|>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
VISION = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
)
TEXT = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=512,
)


def save(folder: Path, model, tokenizer) -> None:
    from transformers import GenerationConfig

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)


def llava(folder: Path) -> None:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = _tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=32,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    save(folder, LlavaForConditionalGeneration(config), tokenizer)
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    ).save_pretrained(folder)


def with_tokens(**named: str):
    """The tokenizer with special tokens that processors know by name."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer().backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
        extra_special_tokens=named,
        model_max_length=4096,
    )


def idefics3(folder: Path) -> None:
    """Cuts an image into tiles and adds the whole; SmolVLM's first generation is of this class."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, LlamaConfig
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tokenizer = _tokenizer()
    tiles = [f"<row_{i + 1}_col_{j + 1}>" for i in range(2) for j in range(2)]
    names = ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *tiles]
    tokenizer.add_special_tokens({"extra_special_tokens": names})
    config = Idefics3Config(
        vision_config=VISION,
        text_config=LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    save(folder, Idefics3ForConditionalGeneration(config), tokenizer)
    Idefics3Processor(
        Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer,
        image_seq_len=4,
        chat_template=TURNS.replace("IMAGE", "<image>"),
    ).save_pretrained(folder)


def smolvlm(folder: Path) -> None:
    """The second generation, which reads videos too."""
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    tokenizer = with_tokens(image_token="<image>")
    config = SmolVLMConfig(
        vision_config=VISION,
        text_config=LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    save(folder, SmolVLMForConditionalGeneration(config), tokenizer)
    tokenizer.save_pretrained(folder)
    SmolVLMImageProcessorPil().save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"processor_class": "SmolVLMProcessor", "image_seq_len": 4}')


def gemma3(folder: Path) -> None:
    """The tokens of an image see each other in both directions; every other layer sees a window only."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3Processor,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = with_tokens(**names)
    ids = {f"{key}_index": tokenizer.convert_tokens_to_ids(token) for key, token in names.items()}
    config = Gemma3Config(
        text_config=Gemma3TextConfig(
            vocab_size=len(tokenizer),
            head_dim=16,
            sliding_window=16,
            pad_token_id=tokenizer.pad_token_id,
            layer_types=["sliding_attention", "full_attention"],
            **TEXT,
        ),
        vision_config=SiglipVisionConfig(vision_use_head=False, **VISION),
        mm_tokens_per_image=4,
        **ids,
    )
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(config)
    with torch.no_grad():  # the class begins with zeros there, which let no image through
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(0, 0.1)
    save(folder, model, tokenizer)
    Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer,
        image_seq_length=4,
        chat_template=TURNS.replace("IMAGE", "<start_of_image>"),
    ).save_pretrained(folder)


def internvl(folder: Path) -> None:
    """Its processor class wants a video part, which needs torchvision; without it, it is loaded without that part."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Config

    tokenizer = with_tokens(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    config = InternVLConfig(
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [8, 8]},
        image_seq_length=4,
        text_config=Qwen2Config(vocab_size=len(tokenizer), **TEXT),
        downsample_ratio=0.5,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    torch.manual_seed(0)
    save(folder, InternVLForConditionalGeneration(config), tokenizer)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TURNS.replace("IMAGE", "<IMG_CONTEXT>\n"))
    (folder / "processor_config.json").write_text('{"processor_class": "InternVLProcessor", "image_seq_length": 4}')
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "GotOcr2ImageProcessorFast",
                "processor_class": "InternVLProcessor",
                "size": {"height": 32, "width": 32},
                "crop_to_patches": True,
                "min_patches": 1,
                "max_patches": 4,
            }
        )
    )


def qwen2_5_vl(folder: Path) -> None:
    """Same files as Qwen3-VL's, another model and processor class, also with a video part."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    build(folder)
    settings = folder / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("Qwen3VLProcessor", "Qwen2_5_VLProcessor"))
    tokenizer = _tokenizer()
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in [("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start")]
    }
    config = Qwen2_5_VLConfig(
        text_config=dict(vocab_size=len(tokenizer), rope_parameters=rope, **TEXT),
        vision_config=dict(
            depth=2,
            hidden_size=32,
            intermediate_size=64,
            num_heads=2,
            patch_size=4,
            window_size=16,
            out_hidden_size=32,
            fullatt_block_indexes=[1],
        ),
        **ids,
    )
    torch.manual_seed(0)
    save(folder, Qwen2_5_VLForConditionalGeneration(config), tokenizer)


@pytest.fixture(scope="module", params=[llava, qwen2_5_vl, idefics3, gemma3, internvl], ids=lambda make: make.__name__)
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
        labels[0, -len(text.label_ids) :] = torch.tensor(text.label_ids)
        assert row.mean == pytest.approx(-vlm.model(**inputs, labels=labels).loss.item(), abs=1e-5)
        assert "".join(row.tokens).strip() == label


def test_captions_do_not_depend_on_the_batch(vlm):
    settings = GenerationSettings(max_new_tokens=8, temperature=1.0)
    images, ids = [image(i) for i in range(3)], ["a", "b", "c"]
    together = caption_images(vlm, images, ids, QUERY, settings)
    assert together == [caption_images(vlm, [p], [i], QUERY, settings)[0] for p, i in zip(images, ids, strict=True)]


def test_a_shrunk_image_takes_no_more_tokens_and_fewer_where_pixels_count(vlm, tmp_path):
    image(0, (96, 72)).save(tmp_path / "large.png")
    prompt, counts = render_prompt(vlm, QUERY), []
    for most in (None, 32 * 24):
        shown = load_image(tmp_path / "large.png", max_pixels=most)
        counts.append(batch_inputs(vlm, [shown], [prompt], padding_side="left")["input_ids"].shape[1])
    by_pixels = type(vlm.model).__name__.startswith(("Qwen", "InternVL"))
    assert counts[1] <= counts[0] and (counts[1] < counts[0]) == by_pixels


def test_image_matters(vlm):
    a, b = label_log_probs(vlm, [image(0), image(1)], [LABELS[1]] * 2, QUERY, batch_size=2)
    assert (a.log_probs - b.log_probs).abs().max() > 1e-4
    assert "ASSISTANT:" in render_prompt(vlm, QUERY) or "assistant" in render_prompt(vlm, QUERY)


def test_every_layer_of_both_towers_is_a_block_of_its_own(vlm):
    layers = [list(module) for module in vlm.model.modules() if isinstance(module, torch.nn.ModuleList)]
    assert find_blocks(vlm.model) == sum(layers, []) and len(find_blocks(vlm.model)) == 4


def test_sharded_it_gives_the_same_rewards(vlm, request):
    """One rank that holds all: what FSDP2 makes of the family's modules and of its passes in turns."""
    images = [image(i, (32 + 8 * i, 40)) for i in range(3)]
    expected = label_log_probs(vlm, images, LABELS, QUERY, batch_size=2)
    own = not dist.is_initialized()
    if own:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sharded = shard_vlm(load_vlm(vlm.path), dist.group.WORLD, "cpu")
        with sharded.in_step():
            found = label_log_probs(sharded, images, LABELS, QUERY, batch_size=2)
    finally:
        if own:
            dist.destroy_process_group()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.log_probs, other.log_probs, atol=1e-5, rtol=0)


def test_what_a_family_lacks_on_this_machine_is_said_in_one_line(tmp_path):
    smolvlm(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_vlm(tmp_path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{tmp_path}: the processor needs a package that is not installed (")
    assert "Torchvision" in text or "num2words" in text
    assert text.endswith("install it, or take a model of another family (docs/families.md)")


def test_readers_without_weights_count_the_tokens_that_the_model_sees(vlm):
    from promptecho.captions.readers import vlm_readers
    from promptecho.config.rewards import VlmSection

    (reader,) = vlm_readers(VlmSection(path=vlm.path), (24, 40), [QUERY])
    for label in (LABELS[1] * 12, "É " * 300):
        whole = label_text(vlm, QUERY, label, name="a").text
        seen = batch_inputs(vlm, [image(0, (40, 24))], [whole], padding_side="right")["input_ids"].shape[1]
        reader.limit = 1  # else what fits in any case is not counted
        assert reader._counts([reader.whole(label)]) == [seen]
        reader.limit = vlm.context_length
        assert bool(reader.problems([label])) == (seen > vlm.context_length)
        cut = reader.cut(label)
        assert not reader.problems([cut]) and label.startswith(cut)
