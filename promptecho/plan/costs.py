"""What each piece of training and evaluation takes: FLOPs and peak memory of the code that does it, traced.

A figure is computed when somebody asks for it, and then kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from promptecho.config.fields import CheckpointingMode
from promptecho.config.models import T2iSection
from promptecho.config.rewards import RewardSection, VlmSection
from promptecho.config.training import TrainingConfig
from promptecho.models.inventory import ModelStatus
from promptecho.plan.architectures import META, build_family, build_vlm, n_bytes
from promptecho.plan.depth import Deep, trace_deep
from promptecho.plan.stand_ins import words
from promptecho.plan.trace import Cost, trace
from promptecho.video import Video
from promptecho.vlm.sharding import find_blocks

T2I_SHALLOW = 2
VLM_SHALLOW = 4  # Qwen3-VL adds vision features to its first three layers


class Known:
    """Values by key, each computed once."""

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._values:
            self._values[key] = make()
        return self._values[key]


class T2iCosts:
    """The text-to-image model with what is trained, an adapter or all its weights.

    Args:
        checkpointing: what `loss` computes again.
        fold: the adapter is folded into weights of half precision, too.
        prompt_tokens: length of a prompt in tokens of its text encoders.
    """

    def __init__(
        self, found: ModelStatus, section: T2iSection, training: TrainingConfig, *,
        checkpointing: CheckpointingMode = "off", fold: bool = False, prompt_tokens: int,
    ) -> None:  # fmt: skip
        from promptecho.t2i.checkpointing import use_checkpointing
        from promptecho.t2i.lora import folded_bytes, trained_parameters
        from promptecho.t2i.trained import make_trainable

        self.section, self.prompt_tokens, self._known = section, prompt_tokens, Known()
        self.family = family = build_family(found, section)
        self.transformer_bytes = n_bytes(family.transformer)
        self.transformer_params = sum(p.numel() for p in family.transformer.parameters())
        parts = [(one, getattr(family.pipeline, one.part)) for one in family.descriptor.text_encoders]
        encoders = [encoder for _, encoder in parts if encoder is not None]
        self.text_encoder_bytes = sum(n_bytes(encoder) for encoder in encoders)
        self.vae_bytes = n_bytes(family.pipeline.vae)
        self._deep = Deep(family.transformer, T2I_SHALLOW)
        self._deep_encoders = [
            Deep(encoder, max(T2I_SHALLOW, one.deepest_state)) for one, encoder in parts if encoder is not None
        ]
        use_checkpointing(family, checkpointing)
        family.transformer = self._adapted = make_trainable(family.transformer, training, family.lora_targets)
        self._trained = lambda: list(trained_parameters(self._adapted).values())
        self.trained_params = self._deep.number(lambda: sum(p.numel() for p in self._trained()))
        self.adapter_bytes = 4 * self.trained_params * (training.finetuning == "lora")  # beside the transformer
        self._fold = fold
        self.folded_bytes = self._deep.number(lambda: folded_bytes(self._adapted, half=fold))
        self._shape = family.latent_shape(section.height, section.width)
        self.latent_bytes = 4 * torch.Size(self._shape).numel()

    @property
    def prompt_bytes(self) -> int:
        """Of one prompt's embedding."""
        return self._prompt.numel() * self._prompt.element_size()

    def encode(self) -> Cost:
        """One prompt."""
        texts = [words(self.prompt_tokens)]
        return self._known.get(
            "encode", lambda: trace_deep(self._deep_encoders, lambda: self.family.encode_prompts(texts))
        )

    def sample_step(self, n: int, guidance_scale: float) -> Cost:
        """One step of the ODE for `n` images together, with guidance, without gradient; the adapter folded in where
        training folds it."""
        from promptecho.t2i.lora import merged

        x, t, cond = self._inputs(n)

        def step() -> Any:
            with torch.no_grad():
                return x + t[0] * self.family.guided_velocity(x, t, cond, guidance_scale)

        def traced() -> Cost:
            with merged(self._adapted, half=self._fold):
                return self._deep.trace(step)

        # By how much it guides changes nothing; families differ in where guidance begins, at 0 or at 1.
        return self._known.get(("sample", n, guidance_scale > 0, guidance_scale > 1), traced)

    def decode(self, n: int) -> Cost:
        """Latents of `n` images to images."""
        latents = torch.empty((n, *self._shape), device=META)
        return self._known.get(("decode", n), lambda: trace(lambda: self.family.decode(latents)))

    def velocity(self, n: int, training: TrainingConfig) -> Cost:
        """The loss's velocity for `n` images without gradient."""
        from promptecho.train.losses import velocity

        x, t, cond = self._inputs(n)

        def once() -> Any:
            with torch.no_grad():
                return velocity(self.family, x, t, cond, training)

        return self._known.get(("velocity", n, _guidance(training)), lambda: self._deep.trace(once))

    def loss(self, n: int, training: TrainingConfig) -> Cost:
        """Loss and gradient of `n` images: one micro-batch. The gradients' own memory counts once more, as they are
        added to those of the micro-batches before."""
        from promptecho.train.deal import timesteps_per_forward
        from promptecho.train.losses import loss_of

        per_forward = timesteps_per_forward(training)
        batch = self._batch(n, per_forward, training)

        def once() -> None:
            loss_of(self.family, batch, training)[0].backward()

        def traced() -> Cost:
            try:
                for parameter in self._trained():
                    parameter.grad = torch.empty_like(parameter)
                return self._deep.trace(once)
            finally:
                for parameter in self._trained():
                    parameter.grad = None

        kl = training.kl_base.weight > 0, training.kl_ema.weight > 0
        key = ("loss", n, per_forward, training.algorithm, training.weighting, *kl)
        return self._known.get((*key, _guidance(training)), traced)

    @property
    def _prompt(self) -> torch.Tensor:
        """The embedding of a prompt."""
        return self._known.get("prompt", lambda: self._encoded(words(self.prompt_tokens)))

    def _encoded(self, text: str) -> torch.Tensor:
        result: list[torch.Tensor] = []
        trace(lambda: result.extend(self.family.encode_prompts([text])))
        return result[0]

    def _inputs(self, n: int) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        self._known.get("negative", lambda: self.family.set_negative(self._encoded(self.family.negative_prompt)))
        return torch.empty((n, *self._shape), device=META), torch.empty(n, device=META), [self._prompt] * n

    def _batch(self, n: int, times: int, training: TrainingConfig) -> Any:
        from promptecho.train.data import Batch

        x0, _, cond = self._inputs(n)
        noise = torch.empty((times, *x0.shape), device=META)

        def reference(used: bool) -> torch.Tensor | None:
            return torch.empty_like(noise) if used else None

        times_of = torch.empty((times, n), dtype=torch.float64, device=META)
        stored = {
            "awm": {},
            "nft": {"old_velocity": noise},
            "grpo": {"x_t": noise, "x_next": noise, "t_next": times_of, "std": times_of},
        }
        return Batch(
            ["0"] * n, x0, cond, torch.empty(n, dtype=torch.float64, device=META),
            torch.empty((times, n), device=META), noise, torch.empty((times, n), dtype=torch.float64, device=META),
            reference(training.kl_base.weight > 0), reference(training.kl_ema.weight > 0), stored[training.algorithm],
        )  # fmt: skip


