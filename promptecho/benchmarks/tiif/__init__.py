"""TIIF-Bench (Wei et al., 2025, arXiv 2506.02161): prompts, image layout, the official rules, judges' answers."""
