"""Whoever listens to Snakemake's log goes on hearing it when the executor imports submitit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = """
import json, logging, os, sys

closed = []

class Handler(logging.Handler):
    def emit(self, record):
        pass
    def close(self):
        closed.append(self.name)
        super().close()

# On Snakemake's logger, the root's, and one that only an object holds, as behind a queue.
loggers = [logging.getLogger("snakemake"), logging.getLogger()]
held = Handler()
held.name = "held"
for logger in loggers:
    handler = Handler()
    handler.name = logger.name
    logger.addHandler(handler)
level = logging.getLogger("other").level
for module in sys.argv[1:]:
    __import__(module)
print(json.dumps({
    "closed": closed, "submitit": "submitit" in sys.modules, "level": os.environ.get("SUBMITIT_LOG_LEVEL"),
    "handlers": [len(logger.handlers) for logger in loggers], "own": len(logging.getLogger("submitit").handlers),
}))
"""
PACKAGE = "snakemake_executor_plugin_submitit"
FILES = list(Path(find_spec(PACKAGE).origin).parent.glob("*.py"))
EVERYTHING = sorted(f"{PACKAGE}.{path.stem}" for path in FILES if path.stem != "__init__")


def after_importing(modules: list[str], level: str | None) -> dict:
    environment = {key: value for key, value in os.environ.items() if key != "SUBMITIT_LOG_LEVEL"}
    environment |= {"SUBMITIT_LOG_LEVEL": level} if level else {}
    command = [sys.executable, "-c", SCRIPT, *modules]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("level", [None, "DEBUG", "NOCONFIG"])
def test_no_handler_is_closed_and_the_environment_is_as_before(level):
    found = after_importing([PACKAGE, *EVERYTHING], level)
    assert found == {"closed": [], "submitit": True, "level": level, "handlers": [1, 1], "own": 0}


def test_submitit_itself_would_close_them():
    """Or the test above shows nothing."""
    found = after_importing(["submitit"], None)
    assert set(found["closed"]) == {"snakemake", "root", "held"} and found["own"] == 2


def test_submitit_is_imported_in_one_place():
    found = {
        path.name
        for path in FILES
        for line in path.read_text().splitlines()
        if line.strip().startswith(("import submitit", "from submitit"))
    }
    assert found == {"quiet_submitit.py"}
