"""Figures from score files, metrics and images that the workflow has made; no model runs."""
