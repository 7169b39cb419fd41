"""Ranks on one machine without Slurm: their variables, their exit codes, and that they live and die together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "workflow/scripts/ranks.sh"


def _hear_all() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Launch:
    """A launcher with ranks that are shell scripts; `$RANK` tells them apart."""

    def __init__(self, folder: Path, script: str, count: int = 3, before: Sequence[str] = ()):
        self.folder = folder
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        # As in the rule: the process that gets the signals is the one that was started.
        self.process = subprocess.Popen(
            [*before, "bash", str(SCRIPT), "1", str(count), "2", "bash", "-c", script], cwd=folder, env=environment,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=_hear_all,  # also where these tests run under nohup or in the background
        )  # fmt: skip

    def until(self, *names: str) -> None:
        while not all((self.folder / name).exists() for name in names):
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.02)

    def pid(self, rank: int) -> int:
        return int((self.folder / f"pid{rank}").read_text())

    def end(self) -> tuple[int, str]:
        _, stderr = self.process.communicate()
        return self.process.returncode, stderr


# Saves upon SIGTERM and leaves, as training does; all at one step boundary, so after the slowest.
SAVES = (
    "trap 'asked=1' TERM; echo $$ > pid$RANK.tmp; mv pid$RANK.tmp pid$RANK; "
    'until [ -n "$asked" ]; do sleep 0.05; done; touch saved$RANK; exit 75'
)


def gone(pid: int) -> bool:
    """No process, or one that is dead and not yet fetched."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_ranks_get_the_variables_of_torchrun(tmp_path):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    launch = Launch(tmp_path, f"echo {' '.join('$' + name for name in names)} > $RANK")
    launch.end()
    rows = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    assert launch.process.returncode == 0
    assert [row[:4] for row in rows] == [[str(rank), str(rank), "3", "3"] for rank in range(3)]
    assert len({tuple(row[4:]) for row in rows}) == 1 and rows[0][4] == "127.0.0.1" and rows[0][6] == "2"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_stop_all_ranks_save_and_75_comes_through(tmp_path, number):
    launch = Launch(tmp_path, SAVES)
    launch.until("pid0", "pid1", "pid2")
    if number == signal.SIGINT:
        os.killpg(launch.process.pid, number)  # as a terminal does; the ranks are not in its group
    else:
        launch.process.send_signal(number)
    code, stderr = launch.end()
    assert code == 75 and stderr == ""
    assert all((tmp_path / f"saved{rank}").exists() for rank in range(3))


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    launch = Launch(tmp_path, "trap 'touch asked$RANK' TERM; touch on$RANK; while true; do sleep 0.05; done")
    launch.until("on0", "on1", "on2")
    launch.process.send_signal(signal.SIGINT)
    launch.until("asked0", "asked1", "asked2")
    launch.process.send_signal(signal.SIGINT)
    assert launch.end()[0] == 128 + signal.SIGKILL


@pytest.mark.parametrize(("crash", "code", "told"), [
    ("exit 3", 3, "failed with exit code 3"), ("kill -9 $$", 137, "was ended by SIGKILL"),
])  # fmt: skip
def test_a_rank_that_fails_ends_the_others_and_its_code_comes_through(tmp_path, crash, code, told):
    script = f"if [ $RANK = 1 ]; then until [ -e pid0 -a -e pid2 ]; do sleep 0.05; done; {crash}; fi; {SAVES}"
    launch = Launch(tmp_path, script)
    found, stderr = launch.end()
    assert found == code and stderr == f"promptecho: rank 1 of 3 {told}; this ends the other 2\n"
    assert (tmp_path / "saved0").exists() and (tmp_path / "saved2").exists()


def test_no_rank_outlives_its_launcher(tmp_path):
    launch = Launch(tmp_path, SAVES)
    launch.until("pid0", "pid1", "pid2")
    launch.process.kill()
    pids = [launch.pid(rank) for rank in range(3)]
    launch.end()
    while not all(map(gone, pids)):
        time.sleep(0.02)
    assert not (tmp_path / "saved0").exists()


def test_ranks_have_the_gpus_of_their_launcher_until_the_last_is_gone(tmp_path):
    options = ["--devices", "a,b,c", "--folder", str(tmp_path / "leases")]
    gpus = [sys.executable, "-m", "promptecho", "gpus"]
    before = [*gpus, "run", "--count", "2", *options, "--"]
    launch = Launch(tmp_path, f"echo $CUDA_VISIBLE_DEVICES > gpus$RANK; {SAVES}", 2, before)

    def holders() -> list[int | None]:
        shown = subprocess.run([*gpus, "--json", *options], capture_output=True, text=True, check=True).stdout
        return [gpu["held_by"] and gpu["held_by"]["pid"] for gpu in json.loads(shown)["gpus"]]

    launch.until("pid0", "pid1")
    assert (tmp_path / "gpus0").read_text() == (tmp_path / "gpus1").read_text() == "a,b\n"
    assert holders() == [launch.process.pid, launch.process.pid, None]
    os.kill(launch.pid(0), signal.SIGSTOP)  # a rank that takes its time to end
    launch.process.kill()
    while holders() != [None] * 3:
        time.sleep(0.05)
    assert gone(launch.pid(0)) and gone(launch.pid(1))
    launch.end()


def test_several_nodes_need_slurm(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    words = ["bash", str(SCRIPT), "2", "1", "1", "true"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "ranks.sh: 2 node(s) x 1 process(es): there is no Slurm job here" in done.stderr
