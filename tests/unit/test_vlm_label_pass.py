"""The Qwen-VL family's pass over labels: the library's numbers, with nothing read back from the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from test_vlm_families import qwen2_5_vl
from tiny_vlm import build, image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from promptecho.decoded import decoded_images, decoded_pixels
from promptecho.vlm import label_log_probs, load_vlm
from promptecho.vlm.inputs import label_text, processed
from promptecho.vlm.label_pass import can_stay_on_host, during, facts_of
from promptecho.vlm.packed import packed_attention
from promptecho.vlm.patches import DevicePatches

QUERY = "Describe this image in detail."
LABELS = ["A red circle.", "three green triangles and a yellow star", "x"]
SIZES = [(32, 32), (48, 40), (24, 64)]


def qwen3_vl(folder: Path) -> None:
    build(folder)


@pytest.fixture(scope="module", params=[qwen2_5_vl, qwen3_vl], ids=lambda make: make.__name__)
def vlm(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family") / request.param.__name__
    request.param(folder)
    return load_vlm(folder)


def prepared(vlm):
    """Facts and inputs of one pass over all labels."""
    texts = [label_text(vlm, QUERY, label, name="p") for label in LABELS]
    batch = processed(
        vlm, [image(i, size) for i, size in enumerate(SIZES)], [t.text for t in texts], padding_side="right"
    )
    length = batch["input_ids"].shape[1]
    ends = batch["attention_mask"].sum(1).tolist()
    rows = torch.cat(
        [
            torch.arange(i * length + end - len(text.label_ids) - 1, i * length + end - 1)
            for i, (end, text) in enumerate(zip(ends, texts, strict=True))
        ]
    )
    return batch, rows, batch["input_ids"].flatten()[rows + 1]


def test_equals_the_librarys_own_pass_with_logits_of_all_positions(vlm):
    assert can_stay_on_host(vlm.model)
    images = [image(i, size) for i, size in enumerate(SIZES)]
    for row, label, picture in zip(
        label_log_probs(vlm, images, LABELS, QUERY, batch_size=1), LABELS, images, strict=True
    ):
        text = label_text(vlm, QUERY, label, name="p")
        inputs = processed(vlm, [picture], [text.text], padding_side="right")
        with torch.no_grad(), during(vlm.model, None):
            logits = vlm.model(**inputs, use_cache=False).logits[0].log_softmax(-1)
        targets = torch.tensor(text.label_ids)
        expected = logits[-len(targets) - 1 : -1].gather(1, targets[:, None])[:, 0]
        torch.testing.assert_close(row.log_probs, expected, atol=1e-6, rtol=1e-6)


def test_reads_nothing_back_from_the_device(vlm):
    """Tensors of the meta device have no values: reading one, or a shape that depends on one, is an error there."""
    batch, rows, targets = prepared(vlm)
    meta = load_vlm(vlm.path)
    meta.model.to("meta")
    device = torch.device("meta")
    facts, inputs = facts_of(meta.model, batch, rows, targets, device)
    inputs["pixel_values"] = inputs["pixel_values"].to(device)
    with torch.no_grad():
        with during(meta.model, facts):
            found = meta.model(**inputs, use_cache=False).logits
        assert found.device == device and found.shape == targets.shape
        on_device = {key: value.to(device) for key, value in batch.items()}
        with pytest.raises((RuntimeError, NotImplementedError)):  # as the library does it
            meta.model(**on_device, use_cache=False)


def test_logits_are_there_for_some_rows_at_a_time(vlm, monkeypatch):
    whole = label_log_probs(vlm, [image(0)], [LABELS[1]], QUERY, batch_size=1)
    monkeypatch.setattr("promptecho.vlm.label_pass.ROWS", 3)
    sizes: list[int] = []
    weight = vlm.model.lm_head.weight

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.nn.functional.linear and args[1] is weight:
                sizes.append(args[0].shape[0])
            return function(*args, **(kwargs or {}))

    with Seen():
        parts = label_log_probs(vlm, [image(0)], [LABELS[1]], QUERY, batch_size=1)
    assert max(sizes) == 3 and sum(sizes) == len(whole[0].log_probs) > 3
    torch.testing.assert_close(parts[0].log_probs, whole[0].log_probs, atol=1e-6, rtol=0)


def test_places_of_an_image_are_counted_before_the_pass(vlm):
    batch, rows, targets = prepared(vlm)
    batch["image_grid_thw"][0, 1] *= 2
    with pytest.raises(ValueError, match="places for images"):
        facts_of(vlm.model, batch, rows, targets, torch.device("cpu"))


@pytest.mark.parametrize("factor", [1 / 255, 0.1], ids=["eight_bits", "other_factor"])
@pytest.mark.parametrize(
    "size", [(64, 64), (96, 32), (70, 50), (20, 20), (200, 200)], ids=lambda size: f"{size[0]}x{size[1]}"
)
def test_patches_equal_the_processors_to_the_last_bit(size, factor):
    """Of one size with the patches' grid and of others, which are resized."""
    options = {
        "patch_size": 8, "merge_size": 2, "size": {"shortest_edge": 1024, "longest_edge": 16384},
        "image_mean": [0.48, 0.45, 0.4], "image_std": [0.26, 0.27, 0.28], "rescale_factor": factor,
    }  # fmt: skip
    images = [image(0, size), image(1, (size[1], size[0]))]
    expected = Qwen2VLImageProcessorPil(**options)(images=images, return_tensors="pt")
    found = DevicePatches(**options)(images=images, return_tensors="pt", device="cpu")
    assert torch.equal(found["pixel_values"], expected["pixel_values"])
    assert torch.equal(found["image_grid_thw"], expected["image_grid_thw"])
    again = DevicePatches(**options)(images=images, return_tensors="pt")
    assert torch.equal(again["pixel_values"], expected["pixel_values"])


