"""Jobs that wait for room in the queue, and how many of them are tried when."""

from __future__ import annotations

import pytest

from snakemake_executor_plugin_submitit import kept as kept_module
from snakemake_executor_plugin_submitit.kept import JobBatch, Kept


class Cluster:
    """A limit on jobs in the queue, and a clock."""

    def __init__(self, monkeypatch, limit: int, jobs: int):
        self.now, self.limit, self.queued, self.calls = 1000.0, limit, 0, []
        monkeypatch.setattr(kept_module.time, "monotonic", lambda: self.now)
        self.kept, self.done = Kept(), []
        self.kept.keep("q", JobBatch(list(range(jobs)), "request"), "full")

    def run(self, seconds: int, most: int = 1000, own: bool = False) -> None:
        for _ in range(seconds):
            self.now += 1
            while (taken := self.kept.take(most)) is not None:
                self.call(*taken, own)

    def call(self, scope, batch, own) -> None:
        n = len(batch.jobs)
        self.calls.append((self.now, n))
        if self.queued + n <= self.limit:
            self.queued += n
            self.done += batch.jobs
            self.kept.accepted(scope, batch)
        else:
            self.failed = self.kept.refused(scope, batch, "full", own and self.queued == 0)

    def end(self, n: int) -> None:
        self.queued -= n
        self.kept.room_made(n)


@pytest.mark.parametrize("limit", [1, 2, 5, 63, 999])
def test_what_fits_is_found_with_few_calls_and_one_a_second(monkeypatch, limit):
    cluster = Cluster(monkeypatch, limit, jobs=1000)
    cluster.run(60)
    assert cluster.queued == limit and len(cluster.kept) == 1000 - limit
    assert len(cluster.calls) <= 20  # twice the halvings of 1000
    times = [when for when, _ in cluster.calls]
    assert all(b - a >= 1 for a, b in zip(times, times[1:], strict=False))


def test_jobs_go_out_in_their_order_as_others_end(monkeypatch):
    cluster = Cluster(monkeypatch, 5, jobs=50)
    cluster.run(30)
    while cluster.queued:
        cluster.end(min(2, cluster.queued))
        cluster.run(5)
    assert cluster.done == list(range(50)) and len(cluster.kept) == 0
    assert len(cluster.calls) < 80


def test_a_full_cluster_is_asked_once_a_minute(monkeypatch):
    cluster = Cluster(monkeypatch, 5, jobs=1000)
    cluster.run(120)
    calls = len(cluster.calls)
    cluster.run(3600)
    assert 55 <= len(cluster.calls) - calls <= 65
    cluster.limit = 400  # other workflows' jobs have ended, of which nobody tells
    cluster.run(90)
    assert cluster.queued == 400


def test_an_ended_job_that_still_counts_is_no_reason_to_stop_trying(monkeypatch):
    cluster = Cluster(monkeypatch, 5, jobs=20)
    cluster.run(30)
    cluster.queued += 1  # completing, and already seen to have ended
    cluster.end(1)
    cluster.run(5)
    cluster.queued -= 1
    cluster.run(8)
    assert cluster.queued == 5 and len(cluster.done) == 6


def test_one_job_refused_in_an_empty_queue_is_given_up_with_those_like_it(monkeypatch):
    cluster = Cluster(monkeypatch, 0, jobs=3)
    cluster.kept.keep("q", JobBatch(["other"], "smaller"))
    cluster.run(15, own=True)
    assert not cluster.failed and len(cluster.kept) == 4
    while not cluster.failed:
        cluster.run(1, own=True)
    assert cluster.failed == [0, 1, 2] and len(cluster.kept) == 1
    cluster.limit = 1
    cluster.run(15, own=True)
    assert cluster.done == ["other"]


def test_a_limit_that_counts_others_jobs_is_waited_for(monkeypatch):
    cluster = Cluster(monkeypatch, 0, jobs=3)
    cluster.run(4000)
    assert len(cluster.kept) == 3
    cluster.limit = 3
    cluster.run(70)
    assert cluster.done == [0, 1, 2]


def test_scopes_wait_apart_and_nothing_is_taken_after_the_end(monkeypatch):
    cluster = Cluster(monkeypatch, 0, jobs=3)
    assert "q" in cluster.kept and "other" not in cluster.kept
    cluster.kept.keep("other", JobBatch([7], "request"), "full too")
    assert cluster.kept.reasons() == ["full", "full too"]
    assert cluster.kept.close() == 4
    cluster.run(100)
    assert cluster.calls == []
