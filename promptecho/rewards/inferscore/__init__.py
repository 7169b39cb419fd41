"""InferScore: the frozen vision-language model writes how well an image fits its prompt, and the number is read."""

from pathlib import Path

from promptecho.config.descriptors import ReplyOptions, Reward


class InferScoreSection(ReplyOptions):
    """How inferscore asks for a score. The paper compares with it (section 4.3.1) and leaves its settings open."""


REWARD = Reward(
    name="inferscore",
    summary="the VLM writes a score",
    build="promptecho.rewards.inferscore.reward:build",
    options=InferScoreSection,
    template=Path(__file__).with_name("question.txt"),
    not_in_digest=frozenset({"max_failure_share"}),  # when to give up changes no reward
    unit="score from 0 to 1",
    null_elsewhere=True,
)
