"""Images that a model has just made: pictures for everyone, and their pixels where they were made for whoever goes on
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import torch


def decoded_images(values: torch.Tensor) -> list[Image.Image]:
    """Pictures of `values` (floating point [N, C, H, W], 0 black and 1 white), rounded to 8 bits as diffusers does.

    Those of three channels remember their pixels on the device of `values` (`decoded_pixels`).
    """
    pixels = (values.float() * 255).round().byte()
    arrays = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    images = [Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array) for array in arrays]
    for image, own in zip(images, pixels, strict=True):
        if image.mode == "RGB":
            image.readonly = 1  # whoever draws on it draws on a copy, by which we see that it has changed
            vars(image)["decoded"] = image.im, own
    return images


def decoded_pixels(image: Any) -> torch.Tensor | None:
    """Pixels of a picture (uint8 [3, H, W]) on the device where it was made; None of any other picture, of a copy, and
    of one that was changed since."""
    core, pixels = getattr(image, "decoded", (None, None))
    return pixels if core is not None and core is image.im else None
