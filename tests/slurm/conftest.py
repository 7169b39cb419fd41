"""One test cluster for all of these tests, or a loud line that says why there is none."""

from __future__ import annotations

import pytest
from cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Cluster:
    lacks = missing()
    if lacks:
        pytest.skip(
            f"NO SLURM CLUSTER: this machine lacks {', '.join(lacks)}; as root, `python "
            "tests/slurm/cluster.py install` brings what is missing"
        )
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "cluster")
    cluster.up()
    yield cluster
    cluster.down()
    assert not cluster.root.exists()
