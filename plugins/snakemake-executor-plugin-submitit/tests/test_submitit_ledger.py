"""The ledger: what was written before a kill is read after it, wherever the kill cut the file."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.ledger import Entry, Ledger, Submission
from snakemake_executor_plugin_submitit.owners import Owner, Owners, _start_of, this_process

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("intend"), st.integers(1, 3)),
        st.tuples(st.just("submitted"), st.integers(0, 5)),
        st.tuples(st.just("ended"), st.integers(0, 5), st.integers(0, 2)),
    ),
    max_size=20,
)


def entries(token: str, n: int) -> list[Entry]:
    return [Entry(f"{token}-{index}", "f", "r", "smk.rule") for index in range(n)]


def play(ledger: Ledger, events) -> None:
    made: list[Submission] = []
    for kind, *numbers in events:
        if kind == "intend":
            token = f"t{len(made)}"
            made.append(Submission(token, f"/logs/{token}", entries(token, numbers[0])))
            ledger.intend(made[-1])
        elif numbers[0] < len(made):
            one = made[numbers[0]]
            if kind == "submitted":
                ledger.submitted(one, str(100 + numbers[0]))
            elif numbers[1] in one.open_indices:
                ledger.ended(one, numbers[1], "success")


def known(ledger: Ledger) -> set:
    return {(s.token, s.slurm_id, s.entries[index]) for s, index in ledger.open_tasks()}


@given(EVENTS)
def test_a_later_process_knows_the_same_open_tasks(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = Ledger(path)
    play(ledger, events)
    assert known(Ledger(path)) == known(ledger)
    assert known(Ledger(path)) == known(ledger)  # also after it was rewritten without what is over


@given(EVENTS, st.integers(0, 10_000))
def test_a_cut_loses_the_last_line_at_most(tmp_path_factory, events, cut):
    folder = tmp_path_factory.mktemp("ledger")
    play(Ledger(folder / "ledger.jsonl"), events)
    if not (folder / "ledger.jsonl").exists():
        return
    whole = (folder / "ledger.jsonl").read_bytes()
    part = whole[: cut % (len(whole) + 1)]
    (folder / "cut.jsonl").write_bytes(part)
    (folder / "lines.jsonl").write_bytes(part[: part.rfind(b"\n") + 1])
    assert known(Ledger(folder / "cut.jsonl")) == known(Ledger(folder / "lines.jsonl"))


def test_ids_of_tasks():
    alone = Submission("t", "/logs", entries("t", 1))
    assert alone.job_id(0) is None
    alone.slurm_id = "7"
    assert alone.job_id(0) == "7"
    array = Submission("t", "/logs", entries("t", 2), slurm_id="8")
    assert [array.job_id(index) for index in range(2)] == ["8_0", "8_1"]


def two_processes(path) -> tuple[Ledger, Ledger]:
    return Ledger(path), Ledger(path)


@given(EVENTS, EVENTS, st.booleans())
def test_two_that_write_know_of_each_other_also_after_a_rewriting(tmp_path_factory, first, second, rewritten):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    one, other = two_processes(path)
    play(one, first)
    if rewritten:
        Ledger(path)
    play(other, [(kind, *numbers) for kind, *numbers in second if kind != "intend"])
    other.intend(Submission("other", "/logs/other", entries("other", 2)))
    one.refresh()
    assert known(one) == known(other) == known(Ledger(path))


def test_a_task_belongs_to_who_took_it_up_last(tmp_path):
    path = tmp_path / "ledger.jsonl"
    dead = Owner("host", "boot", 1, 1)
    Ledger(path).intend(Submission("t", "/logs/t", entries("t", 2), owner=dead))
    one, other = two_processes(path)
    one.take([(one.submissions["t"], 1)])
    other.refresh()
    for ledger in (one, other, Ledger(path), Ledger(path)):
        assert [ledger.submissions["t"].owner_of(index) for index in range(2)] == [dead, this_process()]


def test_what_another_makes_that_is_there_is_not_submitted(tmp_path):
    path = tmp_path / "ledger.jsonl"
    other = replace(this_process(), pid=this_process().pid + 1)
    Ledger(path).intend(Submission("a", "/logs/a", entries("x", 2), owner=other))
    gone: set[Owner] = set()
    ledger = Ledger(path, gone.__contains__)
    before = path.read_text()
    mine = Submission("b", "/logs/b", [*entries("y", 1), *entries("x", 1)])
    assert ledger.intend(mine) == {1: other}
    assert path.read_text() == before and "b" not in ledger.submissions
    gone.add(other)
    assert ledger.intend(mine) == {} and "b" in Ledger(path).submissions
    assert ledger.intend(Submission("c", "/logs/c", entries("y", 1))) == {}  # one's own


def test_a_group_is_known_by_each_of_its_jobs(tmp_path):
    path = tmp_path / "ledger.jsonl"
    group = Entry("group", "f", "r", "smk.g", "c", (("a", "f1", "c1"), ("b", "f2", "c2")))
    other = replace(this_process(), pid=this_process().pid + 1)
    Ledger(path).intend(Submission("g", "/logs/g", [group], owner=other))
    ledger = Ledger(path, gone=lambda _: False)
    assert ledger.submissions["g"].entries == [group] and group.keys == ["a", "b"]
    part = Submission("p", "/logs/p", [Entry("b", "f", "r", "smk.b"), Entry("c", "f", "r", "smk.c")])
    assert ledger.intend(part) == {0: other}


def test_cancelled_tasks_stay_open_and_known_as_that(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    one = Submission("a", "/logs/a", entries("a", 3))
    ledger.intend(one)
    ledger.submitted(one, "7")
    ledger.cancelled([(one, 0), (one, 2)])
    ledger.ended(one, 2, "replaced")
    for again in (Ledger(path), Ledger(path)):  # also after it was rewritten
        assert again.submissions["a"].cancelled == {0, 2} and again.submissions["a"].open_indices == [0, 1]
    path.unlink()
    path.mkdir()
    with pytest.raises(WorkflowError, match="ledger.jsonl: Is a directory; jobs can't be followed"):
        ledger.cancelled([(one, 1)])


def test_a_ledger_without_owners_is_read(tmp_path):
    path = tmp_path / "ledger.jsonl"
    Ledger(path).intend(Submission("t", "/logs/t", entries("t", 1)))
    event = json.loads(path.read_text())
    del event["owner"]
    path.write_text(json.dumps(event) + "\n")
    assert Ledger(path).submissions["t"].owner_of(0) is None and Owners(tmp_path).gone(None)


def test_a_file_system_without_locks_keeps_the_lines_of_a_process_that_is_there(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    here, gone = Owner("host", "boot", 1, 1), Owner("host", "boot", 2, 2)
    first = Ledger(path)
    first.intend(Submission("t", "/logs/t", entries("t", 2), owner=here))
    first.ended(first.submissions["t"], 0, "success")
    first.intend(Submission("over", "/logs/over", entries("over", 1), owner=gone))
    first.ended(first.submissions["over"], 0, "success")

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    before = path.read_text()
    assert known(Ledger(path, lambda owner: owner == gone)) == known(first)
    assert path.read_text() == before
    assert known(Ledger(path)) == known(first)
    assert len(path.read_text()) < len(before)


def test_owners(tmp_path):
    owners = Owners(tmp_path)
    owners.begin()
    me = owners.me
    assert owners.file(me).exists() and not owners.gone(me)
    child = subprocess.Popen(["sleep", "600"])
    try:
        near = replace(me, pid=child.pid, start=_start_of(child.pid))
        assert not owners.gone(near)
        assert owners.gone(replace(near, start=near.start - 1))  # its pid was another process's before
    finally:
        child.kill()
    deadline = time.monotonic() + 60
    while not owners.gone(near) and time.monotonic() < deadline:  # a zombie, from a moment after the signal
        time.sleep(0.01)
    assert owners.gone(near)
    far = replace(me, host="login2", machine="another boot")
    assert owners.gone(far)  # it has no file: it has ended
    owners.file(far).touch()
    assert not owners.gone(far) and owners.silence(far) < 60
    os.utime(owners.file(far), (time.time() - 400,) * 2)
    assert owners.gone(far)
    owners.end()
    assert not owners.file(me).exists()
