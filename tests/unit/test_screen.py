"""A live view on a real pseudo-terminal, and where the output is a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

# The third picture is the last one; a fourth look interrupts as Ctrl-C does.
CODE = """
import sys
from promptecho import screen
screen.LOG_INTERVAL_S = 0.01
whole, last, high = sys.argv[1] == "whole", int(sys.argv[2]), int(sys.argv[3])
n = 0
def look():
    global n
    n += 1
    if n > last:
        raise KeyboardInterrupt
    return f"picture {'abc'[n - 1]}" + high * "\\nline", n == 3
screen.show_live(look, refresh_s=0.01, whole_screen=whole)
print("after", screen.screen().width)
"""
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"  # the alternate screen of a terminal


def on_a_terminal(*arguments: str, high: int = 0) -> str:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "77", "LINES": "20"}
    command = [sys.executable, "-c", CODE, *arguments, str(high)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    told = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux's word for the end
            break
        told += part
    os.close(ours)
    assert process.wait() == 0, told
    return told.decode()


@pytest.mark.parametrize("last", [3, 2])
def test_a_terminal_is_drawn_in_place_and_keeps_the_last_picture(last):
    told = on_a_terminal("inline", str(last))
    assert ENTER not in told and told.count("picture a") == 1 and "\x1b[2K" in told
    assert told.rindex(f"picture {' abc'[last]}") < told.index("after 77")


@pytest.mark.parametrize("last", [3, 2])
def test_a_whole_terminal_is_given_back_with_the_last_picture(last):
    told = on_a_terminal("whole", str(last))
    assert told.index(ENTER) < told.index("picture a") < told.index(LEAVE) < told.index("after 77")
    assert told[told.index(LEAVE) :].count("picture") == 1 and f"picture {' abc'[last]}" in told[told.index(LEAVE) :]


def test_a_picture_that_is_higher_than_the_terminal_says_so():
    told = on_a_terminal("whole", "3", high=25)
    inside, after = told[: told.index(LEAVE)], told[told.index(LEAVE) :]
    assert inside.count("line") == 3 * (18 + 1) and inside.count("7 more lines than this terminal") == 3
    assert after.count("line") == 25


def test_a_pipe_gets_one_picture_after_the_other():
    told = subprocess.run([sys.executable, "-c", CODE, "whole", "3", "0"], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["picture a", "picture b", "picture c", "after 110"] and told.stderr == ""
