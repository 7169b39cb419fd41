"""The rules of pairwise comparison: order, outcome and rates. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from promptecho.errors import DataError
from promptecho.seeds import derive_seed

Preference = Literal["image_a", "image_b", "tie"]
PREFERENCES: tuple[Preference, ...] = get_args(Preference)


def is_swapped(seed: int, prompt_id: str, image_index: int) -> bool:
    """Whether the baseline's image is shown first: so for half of the pairs (paper 4.2.1).

    The paper gives no seed and the authors' script draws again at each run; here the order is a function of seed and
    pair, so that a comparison asked again is the same question.
    """
    return derive_seed(seed, "densealign", "swap", prompt_id, image_index) % 2 == 1


def outcome_of(preference: str, swapped: bool) -> int:
    """1 the candidate wins, 0 tie, -1 the baseline wins; `preference` is about the images as they were shown.

    Raises:
        DataError: `preference` is none of PREFERENCES.
    """
    if preference not in PREFERENCES:
        raise DataError(f"preference {preference!r}: expected {', '.join(PREFERENCES)}")
    if preference == "tie":
        return 0
    return 1 if (preference == "image_a") != swapped else -1


def rates(outcomes: Sequence[float]) -> dict[str, float]:
    """win, tie and loss as fractions of all comparisons, and net = (wins - losses) / n.

    Net comes from the counts: the difference of printed rates can be 0.1 points off it, as in the paper's Table 1.

    Raises:
        DataError: no outcome.
    """
    n = len(outcomes)
    if n == 0:
        raise DataError("no comparison has an outcome; score again")
    wins, losses = (sum(1 for outcome in outcomes if outcome == sign) for sign in (1, -1))
    return {"net": (wins - losses) / n, "win": wins / n, "tie": (n - wins - losses) / n, "loss": losses / n}
