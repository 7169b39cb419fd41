"""PromptEcho: annotation-free reinforcement learning of text-to-image models on Slurm clusters."""

__version__ = "0.1.0"
