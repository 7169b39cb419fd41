"""Settings of expected_score, and the question that it asks."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from promptecho.config.fields import Section, Text

QUESTION = Path(__file__).with_name("question.txt")
MASS = "number_mass"
Score = Annotated[int, Field(ge=0, le=10, strict=True)]


class ExpectedScoreSection(Section):
    """How the model is asked for a score, and which numbers count. One pass; nothing is written."""

    lowest: Score = Field(
        0, description="Lowest score that the question allows, a whole number. Another than 0 needs a `template`."
    )
    highest: Score = Field(
        10,
        description="Highest score, up to 10; another than 10 needs a `template`. The reward is 0 at `lowest` and 1 at "
        "`highest`.",
    )
    opening: str = Field(
        "",
        description="Text with which the answer is made to begin, before the number, for a model that was taught to "
        "answer in another form, such as '{\"score\": '.",
    )
    template: Text | None = Field(
        None,
        description="Text file with the question, {prompt} standing for the prompt; null: the one that ships with "
        "the project, which is inferscore's but for the form of the answer. It should name `lowest` and `highest`, and "
        "ask for a whole number alone.",
    )

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest} must be below highest {self.highest}")
        if self.template is None and (self.lowest, self.highest) != (0, 10):
            raise ValueError(
                f"lowest {self.lowest} and highest {self.highest} need a template that asks for such scores; the "
                "question that ships with the project asks for 0 to 10"
            )
        return self

    @property
    def answer_tokens(self) -> int:
        """At most so many tokens has the answer that the model is given: no tokenizer makes more than bytes."""
        return len(f"{self.opening}10".encode(errors="replace"))

    @property
    def fixed_texts(self) -> dict[str, str]:
        """By key, what the model is given beside the prompt."""
        return {"opening": self.opening} if self.opening else {}
