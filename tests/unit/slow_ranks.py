"""Runs of `promptecho train` with one slow phase, in which they are asked to stop: one import for all of them.

    python slow_ranks.py CASES.json

Each case is {"arguments", "world", "slow", "iteration", "request"}. Passes in phase `slow` of that iteration take a
third of a second longer, loading (`load`) takes for ever, a reward server (`serve`) seconds for each answer. As soon as
one of the ranks is there, `request` is made: "file" (of --stop-file), "term" (to all ranks), "term1" (to rank 1 alone),
"frozen" (the file, while rank 1 is stopped for a while), or null. Prints a JSON list: exit codes of the ranks, stderr,
and the number of slow passes of each rank.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from forked import environment, free_port, run_single

DEADLINE_S = 600


def slow_down(case: dict, marks: Path, rank: int) -> None:
    """Patch this process, in which nothing has run yet."""
    from promptecho.train.placement import local, server
    from promptecho.train.stop import StopCheck
    from promptecho.train.watchdog import Watchdog

    there = [False]
    reached = Watchdog.__call__
    watch = StopCheck.watch_passes

    def mark() -> None:
        with open(marks / str(rank), "a") as file:
            file.write("x")

    def boundary(self, phase: str, iteration: int, step: int = 0) -> None:
        there[0] = (phase, iteration) == (case["slow"], case["iteration"])
        reached(self, phase, iteration, step)

    def slow_pass(*_: object) -> None:
        if there[0]:
            mark()
            time.sleep(0.3)

    def watch_slowly(self, model) -> None:
        watch(self, model)
        model.register_forward_pre_hook(slow_pass, prepend=True)

    def load_for_ever(*_: object, **__: object) -> None:
        mark()
        while True:
            time.sleep(0.05)

    Watchdog.__call__, StopCheck.watch_passes = boundary, watch_slowly
    if case["slow"] == "load":
        local.load_vlm = load_for_ever
    if case["slow"] == "serve":
        score = server._RequestScorer.score

        def score_slowly(self, request):
            mark()
            time.sleep(3)
            return score(self, request)

        server._RequestScorer.score = score_slowly


def run(case: dict) -> dict:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as stderr:
        marks, stop_file = Path(folder), Path(folder) / "stop"
        arguments = [*case["arguments"], "--stop-file", str(stop_file)]
        children = []
        for rank in range(case["world"]):
            child = os.fork()
            if child == 0:
                os.dup2(stderr.fileno(), 2)
                os.dup2(2, 1)
                try:
                    if case["slow"]:
                        slow_down(case, marks, rank)
                    os.environ.update(environment(case["world"], rank, port))
                    code = run_single(arguments)
                except BaseException:
                    traceback.print_exc()
                    code = 1
                sys.stderr.flush()
                os._exit(code)
            children.append(child)
        codes: dict[int, int] = {}
        end, asked = time.monotonic() + DEADLINE_S, False
        while len(codes) < len(children):
            for child in children:
                if child not in codes and (ended := os.waitpid(child, os.WNOHANG))[0]:
                    codes[child] = os.waitstatus_to_exitcode(ended[1])
            if time.monotonic() > end:
                for child in set(children) - set(codes):
                    os.kill(child, signal.SIGKILL)
            if not asked and any(path.name.isdigit() for path in marks.iterdir()):
                asked = True
                ask(case["request"], children, stop_file)
            time.sleep(0.05)
        stderr.seek(0)
        passes = [len(path.read_text()) if (path := marks / str(rank)).exists() else 0 for rank in range(len(children))]
        return {"codes": [codes[child] for child in children], "stderr": stderr.read(), "passes": passes}


def ask(request: str, children: list[int], stop_file: Path) -> None:
    if request == "file":
        stop_file.touch()
    elif request == "frozen":
        os.kill(children[1], signal.SIGSTOP)
        stop_file.touch()
        time.sleep(3)
        os.kill(children[1], signal.SIGCONT)
    else:
        for child in children[int(request == "term1") :]:
            os.kill(child, signal.SIGTERM)


if __name__ == "__main__":
    print(json.dumps([run(case) for case in json.loads(Path(sys.argv[1]).read_text())]))
