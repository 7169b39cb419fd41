"""Calls in a thread: in their order, few at a time, and no error lost."""

from __future__ import annotations

import threading
import time

import pytest

from promptecho.writer import Writer


def test_calls_are_made_in_order_and_the_block_waits_for_them():
    made = []
    with Writer() as writer:
        for k in range(20):
            writer.put(lambda k=k: made.append((k, threading.current_thread().name)))
    assert [k for k, _ in made] == list(range(20))
    assert {name for _, name in made} == {"writer_0"}


def test_no_more_wait_than_the_bound():
    go, begun = threading.Event(), []
    with Writer(ahead=2) as writer:
        for k in range(2):
            writer.put(lambda k=k: (begun.append(k), go.wait(30)))
        put = threading.Thread(target=writer.put, args=(lambda: begun.append("third"),))
        put.start()
        time.sleep(0.2)
        assert put.is_alive() and begun == [0]  # the third is not taken while two are not done
        go.set()
        put.join(30)
    assert begun == [0, 1, "third"]


def test_behind_an_error_no_call_is_made():
    go, made = threading.Event(), []

    def fail():
        go.wait(30)
        raise ValueError("of the first")

    with pytest.raises(ValueError, match="of the first"), Writer(ahead=2) as writer:
        writer.put(fail)
        writer.put(lambda: made.append("second"))
        go.set()
    assert made == []


@pytest.mark.parametrize("later", [True, False])
def test_an_error_is_raised_by_the_next_call_or_at_the_end(later):
    failed = threading.Event()

    def fail():
        failed.set()
        raise ValueError("of the first")

    with pytest.raises(ValueError, match="of the first"), Writer() as writer:
        writer.put(fail)
        assert failed.wait(30)
        if later:
            for _ in range(1000):
                writer.put(lambda: None)
                time.sleep(0.001)
            raise AssertionError("never told")


def test_left_by_an_interruption_it_ends_the_call_under_way_and_makes_no_other():
    begun, go, made = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        go.wait(30)
        made.append("slow")

    with pytest.raises(KeyboardInterrupt), Writer() as writer:
        writer.put(slow)
        writer.put(lambda: made.append("never"))
        assert begun.wait(30)
        threading.Timer(0.1, go.set).start()
        raise KeyboardInterrupt
    assert made == ["slow"]
