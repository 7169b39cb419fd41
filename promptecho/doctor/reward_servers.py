"""Servers that give rewards: whether each answers, and as who it is to be."""

from __future__ import annotations

from collections.abc import Iterator

from promptecho.config import run_rewards
from promptecho.doctor.finding import Finding, fine, problem, unchecked
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import PromptEchoError
from promptecho.plugins import import_object

PATIENCE_S = 10.0


def reward_servers(preflight: Preflight) -> Iterator[Finding]:
    """Ask each server of the runs' rewards once who it is; one that several runs have is asked once."""
    seen = set()
    for run in preflight.names("train"):
        for entry in run_rewards(preflight.config, run):
            asked = entry.reward.probe and f"{entry.name} {entry.options.model_dump_json()}"
            if not asked or asked in seen:
                continue
            seen.add(asked)
            when = f"{JOBS['train']} of {run}"
            told = f"reward {entry.name}: {entry.options.endpoint}: not asked"
            if not preflight.network:
                yield unchecked(told, when, "look where the network may be asked")
                continue
            try:
                who = import_object(entry.reward.probe, f"reward {entry.name}")(entry.options, PATIENCE_S)
                yield fine(f"reward {entry.name}: {who}")
            except PromptEchoError as error:
                yield problem(str(error), when, "start the server, or correct the entry of rewards (docs/rewards.md)")
