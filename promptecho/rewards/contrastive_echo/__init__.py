"""The contrastive echo: how much likelier the prompt is given the image than something else is."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.contrastive_echo.options import ContrastiveEchoSection

REWARD = Reward(
    name="contrastive_echo",
    summary="PromptEcho less that of blank images or other texts",
    build="promptecho.rewards.contrastive_echo.reward:build",
    options=ContrastiveEchoSection,
    takes=frozenset({"query", "label"}),
    unit="nats per token",
)
