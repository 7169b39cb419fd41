"""Aspect-ratio buckets: sizes of about equally many pixels, and which of them an image belongs to."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

Size = tuple[int, int]  # height, width


@functools.lru_cache(maxsize=64)
def bucket_sizes(pixels: int, max_ratio: float, multiple: int) -> tuple[Size, ...]:
    """All sizes whose sides are multiples of `multiple`, with at most `pixels` pixels and a ratio of the sides of at
    most `max_ratio`, but those that fit into another one of them; from the tallest to the widest.

    So each is as large as the budget lets it be (one more `multiple` on both sides would be too much), and of each the
    turned one is there, too. None where not even one `multiple` squared has so few pixels.
    """
    wide: list[Size] = []
    ratio = Fraction(str(max_ratio))  # 1.15 * 640 is 736, and not a little less
    for height in range(multiple, math.isqrt(pixels) + 1, multiple):
        longest = min(pixels // height, math.floor(ratio * height))
        wide.append((height, longest // multiple * multiple))
    every = {*wide, *((width, height) for height, width in wide)}
    largest = [
        size for size in every
        if not any(size != other and size[0] <= other[0] and size[1] <= other[1] for other in every)
    ]  # fmt: skip
    return tuple(sorted(largest, key=lambda size: Fraction(size[1], size[0])))


@functools.lru_cache(maxsize=1 << 16)
def nearest_size(sizes: tuple[Size, ...], height: int, width: int) -> int:
    """Which of `sizes` has the aspect ratio nearest to that of an image, by the logarithm of their quotient, compared
    exactly. Of equally near ones that with the most pixels, and of those the first."""

    def away(index: int) -> tuple[Fraction, int, int]:
        one, other = sizes[index][1] * height, sizes[index][0] * width
        return Fraction(max(one, other), min(one, other)), -sizes[index][0] * sizes[index][1], index

    return min(range(len(sizes)), key=away)
