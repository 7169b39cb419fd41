"""Benchmarks: prompts, official scoring rules, perception backends."""
