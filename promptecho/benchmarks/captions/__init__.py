"""Captions as a benchmark: an image is right when it shows what its caption claims. Folders as DenseAlignBench's."""