def test_a_decoded_image_is_rounded_as_its_png_and_its_patches_come_from_its_tensor(tmp_path, monkeypatch):
    from diffusers.image_processor import VaeImageProcessor

    raw = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    raw[0, :, :4] = (torch.arange(256).view(4, 64) + 0.5) / 127.5 - 1  # between two of 8 bits
    processor = VaeImageProcessor()
    expected = processor.postprocess(raw, output_type="pil")
    found = decoded_images(processor.postprocess(raw, output_type="pt"))
    for one, other in zip(found, expected, strict=True):
        assert one.tobytes() == other.tobytes()
        one.save(tmp_path / "image.png")
        saved = np.asarray(Image.open(tmp_path / "image.png"))
        assert torch.equal(decoded_pixels(one).permute(1, 2, 0), torch.from_numpy(saved.copy()))
    options = {"patch_size": 8, "size": {"shortest_edge": 1024, "longest_edge": 16384}}
    patches = Qwen2VLImageProcessorPil(**options)(images=expected, return_tensors="pt")["pixel_values"]
    monkeypatch.setattr(Image.Image, "tobytes", None)  # pixels of the picture itself are not looked at
    assert torch.equal(
        DevicePatches(**options)(images=found, return_tensors="pt", device="cpu")["pixel_values"], patches
    )


def test_a_decoded_image_that_has_to_be_resized_is_read_where_it_is_already(monkeypatch):
    found = decoded_images(torch.rand(1, 3, 70, 50, generator=torch.Generator().manual_seed(0)))
    options = {"patch_size": 8, "size": {"shortest_edge": 1024, "longest_edge": 16384}}
    expected = Qwen2VLImageProcessorPil(**options)(images=[found[0].copy()], return_tensors="pt")["pixel_values"]
    monkeypatch.setattr(torch.Tensor, "cpu", None)  # nothing is copied back from the device
    own = DevicePatches(**options)(images=found, return_tensors="pt", device="cpu")["pixel_values"]
    assert torch.equal(own, expected)


def test_a_picture_that_was_changed_or_copied_no_longer_knows_its_tensor():
    (one,) = decoded_images(torch.rand(1, 3, 16, 16))
    assert decoded_pixels(one) is not None and decoded_pixels(image(0)) is None
    for other in (one.copy(), one.resize((8, 8)), one.crop((0, 0, 8, 8)), one.convert("L").convert("RGB")):
        assert decoded_pixels(other) is None
    ImageDraw.Draw(one).line((0, 0, 15, 15), fill="red")
    assert decoded_pixels(one) is None
    (one,) = decoded_images(torch.rand(1, 3, 16, 16))
    one.putpixel((0, 0), (1, 2, 3))
    assert decoded_pixels(one) is None and one.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("lengths", [[4], [4, 4, 4], [4, 2, 4, 4, 2, 1], [1, 2, 3]], ids=str)
def test_packed_attention_stays_within_its_stretches(lengths):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, sum(lengths), 8, generator=generator) for _ in range(3))
    ends = torch.tensor([0, *lengths]).cumsum(0)
    found, _ = packed_attention(None, query, key, value, cu_seq_lens_q=ends, scaling=0.3)
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    expected = [torch.nn.functional.scaled_dot_product_attention(*part, scale=0.3) for part in parts]
    assert torch.equal(found, torch.cat(expected, dim=2).transpose(1, 2))
