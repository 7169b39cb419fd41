"""Folders that live as long as the tests: tiny models, built once and read by all processes that are forked later."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

WITHIN = "PROMPTECHO_TEST_FOLDER"  # set by conftest.py, which removes the folder at the end


def temp_folder(prefix: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=prefix, dir=os.environ.get(WITHIN)))
