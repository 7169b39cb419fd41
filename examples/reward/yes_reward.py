"""The reward `yes`: by how much a vision-language model prefers "Yes" to "No", asked whether an image shows its prompt.

Copy this folder and change it; docs/extending.md explains every line.
"""

from pydantic import Field

from promptecho.rewards import Reward, RewardContext, Section


class YesOptions(Section):
    """Settings of yes: they stand in an experiment file under `yes`, beside `weight`."""

    question: str = Field("Does this image show: {prompt}", pattern=r"\{prompt\}", description="What the VLM is asked.")


class YesReward:
    """log p("Yes") - log p("No") of each image, in nats."""

    def __init__(self, context: RewardContext):
        self.vlm, self.question, self.batch_size = context.vlm, context.options.question, context.batch_size

    def __call__(self, images, prompts, prompt_ids):
        rewards = [0.0] * len(images)
        for prompt in dict.fromkeys(prompts):  # the images of one prompt go through the model together
            chosen = [index for index, one in enumerate(prompts) if one == prompt]
            yes, no = (self.log_probs([images[index] for index in chosen], prompt, answer) for answer in ("Yes", "No"))
            for index, for_yes, for_no in zip(chosen, yes, no, strict=True):
                rewards[index] = for_yes - for_no
        return rewards

    def log_probs(self, images, prompt, answer):
        from promptecho.vlm import label_log_probs  # imports torch, so not at the top of this file

        question = self.question.replace("{prompt}", prompt)
        found = label_log_probs(self.vlm, images, [answer] * len(images), question, batch_size=self.batch_size)
        return [float(one.log_probs.sum()) for one in found]


REWARD = Reward(
    name="yes", summary="Yes or No", build="yes_reward:YesReward", options=YesOptions, unit="log-odds of Yes"
)
