"""How pages about images write numbers and verdicts, and which colours words have. Nothing here imports torch."""

from __future__ import annotations

import bisect
import math

# Where one colour ends and the next begins, in nats. A word below the last but one of LOG_PROB has a probability of at
# most 2 %; changes count in both directions.
LOG_PROB = (-0.1, -0.5, -1.0, -2.0, -4.0, -8.0)
CHANGE = (0.25, 1.0, 2.0, 4.0)
SMALL = 128  # an image whose sides are no longer than that is shown with its pixels as they are


def clean(text: str) -> str:
    """A text that a file can hold: bytes of a file name that are no UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()


def number(value: float, *, sign: bool = False) -> str:
    """With two digits and a real minus; never a negative zero."""
    text = f"{value + 0.0:{'+' if sign else ''}.2f}"
    return text.replace("-0.00", "0.00").replace("+0.00", "0.00").replace("-", "−")


def log_prob_step(value: float) -> int:
    """Which colour: 0 for a word that was to be expected, up to `len(LOG_PROB)`."""
    return sum(value < edge for edge in LOG_PROB)


def change_step(value: float) -> int:
    """Which colour: 0 where nothing changes, positive where the word becomes likelier."""
    step = bisect.bisect_right(CHANGE, abs(value))
    return step if value > 0 else -step


def log_prob_legend() -> list[tuple[str, str]]:
    """Class and meaning of each colour, the least likely first."""
    edges = [number(edge).rstrip("0").rstrip(".") for edge in LOG_PROB]
    chances = [percent(edge) for edge in LOG_PROB]
    told = [f"above {edges[0]} (likelier than {chances[0]})"]
    told += [f"{high} to {low}" for high, low in zip(edges, edges[1:], strict=False)]
    told.append(f"below {edges[-1]} (less likely than {chances[-1]})")
    return [(f"p{step}", text) for step, text in enumerate(told)][::-1]


def percent(log_prob: float) -> str:
    """The probability of a log-probability."""
    return f"{100 * math.exp(log_prob):.2g} %"


def change_legend() -> list[tuple[str, str]]:
    """Class and meaning of each colour, from much less likely to much likelier."""
    edges = [f"{edge:g}" for edge in CHANGE]
    more = [f"+{low} to +{high}" for low, high in zip(edges, edges[1:], strict=False)] + [f"above +{edges[-1]}"]
    less = [f"−{high} to −{low}" for low, high in zip(edges, edges[1:], strict=False)] + [f"below −{edges[-1]}"]
    here = f"−{edges[0]} to +{edges[0]}"
    steps = range(len(CHANGE), 0, -1)
    return [(f"c{-step}", less[step - 1]) for step in steps] + [("c0", here)] + [
        (f"c{step}", more[step - 1]) for step in reversed(steps)
    ]  # fmt: skip


def verdict_text(outcome: float | None, difference: bool = False) -> str:
    """What a benchmark says of an image, in words.

    Args:
        outcome: 0 to 1; None where the judging failed.
        difference: it compares with the baseline's image, from -1 to 1.
    """
    if outcome is None:
        return "judging failed"
    if difference:
        return {1: "won", -1: "lost"}.get(int(outcome), "tie")
    return {0.0: "wrong", 1.0: "right"}.get(outcome, f"{outcome:.2f}")
