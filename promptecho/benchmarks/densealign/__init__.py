"""DenseAlignBench: pairs of images of one caption, one of each model; a judge tells which follows it better."""
