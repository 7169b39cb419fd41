"""The reward `yes`: by how much a vision-language model prefers "Yes" to "No", asked whether an image shows its prompt.

Copy this folder and change it; docs/extending.md explains every line.
"""

from pathlib import Path

from pydantic import Field

from promptecho.rewards import Reward, RewardContext, Section


class YesOptions(Section):
    """Settings of yes: they stand in an experiment file under `yes`, beside `weight`."""

    answer: str = Field("Yes", min_length=1, description="The answer that speaks for an image.")
    against: str = Field("No", min_length=1, description="The answer that speaks against it.")


class YesReward:
    """log p("Yes") - log p("No") of each image, in nats."""

    def __init__(self, context: RewardContext):
        self.context = context

    def __call__(self, images, prompts, prompt_ids):
        rewards, options = [0.0] * len(images), self.context.options
        for prompt in dict.fromkeys(prompts):  # the images of one prompt go through the model together
            chosen = [index for index, one in enumerate(prompts) if one == prompt]
            shown = [images[index] for index in chosen]
            answers = (self.log_probs(shown, prompt, text) for text in (options.answer, options.against))
            for index, speaks_for, against in zip(chosen, *answers, strict=True):
                rewards[index] = speaks_for - against
        return rewards

    def log_probs(self, images, prompt, answer):
        from promptecho.vlm import label_log_probs  # imports torch, so not at the top of this file

        vlm, question = self.context.vlm, self.context.template.fill(prompt=prompt)
        found = label_log_probs(vlm, images, [answer] * len(images), question, batch_size=self.context.batch_size)
        return [float(one.log_probs.sum()) for one in found]


REWARD = Reward(
    name="yes", summary="Yes or No", build="yes_reward:YesReward", options=YesOptions, unit="log-odds of Yes",
    template=Path(__file__).with_name("question.txt"),
)  # fmt: skip
