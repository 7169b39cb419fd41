"""Measurements of the machine at hand, step by step within a budget of minutes: `runner.py` first."""
