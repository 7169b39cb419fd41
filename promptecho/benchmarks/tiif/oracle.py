"""Answers to the questions of shapes.py, from what the embedded world's oracle finds in an image."""

from __future__ import annotations

from promptecho.benchmarks.tiif.forms import Sight, WorldOracle, object_rules
from promptecho.shapes.oracle import WELL_FORMED, detect
from promptecho.shapes.world import COLORS

ORACLE = WorldOracle(
    name="oracle",
    world="the embedded world",
    command="promptecho shapes tiif",
    sights=(Sight(detect, object_rules({"color": COLORS}, lambda one: one, WELL_FORMED)),),
)
