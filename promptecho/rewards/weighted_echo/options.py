"""Settings of weighted_echo."""

from typing import Annotated

from pydantic import AfterValidator, Field

from promptecho.config.fields import Section, Share, Text


def _one_word(word: str) -> str:
    if word != word.lower() or word.split() != [word]:
        raise ValueError(f"{word!r} is never met: give one word, in lower case and without white space")
    return word


class WeightedEchoSection(Section):
    """How much each word of the label counts in the mean of its tokens' log-probabilities."""

    stop_weight: Share = Field(
        0.0, description="Weight of the tokens of stop words and signs; those of all other words have 1. 1: as echo."
    )
    stop_words: list[Annotated[Text, AfterValidator(_one_word)]] | None = Field(
        None,
        description="Words that say nothing of what an image shows, in lower case; null: the project's list of English "
        "function words (promptecho/rewards/weighted_echo/stop_words.py). Signs always count as such.",
    )
