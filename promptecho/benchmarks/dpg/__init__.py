"""DPG-Bench: dense prompts, each with yes/no questions that depend on each other. Images in grids, one per prompt."""
