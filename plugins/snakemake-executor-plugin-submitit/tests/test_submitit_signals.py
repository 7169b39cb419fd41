"""Signals to a real process, and a log whose reader a Ctrl-C has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import logging, select, signal, sys, time
from snakemake_executor_plugin_submitit import signals

logger = logging.getLogger("snakemake.logging")

class Handler(logging.StreamHandler):  # as Snakemake's
    def handleError(self, record):
        raise

logger.addHandler(Handler(sys.stderr))
logger.setLevel(logging.INFO)
signals._SAME_S = float(sys.argv[1])
one = signals.Signals(logger)
one.install()

def answer():
    # A signal that comes just before a read that blocks would be heeded only after it.
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        pass
    sys.stdin.readline()

def wait():
    end = time.monotonic() + 600
    while time.monotonic() < end:
        time.sleep(0.01)

try:
    if sys.argv[2] == "busy":
        with one.held_back():
            print("ready", flush=True)
            while one.received is None:
                time.sleep(0.01)
            print("first", flush=True)
            answer()
            print("whole", flush=True)
    else:
        print("ready", flush=True)
        wait()
except KeyboardInterrupt:
    logger.info("Terminating")
    try:
        print("first", flush=True)
        answer()
    except KeyboardInterrupt:
        print("again", flush=True)
    print("interrupted" if one.interrupted else "detached", flush=True)
"""


@pytest.fixture
def process():
    """Makes a process that heeds signals. Nobody reads its log."""
    started = []

    def start(same_s: float, moment: str) -> subprocess.Popen:
        command = [sys.executable, "-c", SCRIPT, str(same_s), moment]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
        one = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        started.append(one)
        one.stderr.close()
        assert one.stdout.readline() == "ready\n"
        return one

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.mark.parametrize(
    ("first", "then", "meant"),
    [(signal.SIGINT, signal.SIGINT, "interrupted"), (signal.SIGINT, signal.SIGHUP, "interrupted"),
     (signal.SIGTERM, signal.SIGINT, "detached")],
)  # fmt: skip
def test_signals_that_follow_the_first_closely_do_not_break_into_the_end(process, first, then, meant):
    one = process(600, "idle")
    os.kill(one.pid, first)
    assert one.stdout.readline() == "first\n"
    os.kill(one.pid, then)
    assert one.communicate("\n")[0] == f"{meant}\n"
    assert one.returncode == 0


def test_a_signal_long_after_the_first_ends_the_wait(process):
    one = process(0, "idle")
    os.kill(one.pid, signal.SIGINT)
    assert one.stdout.readline() == "first\n"
    os.kill(one.pid, signal.SIGINT)
    assert one.stdout.readline() == "again\n"


def test_a_submission_is_not_cut_by_the_second_signal_either(process):
    one = process(600, "busy")
    os.kill(one.pid, signal.SIGINT)
    assert one.stdout.readline() == "first\n"
    os.kill(one.pid, signal.SIGTERM)
    one.stdin.write("\n")
    one.stdin.flush()
    assert one.stdout.readline() == "whole\n"
    assert one.stdout.readline() == "first\n"
    assert one.communicate("\n")[0] == "interrupted\n"
