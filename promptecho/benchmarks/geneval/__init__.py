"""GenEval (Ghosh et al., 2023, arXiv 2310.11513): prompts, image layout and the official scoring rules."""
