"""Signs in a run's rows that the reward rises for the wrong reason, or that training comes apart.

They are hints for a person, not tests: thresholds are round numbers, chosen so that a healthy run shows none.
"""

from __future__ import annotations

import math
from statistics import fmean, median, stdev

from promptecho.train.metrics import Row, series

WINDOW = 5  # iterations averaged at either end of a run
FEWEST = 6  # rows below which nothing is said
DIVERSITY_LOSS = 0.5
BELOW_EPS = 0.5
KL_GROWTH = 3.0  # a KL that grows linearly ends at 2 times its median, a quadratic one at 4 times


def ends(values: list[float], window: int = WINDOW) -> tuple[list[float], list[float]]:
    """First and last values of a series, `window` each, fewer where they would overlap."""
    size = min(window, max(1, len(values) // 2))
    return values[:size], values[-size:]


def change(values: list[float], window: int = WINDOW) -> float | None:
    """Mean of the last `window` values minus mean of the first; None with fewer than two values."""
    if len(values) < 2:
        return None
    first, last = ends(values, window)
    return fmean(last) - fmean(first)


def rises(values: list[float]) -> bool:
    """Whether the end of a noisy series lies above its start by more than the standard error of the difference."""
    if len(values) < FEWEST:
        return False
    first, last = ends(values)
    noise = math.sqrt(stdev(first) ** 2 / len(first) + stdev(last) ** 2 / len(last))
    return fmean(last) - fmean(first) > noise


def warning_signs(rows: list[Row]) -> list[str]:
    """One line per sign, each with its why; [] for a healthy run or too few rows."""
    signs = _not_finite(rows)
    if signs:
        return signs
    reward = [value for _, value in series(rows, "reward_mean")]
    rising = rises(reward)
    gain = f"reward {change(reward):+.3g}" if rising else ""
    diversity = [value for _, value in series(rows, "diversity")]
    if rising and len(diversity) >= FEWEST:
        first, last = map(fmean, ends(diversity))
        if last < (1 - DIVERSITY_LOSS) * first:
            signs.append(
                f"{gain} while diversity fell by {1 - last / first:.0%}: images of one prompt become alike, the policy "
                "repeats what the reward model likes; raise kl_ema.weight or kl_base.weight, look at the samples"
            )
    for key, name in (("kl_base", "KL to the base"), ("kl_ema", "KL to the moving average")):
        kl = [value for _, value in series(rows, key)]
        if len(kl) >= 2 * FEWEST:
            # Medians: one iteration with a few timesteps near 0, where the elbo weight is large, is no trend.
            last, usual = median(ends(kl)[1]), median(kl)
            if usual > 0 and last > KL_GROWTH * usual:
                signs.append(
                    f"{name} is {last / usual:.1f} times its median and grows ever faster: the policy runs away from "
                    "where its rewards were measured; lower learning_rate or raise the KL's weight"
                )
    heldout = [value for _, value in series(rows, "heldout_reward")]
    if rising and len(heldout) >= 3 and (heldout[-1] < heldout[-2] < heldout[-3] or heldout[-1] < heldout[0]):
        signs.append(
            f"{gain} while the held-out reward fell to {heldout[-1]:.3g} from {max(heldout) + 0.0:.3g}: the gain does "
            "not carry over to new prompts; take the checkpoint before the fall, use more captions or stop earlier"
        )
    if rows and (sign := below_eps(rows[-1])):
        signs.append(sign)
    return signs


def below_eps(row: Row) -> str:
    """What a large share of gradient elements below Adam's epsilon means; "" where it is not large, or not told."""
    share = row.get("grad_below_eps", 0.0)
    if share <= BELOW_EPS:
        return ""
    return (
        f"{share:.0%} of the gradient's elements lie below Adam's epsilon, which halves their steps at least; lower "
        "training.adam_eps (a hundred times), or scale advantages (training.advantage.scale: global_std)"
    )


def _not_finite(rows: list[Row]) -> list[str]:
    for row in rows:
        for key, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                return [f"{key} is {value} at iteration {row['iteration']}: nothing after it can be trusted"]
    return []
