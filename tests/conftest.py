"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: on a shared machine a slow example says nothing about the code.
settings.register_profile("promptecho", deadline=None, derandomize=True)
settings.load_profile("promptecho")

ROOT = Path(__file__).resolve().parent.parent
# Files that take longest begin first, so that files tested side by side end together.
LONGEST = (
    "test_shapes_workflow", "test_training_nodes", "test_executor_faults", "test_train_stop", "test_train_resume",
    "test_train_placement", "test_dag", "test_doc_examples", "test_prompt_cache", "test_ranks", "test_protect",
    "test_train_guards", "test_perf_gpu", "test_bench", "test_models_fetch", "test_judged", "test_perf",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Folders of tiny models lie in one (temp_folder.py); workers have it from the environment."""
    if not hasattr(config, "workerinput"):
        os.environ["PROMPTECHO_TEST_FOLDER"] = tempfile.mkdtemp(prefix="promptecho-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop("PROMPTECHO_TEST_FOLDER"), ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout: official prompt data."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"NOT TESTED: {folder} is missing; it holds the official prompt data")
    return folder


@pytest.fixture(scope="session")
def golden_folder(tmp_path_factory) -> Path:
    """Cases with the answers of the official evaluators (tests/data/README.md)."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(ROOT / "tests" / "data" / "golden.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "golden"


@pytest.fixture(scope="module")
def train_in_process():
    """For tests that train in this process: one thread, and the signal handlers of training taken back afterwards."""
    import signal

    import torch

    threads, numbers = torch.get_num_threads(), (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
