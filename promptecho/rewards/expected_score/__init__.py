"""The expected score: the mean of the scores that a frozen vision-language model could begin its answer with."""

from promptecho.config.descriptors import Reward
from promptecho.rewards.expected_score.options import MASS, QUESTION, ExpectedScoreSection

REWARD = Reward(
    name="expected_score",
    summary="the mean score by its probabilities",
    build="promptecho.rewards.expected_score.reward:build",
    options=ExpectedScoreSection,
    template=QUESTION,
    unit="score from 0 to 1",
    measures=(MASS,),
)
