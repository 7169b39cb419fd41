"""What each scorer can be combined with."""

from __future__ import annotations

# Whose images a scorer reads: pairs of images are compared on DenseAlignBench's captions.
BENCHMARK_OF = {
    "geneval": "geneval",
    "captions": "captions",
    "densealign": "captions",
    "dpg": "dpg",
    "tiif": "tiif",
    "textocr": "textocr",
}
BACKENDS = {
    "geneval": ("oracle", "mask2former"),
    "captions": ("oracle",),
    "densealign": ("oracle", "judge"),
    "dpg": ("oracle", "mplug", "judge"),
    "tiif": ("oracle", "judge"),
    "textocr": ("rapidocr", "judge"),
}
WITH_FIXED_MODE = ("dpg", "tiif")
PAIRWISE = ("densealign",)
USES_DEVICE = ("mask2former", "mplug")  # backends that are models of torch
