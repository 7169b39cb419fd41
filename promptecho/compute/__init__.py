"""How models compute: compiled blocks, deterministic kernels, and what a training's state records of both."""
