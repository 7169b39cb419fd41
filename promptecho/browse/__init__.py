"""One page per benchmark to look through its results: every prompt, its images at each checkpoint, and why they were
judged as they were."""
