"""One test cluster for all of these tests, or a loud line that says why there is none."""

from __future__ import annotations

from itertools import count

import pytest
from cluster import Cluster, missing
from flow import Flow
from memory_limits import lacks_memory_limits


def _cluster(root, **options):
    lacks = missing()
    if lacks:
        pytest.skip(
            f"NO SLURM CLUSTER: this machine lacks {', '.join(lacks)}; as root, `python "
            "tests/slurm/cluster.py install` brings what is missing"
        )
    cluster = Cluster(root)
    cluster.up(**options)
    yield cluster
    cluster.down()
    assert not cluster.root.exists()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Cluster:
    """Preemption comes without warning."""
    yield from _cluster(tmp_path_factory.mktemp("slurm") / "cluster")


@pytest.fixture(scope="session")
def warning_cluster(tmp_path_factory) -> Cluster:
    """Preemption comes with the job's signal and 30 seconds; job arrays have 5 tasks at most; and jobs are held to
    their memory where the machine can do that."""
    yield from _cluster(
        tmp_path_factory.mktemp("slurm") / "warning", preempt_signal=True, max_array_size=5,
        memory_limits=not lacks_memory_limits(),
    )  # fmt: skip


_NUMBERS = count()


@pytest.fixture
def flow(tmp_path):
    """Makes workflows on a cluster; what they leave in the queue is cancelled."""
    made: list[Flow] = []

    def make(cluster: Cluster, snakefile: str) -> Flow:
        folder = tmp_path / f"it's flöw {len(made)}"  # what a shell, or a header of ASCII, would misread
        folder.mkdir()
        made.append(Flow(folder, cluster, snakefile, prefix=f"t{next(_NUMBERS)}"))
        return made[-1]

    yield make
    for one in made:
        left = [job_id for job_id, _, _ in one.queue()]
        if left:
            one.cluster.run("scancel", *left)
            one.wait(lambda one=one: not one.queue(), "an empty queue")
