"""Text-to-image families: one adapter file each, behind the protocol in `base.py`."""
