"""Settings of echo."""

from typing import Literal

from pydantic import Field

from promptecho.config.fields import Flag, Section


class EchoSection(Section):
    """How the log-probabilities of the label's tokens become one number. The paper's equation 1 is the default."""

    reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="mean: nats per token, the paper's; sum: nats of the whole label. The images of a prompt share its "
        "label, so that with `training.advantage.scale: group_std` both give the same advantages; with `none` and "
        "`global_std` the sum has long prompts weigh more.",
    )
    include_eos: Flag = Field(
        False,
        description="Whether the token that ends the answer counts as the label's last; in the paper it does not.",
    )

    frames: int | None = Field(
        None,
        ge=2,
        description="How many frames of a video the VLM sees, evenly spaced, the first and the last among them; null: "
        "all. Images are not touched.",
    )

    @property
    def variant(self) -> str:
        """What the metrics' names add to the reward's, where its numbers have another unit."""
        return "" if self.reduction == "mean" else self.reduction
