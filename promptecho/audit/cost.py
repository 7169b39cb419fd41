"""What 1,000 rewards cost: seconds measured here, tokens, and FLOPs as `promptecho plan` counts them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from promptecho.audit.material import Ask
from promptecho.audit.rated import Candidate, RatedAll
from promptecho.config.descriptors import reward_named
from promptecho.errors import PromptEchoError

PER = 1000


def cost_of(candidate: Candidate, asks: Sequence[Ask], rated: RatedAll) -> dict:
    """Seconds, tokens and FLOPs of 1,000 images; None where they are not known, with the reason.

    FLOPs: the passes of the VLM over an image of median size and a text of the mean number of tokens, counted by
    running its code without values. Replies that a VLM writes are counted at their longest.
    """
    lengths = [one.tokens for one in rated.by_ask.values() if one.tokens]
    result: dict = {
        "seconds": rated.seconds / max(len(asks), 1) * PER, "text_tokens": fmean(lengths) if lengths else None,
        "input_tokens": None, "flops": None, "why_not": "",
    }  # fmt: skip
    if candidate.vlm is None:
        return result | {"why_not": "the reward has no VLM; what its code computes is not counted"}
    try:
        return result | _planned(candidate, asks, round(fmean(lengths)) if lengths else 32)
    except (PromptEchoError, NotImplementedError, RuntimeError, ValueError, TypeError) as error:
        # Code of a model or reward that cannot run without values.
        return result | {"why_not": " ".join(str(error).split())[:200]}


def _planned(candidate: Candidate, asks: Sequence[Ask], tokens: int) -> dict:
    from promptecho.config.models import VlmSection
    from promptecho.config.rewards import RewardSection
    from promptecho.models.inventory import model_status
    from promptecho.models.required import RequiredModel
    from promptecho.plan.costs import VlmCosts

    assert candidate.vlm is not None
    section = VlmSection(
        path=candidate.vlm, revision=candidate.revision, dtype=candidate.dtype,
        trust_remote_code=candidate.trust_remote_code,
    )  # fmt: skip
    found = model_status(RequiredModel(candidate.vlm, "transformers", candidate.revision, ("--vlm",)), None)
    sizes = [ask.image.open().size for ask in asks[:: max(1, len(asks) // 50)]]
    size = (round(median(width for width, _ in sizes)), round(median(height for _, height in sizes)))
    costs = VlmCosts(found, section, size=size, prompt_tokens=tokens)
    given = {} if candidate.options is None else {candidate.reward: candidate.options.model_dump()}
    entry = RewardSection.model_validate({"name": candidate.reward, "query": candidate.query, **given})
    question = candidate.query or ""
    flops = costs.reward(1, entry, question).total
    if reward_named(candidate.reward).writes:
        options = candidate.options
        flops += costs.more_tokens(1, entry, options.max_new_tokens).total
        flops *= options.samples
        inputs = costs.input_tokens(entry)
    elif entry.reward.template_file(entry.options) is not None:
        inputs = costs.input_tokens(entry)
    else:
        inputs = costs.question_tokens(question)
    return {"flops": flops * PER, "input_tokens": inputs}
