"""Which words of a caption carry the difference between good and bad images.

A word's log-probability is the sum over its tokens (promptecho/vlm/words.py). Its signal is the mean over the good
images of a caption less the mean over the bad ones, in nats: what the word says for a good image. Words that say
nothing of the image have none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptecho.rewards.weighted_echo.stop_words import is_stop_word


def bare(word: str) -> str:
    """A word as tables call it: in lower case; the end token has no text."""
    return word.lower() or "(end)"


@dataclass(frozen=True)
class CaptionSignal:
    """One caption: its words, and the signal of each [nats]."""

    prompt_id: str
    caption: str
    words: tuple[str, ...]
    signals: tuple[float, ...]


def signal_of(
    prompt_id: str,
    caption: str,
    good: Sequence[Sequence[tuple[str, float]]],
    bad: Sequence[Sequence[tuple[str, float]]],
) -> CaptionSignal:
    """From the words of the caption on each good and each bad image."""
    means = [np.mean([[value for _, value in one] for one in some], axis=0) for some in (good, bad)]
    return CaptionSignal(
        prompt_id, caption, tuple(word for word, _ in good[0]), tuple(float(x) for x in means[0] - means[1])
    )


def word_table(signals: Sequence[CaptionSignal]) -> list[dict]:
    """For each word: how many captions have it, its mean signal with a 95 % interval (Student's t over captions; none
    for fewer than three), and its share in all signal. The strongest first."""
    from scipy.special import stdtrit

    values: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    total = 0.0
    for one in signals:
        for word, value in zip(one.words, one.signals, strict=True):
            values[bare(word)][one.prompt_id] += value
            total += value
    rows = []
    for word, by_caption in values.items():
        some = np.array([by_caption[key] for key in sorted(by_caption)])
        half = None
        if len(some) >= 3:
            half = float(stdtrit(len(some) - 1, 0.975) * some.std(ddof=1) / math.sqrt(len(some)))
        mean = float(some.mean())
        rows.append(
            {
                "word": word, "stop_word": is_stop_word(word), "n": len(some), "signal": mean,
                "low": None if half is None else mean - half, "high": None if half is None else mean + half,
                "share": float(some.sum()) / total if total else None,
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: (-row["signal"], row["word"]))


def by_class(signals: Sequence[CaptionSignal]) -> dict[str, dict]:
    """Stop words with signs, and all others: occurrences, mean signal of one [nats], and share in all signal."""
    sums: dict[str, list[float]] = {"stop words and signs": [], "other words": []}
    for one in signals:
        for word, value in zip(one.words, one.signals, strict=True):
            sums["stop words and signs" if is_stop_word(word) else "other words"].append(value)
    total = math.fsum(value for some in sums.values() for value in some)
    return {
        name: {
            "n": len(some), "signal": math.fsum(some) / len(some) if some else None,
            "share": math.fsum(some) / total if total else None,
        }
        for name, some in sums.items()
    }  # fmt: skip
