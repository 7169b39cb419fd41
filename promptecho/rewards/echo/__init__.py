"""The PromptEcho reward: how likely a frozen vision-language model finds the prompt as its own answer."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.echo.options import EchoSection

REWARD = Reward(
    name="echo",
    summary="PromptEcho",
    build="promptecho.rewards.echo.reward:build",
    options=EchoSection,
    takes=frozenset({"query", "label", "include_eos"}),
    unit="nats per token",
    reads_videos=True,
)
