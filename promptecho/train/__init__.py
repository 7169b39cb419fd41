"""Training. Read `loop.py` first; it is the whole algorithm on one page."""
