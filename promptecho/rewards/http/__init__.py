"""A reward that a server gives: any program that speaks a small protocol over HTTP (docs/rewards.md)."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.http.options import NOT_IN_DIGEST, HttpSection

REWARD = Reward(
    name="http",
    summary="a server of your own",
    build="promptecho.rewards.http.reward:build",
    options=HttpSection,
    needs_vlm=False,
    takes=frozenset({"label"}),
    not_in_digest=NOT_IN_DIGEST,
    probe="promptecho.rewards.http.reward:probe",
)
