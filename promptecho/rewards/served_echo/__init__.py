"""PromptEcho by a server that gives log-probabilities of a prompt's tokens (vLLM's `prompt_logprobs`)."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.http.options import NOT_IN_DIGEST
from promptecho.rewards.served_echo.options import ServedEchoSection

REWARD = Reward(
    name="served_echo",
    summary="PromptEcho by a server with vLLM's `prompt_logprobs`",
    build="promptecho.rewards.served_echo.reward:build",
    options=ServedEchoSection,
    needs_vlm=False,
    takes=frozenset({"query", "label"}),
    not_in_digest=NOT_IN_DIGEST,
    unit="nats per token",
    probe="promptecho.rewards.served_echo.reward:probe",
)
