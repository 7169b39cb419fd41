"""Captions of images: shards, their journal, the HDF5 contract, merge and split; or prompts from a file instead."""
