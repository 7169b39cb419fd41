"""Settings of contrastive_echo."""

from typing import Literal, Self

from pydantic import Field, model_validator

from promptecho.config.fields import Section, Text
from promptecho.errors import ConfigError
from promptecho.rewards.echo.blanks import BLANK, check_blank


class ContrastiveEchoSection(Section):
    """What the echo is compared with (docs/rewards.md says which of these can change a training)."""

    against: Literal["texts", "blank"] = Field(
        "blank",
        description="blank: the same text given blank images, for rewards of different prompts to be compared; images "
        "of one prompt keep their order. texts: other texts given the same image.",
    )
    blank: Text = Field(
        BLANK,
        description="With `against: blank`: colours with commas between them, or `mean` for the grey of each image's "
        "own brightness.",
    )
    texts: list[Text] = Field(
        default_factory=list,
        description="With `against: texts`: what an image should not be said to show. Each costs a pass per image; one "
        "that is the prompt itself is left out.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.against == "texts") != bool(self.texts):
            raise ValueError("against: texts and a list of texts go together; give both or none")
        if len({*self.texts}) < len(self.texts):
            raise ValueError("texts: each must be there once")
        if blank := [index for index, text in enumerate(self.texts) if not text.strip()]:
            raise ValueError(f"texts[{blank[0]}] is blank; give it a text or remove it")
        if self.against == "texts" and self.blank != BLANK:
            raise ValueError("blank: goes with against: blank")
        if self.blank != BLANK:
            try:
                check_blank(self.blank)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def fixed_texts(self) -> dict[str, str]:
        """By key, what the model is given beside the prompt."""
        return {f"texts[{index}]": text for index, text in enumerate(self.texts)}
