"""Several sizes of training images: written out, or as aspect-ratio buckets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from promptecho.config.buckets import Size, bucket_sizes
from promptecho.config.fields import Count, Positive, Section
from promptecho.config.image_sizes import Sized

SizeBy = Literal["draw", "image"]


class SizeSection(Section):
    """One of several sizes of training images."""

    height: Count = Field(description="Height in pixels.")
    width: Count = Field(description="Width in pixels.")
    weight: Positive = Field(
        1.0,
        description="How often a prompt has it, beside the weights of the other sizes. Means nothing with `size_by: "
        "image`.",
    )


class BucketsSection(Section):
    """Sizes of training images, made from a budget of pixels."""

    pixels: Count | None = Field(
        None, description="Most pixels of an image, such as 1048576; null: as many as an image of models.t2i has."
    )
    max_ratio: Annotated[Positive, Field(ge=1)] = Field(
        2.0, description="Largest ratio of the longer side to the shorter one, wide or tall."
    )
    multiple: Count = Field(
        64, description="Both sides are multiples of so many pixels, itself a multiple of the model's stride."
    )

    def sizes(self, t2i: Sized) -> list[Size]:
        """Heights and widths, from the tallest to the widest (config/buckets.py)."""
        return list(bucket_sizes(self.pixels or t2i.height * t2i.width, self.max_ratio, self.multiple))
