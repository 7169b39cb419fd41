"""Settings of inferscore, and the question that it asks."""

from pathlib import Path

from promptecho.config.descriptors import ReplyOptions

QUESTION = Path(__file__).with_name("question.txt")


class InferScoreSection(ReplyOptions):
    """How inferscore asks for a score. The paper compares with it (section 4.3.1) and leaves its settings open."""
