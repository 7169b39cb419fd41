"""Which shard of which images is captioned how. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptecho.captions.inputs import ImageItem, ImageList, image_list, shard_of
from promptecho.config.caption_server import CaptionServerSection
from promptecho.config.models import DEFAULT_MAX_PIXELS


@dataclass(frozen=True)
class GenerationSettings:
    """How captions are written. `temperature` 0 is greedy."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    dtype: str = "float32"
    batch_size: int = 16

    def identity(self) -> dict[str, Any]:
        """What decides a caption, as stored with it. Not the batch size: results agree across it but for near-ties
        that the last bits of a forward pass decide."""
        return {key: value for key, value in asdict(self).items() if key != "batch_size"}


@dataclass(frozen=True)
class ShardSpec:
    """Which shard of which images is captioned how, and where to."""

    vlm: str
    images: str
    query: str
    shard: int
    num_shards: int
    out: Path
    work: Path
    settings: GenerationSettings
    device: str = "cpu"
    revision: str | None = None
    trust_remote_code: bool = False
    images_list: Path | None = None  # what `renewal.py` wrote for `images`, where it did
    max_pixels: int | None = DEFAULT_MAX_PIXELS
    background: str = "white"
    earlier: str | None = None  # pattern of finished shards that were set aside; one that fits is taken
    server: CaptionServerSection | None = None  # who captions; None: transformers in this process
    server_log: Path | None = None  # of a server that is started here; None: in `work`

    def items(self) -> list[ImageItem]:
        """The images of the shard."""
        return shard_of(listed_images(self.images, self.images_list).items, self.shard, self.num_shards)

    def identity(self) -> dict[str, Any]:
        """What decides a caption beside model, question and image; keys that are younger than captions that exist are
        left out at their defaults."""
        young = {"max_pixels": (self.max_pixels, DEFAULT_MAX_PIXELS), "background": (self.background, "white")}
        told = self.settings.identity() | {key: one for key, (one, default) in young.items() if one != default}
        if self.server is not None:
            del told["dtype"]  # the server's own matter
            told |= {"server": {"model": self.server.model, "request": self.server.request}}
        return told


def listed_images(images: str | Path, images_list: Path | None) -> ImageList:
    """The list in the file `images_list`, where it is there and of `images`; else what `images` holds now."""
    if images_list is not None and images_list.is_file():
        listed = image_list(images_list)
        if listed.source == str(images):
            return listed
    return image_list(images)
