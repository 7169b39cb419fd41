"""The reward `my_clipscore`: how near CLIP finds an image to its prompt, without a vision-language model that writes.

CLIPScore (Hessel et al. 2021, arXiv 2104.08718, section 3): 2.5 * max(cos(E_image, E_text), 0), with "A photo depicts "
before the text, as the authors have it. CLIP reads 77 tokens at most; what a longer text says beyond them is not read,
which is counted and told.
"""

import sys

from pydantic import Field

from promptecho.rewards import Reward, RewardContext, Section


class ClipOptions(Section):
    """Settings of my_clipscore: they stand in an experiment file under `my_clipscore`, beside `weight`."""

    path: str = Field("openai/clip-vit-base-patch32", min_length=1, description="Folder or hub id of a CLIP model.")
    revision: str | None = Field(None, description="Hub revision (commit); null: the folder as it is.")
    prefix: str = Field("A photo depicts ", description="What stands before each text; empty: nothing.")


class ClipReward:
    """2.5 * max(cos, 0) of each image, from 0 to 2.5."""

    def __init__(self, context: RewardContext):
        from transformers import CLIPModel, CLIPProcessor  # imports torch, so not at the top of this file

        self.context, options = context, context.options
        self.processor = CLIPProcessor.from_pretrained(options.path, revision=options.revision)
        self.model = CLIPModel.from_pretrained(options.path, revision=options.revision).eval().to(context.device)
        self.most = self.model.config.text_config.max_position_embeddings
        self.lengths: dict[str, int] = {}  # of the texts asked so far, in tokens

    def __call__(self, images, prompts, prompt_ids):
        import torch

        texts = [self.context.options.prefix + prompt for prompt in prompts]
        self._count(texts)
        rewards, step = [], self.context.batch_size
        for start in range(0, len(images), step):
            inputs = self.processor(
                text=texts[start : start + step], images=[one.convert("RGB") for one in images[start : start + step]],
                padding=True, truncation=True, max_length=self.most, return_tensors="pt",
            ).to(self.context.device)  # fmt: skip
            with torch.inference_mode():
                found = self.model(**inputs)  # its embeddings have length 1
            rewards += (2.5 * (found.image_embeds * found.text_embeds).sum(-1).clamp(min=0)).tolist()
        return rewards

    def details(self, images, prompts, prompt_ids):
        """As the call; with `--json` also how many tokens a text has and whether it was cut."""
        from promptecho.rewards import Details

        rewards = self(images, prompts, prompt_ids)
        lengths = [self.lengths[self.context.options.prefix + prompt] for prompt in prompts]
        facts = [{"tokens": length, "truncated": length > self.most} for length in lengths]
        cut = sum(one["truncated"] for one in facts)
        told = f"; {cut} of {len(facts)} texts are longer and were cut" if cut else ""
        return Details(rewards, facts, f"2.5 * max(cos, 0); CLIP reads {self.most} tokens{told}")

    def _count(self, texts):
        """Tell of texts that are too long, at the 1st, the 10th, the 100th and so on."""
        for text in texts:
            if text in self.lengths:
                continue
            self.lengths[text] = len(self.processor.tokenizer(text, verbose=False)["input_ids"])
            cut = sum(length > self.most for length in self.lengths.values())
            if self.lengths[text] > self.most and set(str(cut)[1:]) <= {"0"} and str(cut)[0] == "1":
                print(
                    f"my_clipscore: {cut} of {len(self.lengths)} texts so far are longer than the {self.most} tokens "
                    f"that CLIP reads; what is beyond is not read: {text[:60]!r} ...",
                    file=sys.stderr, flush=True,
                )  # fmt: skip


REWARD = Reward(
    name="my_clipscore", summary="CLIPScore", build="clip_reward:ClipReward", options=ClipOptions, needs_vlm=False,
    unit="2.5 x cosine",
)  # fmt: skip
