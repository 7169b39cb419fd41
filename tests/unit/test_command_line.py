"""Settings that Snakemake drops from its command line are found, and nothing is said of a line that is not its own."""

from __future__ import annotations

import pytest

from promptecho.config.command_line import lost_settings


@pytest.mark.parametrize(
    ("line", "taken", "lost"),
    [
        ("-n --config a=1 b=2 -- all", "a=1 b=2", ""),
        ("--config a=1 --cores 2 --config b=2 c=3 -- all", "b=2 c=3", "a=1"),
        ("-C a=1 d=4 --config=b=2 all", "b=2", "a=1 d=4"),
        ("--config=a=1 all -Cb=2 -n", "b=2", "a=1"),
        ("--config a=1 b=2 -n --config b=2 -- --config c=3", "b=2", "a=1"),
        ("--config a=1 -n --config a=1", "a=1", ""),
        ("--configfile x.yaml --config a=1", "a=1", ""),
        ("doctor --config tiny.yaml --config other.yaml", "b=2", ""),
        ("all", "", ""),
    ],
)
def test_settings_of_all_but_the_last_are_lost(line, taken, lost):
    assert lost_settings(line.split(), taken.split()) == lost.split()
