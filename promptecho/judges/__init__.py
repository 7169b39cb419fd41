"""Judges: models that answer questions about images, over an API or in this process, with every answer recorded."""
