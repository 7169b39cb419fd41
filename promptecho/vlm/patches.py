"""Patches of images for the Qwen-VL family, made where the model computes and equal to the library's to the last bit.

The library rescales and normalises each pixel on the CPU, in numpy, and copies what comes of it to the device: 25 MB
for an image of 1024 pixels, against 3 MB of the image itself. But a pixel has only 256 values in each of its channels.
So the library's own code says once what becomes of each of them, and patches are made of 8-bit pixels by looking them
up: no other arithmetic whose rounding could differ between devices. Images that have to be resized are resized by the
library first, on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from promptecho.cluster.device import on_device
from promptecho.decoded import decoded_pixels

LEVELS = 256


class DevicePatches(Qwen2VLImageProcessorPil):
    """The library's image processor, whose `pixel_values` are made on the device that a call names (`device=`)."""

    makes_patches_on_devices = True

    def process_image(self, image: Any, *arguments: Any, **options: Any) -> Any:
        """uint8 [C, H, W]: a tensor on the device where the image was decoded there, else an array. One that has to be
        resized is an array in any case: a picture is on the host already."""
        pixels = decoded_pixels(image)
        if pixels is None or not self._keeps_size(pixels, vars(self)):
            return super().process_image(image, *arguments, **options)
        return pixels

    def _preprocess(self, images: list[Any], *, device: Any = None, **settings: Any) -> BatchFeature:  # type: ignore[override]
        if device is None or settings["return_tensors"] != "pt":
            return super()._preprocess([_array(image) for image in images], **settings)
        images = [self._resized(image, settings) for image in images]
        if any(image.dtype not in (np.uint8, torch.uint8) or len(image) != 3 for image in images):
            return super()._preprocess([_array(image) for image in images], **settings)
        patch, merge, times = (settings[key] for key in ("patch_size", "merge_size", "temporal_patch_size"))
        device = torch.device(device)
        levels = on_device(torch.from_numpy(self._levels(settings)), device)
        parts = [patches(on_device(torch.as_tensor(image), device), levels, patch, merge, times) for image in images]
        grids = [[1, image.shape[1] // patch, image.shape[2] // patch] for image in images]
        return BatchFeature({"pixel_values": torch.cat(parts), "image_grid_thw": torch.tensor(grids)})

    def _resized(self, image: Any, settings: dict[str, Any]) -> Any:
        if self._keeps_size(image, settings):
            return image
        factor = settings["patch_size"] * settings["merge_size"]
        return self.resize(_array(image), size=settings["size"], resample=settings["resample"], factor=factor)

    def _keeps_size(self, image: Any, settings: dict[str, Any]) -> bool:
        """Whether the library leaves an image [C, H, W] as large as it is."""
        if not settings["do_resize"]:
            return True
        (height, width), factor = image.shape[-2:], settings["patch_size"] * settings["merge_size"]
        limits = {"min_pixels": settings["size"]["shortest_edge"], "max_pixels": settings["size"]["longest_edge"]}
        return all(limits.values()) and smart_resize(height, width, factor, **limits) == (height, width)

    def _levels(self, settings: dict[str, Any]) -> np.ndarray:
        """float32 [3, 256]: what the library makes of each value of a pixel in each channel."""
        values = np.broadcast_to(np.arange(LEVELS, dtype=np.uint8), (3, 1, LEVELS))
        if settings["do_rescale"]:
            values = self.rescale(values, settings["rescale_factor"])
        if settings["do_normalize"]:
            values = self.normalize(values, settings["image_mean"], settings["image_std"])
        return np.array(values, dtype=np.float32).reshape(3, LEVELS)


DevicePatches.__name__ = Qwen2VLImageProcessorPil.__name__  # what is saved or printed names the library's


def patches(pixels: torch.Tensor, levels: torch.Tensor, patch: int, merge: int, times: int) -> torch.Tensor:
    """Patches [H / patch * W / patch, 3 * times * patch * patch] of `pixels` (uint8 [3, H, W]), in the order in which
    the model merges `merge` x `merge` of them; `levels` float32 [3, 256] says what becomes of a pixel's value."""
    channels, height, width = pixels.shape
    values = torch.stack([row.index_select(0, of.flatten().int()) for row, of in zip(levels, pixels, strict=True)])
    values = values.view(channels, height // patch // merge, merge, patch, width // patch // merge, merge, patch)
    values = values.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5).expand(-1, -1, -1, -1, -1, times, -1, -1)
    return values.reshape(height // patch * (width // patch), channels * times * patch * patch)


def _array(image: Any) -> np.ndarray:
    return image.cpu().numpy() if torch.is_tensor(image) else image