class VlmCosts:
    """A reward's VLM.

    `block_bytes`: of each layer that is gathered as one where the weights are sharded, the largest first;
    `rest_bytes`: all else. `text_bytes`: what a pass without images goes through. `frames`: of what rewards look at.
    """

    def __init__(
        self, found: ModelStatus, section: VlmSection, *, size: tuple[int, int], prompt_tokens: int, frames: int = 1
    ) -> None:
        self._known, self.prompt_tokens, self.frames = Known(), prompt_tokens, frames
        self.vlm = vlm = build_vlm(found, section)
        self.image = Image.new("RGB", size, "grey")
        self.bytes = n_bytes(vlm.model)
        self.params = sum(p.numel() for p in vlm.model.parameters())
        self.block_bytes = sorted((n_bytes(block) for block in find_blocks(vlm.model)), reverse=True)
        self.rest_bytes = self.bytes - sum(self.block_bytes)
        self.text_bytes = self.bytes - _vision_bytes(vlm.model)
        self._deep = Deep(vlm.model, VLM_SHALLOW)
        self._label = self._text(prompt_tokens)

    def reward(self, n: int, entry: RewardSection, query: str) -> Cost:
        """Rewards of `n` images together, the passes of the VLM: the reward's own code runs without values. Of replies
        that the VLM writes, up to the first token of one for each image."""
        options = self._settings(entry, 1)
        asked = entry.query or query
        told = None if options is None else options.model_dump_json()
        return self._known.get(
            ("reward", n, entry.name, asked, told),
            lambda: self._deep.trace(lambda: self._ask(self._built(entry, options, asked, n), n)),
        )

    def _built(self, entry: RewardSection, options: Any, query: str, n: int) -> Any:
        from promptecho.rewards.base import RewardContext
        from promptecho.rewards.make import make_reward

        context = RewardContext(vlm=self.vlm, device=META, options=options, query=query, batch_size=n)
        return make_reward(entry.name, context)

    def more_tokens(self, n: int, entry: RewardSection, tokens: int) -> Cost:
        """The rest of `n` replies of `tokens` tokens."""
        return self.more(n, self.input_tokens(entry), tokens, entry.options.temperature)

    def caption_start(self, n: int, query: str) -> Cost:
        """What captions of `n` images take up to their first token."""
        from promptecho.vlm.generation import complete
        from promptecho.vlm.inputs import batch_inputs, render_prompt

        def once() -> Any:
            text = render_prompt(self.vlm, query)
            inputs = batch_inputs(self.vlm, [self.image] * n, [text] * n, padding_side="left")
            return complete(self.vlm, inputs, [""] * n, range(n), max_new_tokens=1, temperature=0.0)

        return self._known.get(("caption", n, query), lambda: self._deep.trace(once))

    def more(self, n: int, length: int, tokens: int, temperature: float) -> Cost:
        """All but the first of `tokens` tokens behind `length` others, `n` together. Each token attends to one more
        than the one before: three short texts tell what all cost."""
        from promptecho.vlm.generation import complete

        def write(k: int) -> Cost:
            ids = torch.full((n, length), 1)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            return self._deep.trace(
                lambda: complete(self.vlm, inputs, [""] * n, range(n), max_new_tokens=k, temperature=temperature)
            )

        def three() -> tuple[Cost, Cost, Cost]:
            return write(1), write(2), write(3)

        one, two, three_tokens = self._known.get(("tokens", n, length), three)
        steps, flops = tokens - 1, {}
        for kind in three_tokens.flops:
            first = two.flops[kind] - one.flops[kind]
            growth = three_tokens.flops[kind] - two.flops[kind] - first
            flops[kind] = steps * first + growth * steps * (steps - 1) // 2
        return Cost(flops, three_tokens.peak + n * self.cache_bytes(tokens) if steps else 0)

    def _settings(self, entry: RewardSection, tokens: int) -> Any:
        if not entry.reward.writes:
            return entry.options
        return entry.options.model_copy(update={"max_new_tokens": tokens, "samples": 1})

    def cache_bytes(self, tokens: int) -> int:
        """Keys and values of `tokens` tokens in all layers."""
        config = self.vlm.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * heads * width * tokens * self.vlm.model.dtype.itemsize

    def input_tokens(self, entry: RewardSection) -> int:
        """Tokens of one image with the question about it."""
        from promptecho.templates import read_template

        place = entry.reward.template_file(entry.options)
        question = self._label if place is None else read_template(place).fill(prompt=self._label)
        return self.question_tokens(question)

    def question_tokens(self, question: str) -> int:
        """Tokens of one image with a question."""
        from promptecho.vlm.inputs import batch_inputs, render_prompt

        found: list[int] = []

        def count() -> None:
            text = render_prompt(self.vlm, question)
            inputs = batch_inputs(self.vlm, [self.image], [text], padding_side="left")
            found.append(inputs["input_ids"].shape[1])

        def traced() -> int:
            trace(count)
            return found[0]

        return self._known.get(("input tokens", question), traced)

    def _ask(self, reward: Any, n: int) -> None:
        # Each of another brightness, so that what a reward asks once for each is counted so.
        images = [self._sample(i % 256) for i in range(n)]
        reward.score(images, [self._label] * n, [str(i) for i in range(n)])

    def _sample(self, grey: int) -> Image.Image:
        image = Image.new("RGB", self.image.size, (grey,) * 3)
        return image if self.frames == 1 else Video([image] * self.frames)

    def _text(self, tokens: int) -> str:
        """A text of about `tokens` tokens of this model's own tokenizer."""
        once = len(self.vlm.tokenizer(words(16), add_special_tokens=False).input_ids)
        return words(max(1, round(16 * tokens / once)))


def _guidance(training: TrainingConfig) -> float | None:
    return training.sampling.guidance_scale if training.guides_loss else None


def _vision_bytes(model: torch.nn.Module) -> int:
    """Bytes of what only images go through, as far as the model names it."""
    for name in ("visual", "vision_tower", "vision_model"):
        for path, module in model.named_modules():
            if path.rpartition(".")[2] == name:
                return n_bytes(module)
    return 0
