"""What the embedded worlds' VLMs are asked besides for a caption, and how a score is answered."""

import json

PLACES_QUERY = "Where is what?"
SCORE_QUERY = "Score from 0 to 10, as JSON, how well this image shows: {prompt}"


def write_score(right: int, facts: int) -> str:
    """The reply to `SCORE_QUERY`: 10 where every fact is shown, otherwise ten times the share that is, rounded down."""
    return json.dumps({"score": 10 * right // facts})


SCORE_CORPUS = (SCORE_QUERY.format(prompt=""), write_score(1, 2))  # its words, for a tokenizer to learn
