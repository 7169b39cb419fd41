"""Texts that are only counted: tokenizers that make one token of each word, for models whose own are not here."""

from __future__ import annotations

from typing import Any

import torch

from promptecho.config.families import TextEncoder

WORD = "token"  # one token

CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|> ' + message.role + ' ' }}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{ '<|vision_start|> <|image_pad|> <|vision_end|> ' }}"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{{ ' <|im_end|> ' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|> assistant ' }}{%- endif -%}"
)


def words(n: int) -> str:
    """A text of `n` tokens."""
    return " ".join([WORD] * n)


class CountingTokenizer:
    """What a family asks of a pipeline's tokenizer: ids of a text of `words`, with what else its encoder gets."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.template, self.model_max_length = encoder.template_tokens, encoder.max_length

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return messages[0]["content"]

    def batch_decode(self, ids: torch.Tensor, **_: Any) -> list[str]:
        return [""] * len(ids)

    def __call__(
        self, text: str | list[str], *, padding: Any = False, truncation: Any = False, max_length: int | None = None,
        **_: Any,
    ) -> Any:  # fmt: skip
        from transformers import BatchEncoding

        texts = [text] if isinstance(text, str) else text
        counts = [one.split().count(WORD) + self.template for one in texts]
        longest = self.model_max_length if max_length is None else max_length
        if truncation:
            counts = [min(count, longest) for count in counts]
        length = longest if padding == "max_length" else max(counts)
        ids = torch.zeros((len(texts), length), dtype=torch.int64)
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def counting_processor(preprocessor: dict[str, Any], config: dict[str, Any]) -> Any:
    """The real processor class of Qwen3-VL with its published image settings and a tokenizer that splits at spaces."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessorPil, Qwen3VLProcessor

    from promptecho.vlm.processor import _without_video

    special = {
        "<|image_pad|>": config["image_token_id"], "<|video_pad|>": config["video_token_id"],
        "<|vision_start|>": config["vision_start_token_id"], "<|vision_end|>": config["vision_end_token_id"],
        "<|im_start|>": 2, "<|im_end|>": 3, "<|endoftext|>": 4,
    }  # fmt: skip
    numbers = {str(n): 5 + n for n in range(11)}  # `expected_score` asks for the tokens of each
    tokenizer = Tokenizer(WordLevel({"<unk>": 0, WORD: 1, **numbers, **special}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Sequence([WhitespaceSplit(), Split(Regex(r"\d+$"), "isolated")])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        extra_special_tokens=[name for name in special if name not in ("<|im_end|>", "<|endoftext|>")],
    )  # fmt: skip
    return _without_video(Qwen3VLProcessor)(Qwen2VLImageProcessorPil(**preprocessor), fast, chat_template=CHAT_TEMPLATE)
