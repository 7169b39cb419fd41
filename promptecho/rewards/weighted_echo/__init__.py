"""The echo of content words: PromptEcho with weights for words."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.weighted_echo.options import WeightedEchoSection

REWARD = Reward(
    name="weighted_echo",
    summary="PromptEcho with less weight for function words",
    build="promptecho.rewards.weighted_echo.reward:build",
    options=WeightedEchoSection,
    takes=frozenset({"query", "label"}),
    unit="nats per token",
)
