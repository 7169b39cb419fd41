"""Load a vision-language model's processor, with or without torchvision."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from promptecho.errors import ModelError
from promptecho.models.locate import check_model_path


def load_processor(path: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The processor (chat template, tokenizer, image processor) of the model at `path`, for images and text.

    Families whose processor also handles video (the Qwen-VL ones, InternVL, ...) need torchvision for that part
    alone. Without torchvision their own class is loaded without its video part; text and images go through the
    same code. Both ways the image processor is the Pillow/numpy one where the library has one, so that an image
    becomes the same pixel values on every machine (torchvision's resampling differs in the last bits).

    The result is called as `processor(images=[[image], ...], text=[...], padding=True, return_tensors="pt")` and
    has `.tokenizer`, `.image_processor` and `.apply_chat_template(messages, add_generation_prompt=...)`.

    Raises:
        ModelError: the folder is missing, or the library can't load its processor, for example because a package is
        missing.
    """
    from transformers import AutoImageProcessor, AutoProcessor
    from transformers.utils import is_torchvision_available

    path = check_model_path(path, revision=revision)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        if is_torchvision_available():
            processor = AutoProcessor.from_pretrained(path, **options)
            if getattr(processor, "image_processor", None) is not None:
                processor.image_processor = AutoImageProcessor.from_pretrained(path, backend="pil", **options)
        else:
            family = _processor_class(path, options)
            if family is not None and _has_optional_video(family):
                processor = _without_video(family).from_pretrained(path, **options)
            else:
                processor = AutoProcessor.from_pretrained(path, **options)
    except ImportError as error:
        reason = " ".join(str(error).split()).split(" Check out ")[0][:200]
        raise ModelError(
            f"{path}: the processor needs a package that is not installed ({reason.rstrip('.')}); install it, or take "
            "a model of another family (docs/families.md)"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: cannot load the processor ({reason}); check that the folder is complete") from error
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise ModelError(f"{path}: {type(processor).__name__} does not take images and text; use an image-text model")
    _make_patches_on_devices(processor)
    return processor


def load_part(family: Any, path: str | Path, part: str, *, revision: str | None = None) -> Any:
    """The processor, of class `family`, that is the part `part` of the diffusers pipeline at `path`; as by
    `load_processor`, without its video part, but called with one list of images for all texts.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoImageProcessor

    folder = Path(path).expanduser() / part
    place, options = (str(folder), {}) if folder.is_dir() else (str(path), {"subfolder": part, "revision": revision})
    try:
        processor = _without_video(family).from_pretrained(place, **options)
        processor.image_processor = AutoImageProcessor.from_pretrained(place, backend="pil", **options)
    except (ImportError, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: cannot load its {part} ({reason}); check that the folder is complete") from error
    return processor


def _make_patches_on_devices(processor: Any) -> None:
    """Let an image processor that the Qwen-VL family shares make its patches where it is told (vlm/patches.py)."""
    kind = type(processor.image_processor)
    if kind.__name__ == "Qwen2VLImageProcessorPil" and kind.__module__.startswith("transformers.models.qwen2_vl."):
        from promptecho.vlm.patches import DevicePatches

        processor.image_processor.__class__ = DevicePatches


def takes_device(processor: Any) -> bool:
    """Whether a call of the processor may say on which `device` an image's patches are made."""
    return getattr(processor.image_processor, "makes_patches_on_devices", False)


def _processor_class(path: str, options: dict[str, Any]) -> Any:
    """The library's processor class for this model, or None where it has none (remote code, for example)."""
    from transformers import PROCESSOR_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(path, **options)
    return PROCESSOR_MAPPING.get(type(config), None)


def _has_optional_video(family: Any) -> bool:
    """Whether the class takes image processor and tokenizer first and can be built without a video processor."""
    parameters = inspect.signature(family.__init__).parameters
    names = list(parameters)
    if not {"image_processor", "tokenizer", "video_processor"} <= set(names):
        return False
    optional = parameters["video_processor"].default is not inspect.Parameter.empty
    return optional and names.index("video_processor") > max(names.index("image_processor"), names.index("tokenizer"))


def _without_video(family: Any) -> Any:
    """A subclass of a processor class whose parts are all but the video processor."""

    class ImageOnly(family):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in family.get_attributes() if name != "video_processor"]

    ImageOnly.__name__ = family.__name__  # what is saved or printed names the family
    ImageOnly.__qualname__, ImageOnly.__module__ = family.__qualname__, family.__module__
    return ImageOnly
