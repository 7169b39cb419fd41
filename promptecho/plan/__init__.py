"""Does a configuration fit the GPUs, and how long does it take: computed on tensors without values, no GPU needed."""

RESERVE_GB = 5.0  # of each GPU, which a plan leaves to CUDA, NCCL, workspaces and fragmentation
