"""Copies of the workflow as fixtures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from workflow_copy import Workflow, copy_checkout


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    """A fresh copy, with the experiment `tiny` (and the project's own ones)."""
    return copy_checkout(tmp_path)


@pytest.fixture(scope="module")
def _finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    copy_checkout(root).finish()
    return root


@pytest.fixture
def finished(_finished_once: Path, tmp_path: Path) -> Workflow:
    """A copy in which everything has been made already."""
    shutil.copytree(_finished_once, tmp_path, dirs_exist_ok=True)
    return Workflow(tmp_path)
