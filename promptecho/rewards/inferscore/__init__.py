"""InferScore: the frozen vision-language model writes how well an image fits its prompt, and the number is read."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.inferscore.options import QUESTION, InferScoreSection

REWARD = Reward(
    name="inferscore",
    summary="the VLM writes a score",
    build="promptecho.rewards.inferscore.reward:build",
    options=InferScoreSection,
    template=QUESTION,
    not_in_digest=frozenset({"max_failure_share"}),  # when to give up changes no reward
    unit="score from 0 to 1",
    null_elsewhere=True,
)
