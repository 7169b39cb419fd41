"""Does a configuration fit the GPUs, and how long does it take: computed on tensors without values, no GPU needed."""
