"""Prompt embeddings on disk, each computed once, so that the text encoder is on the GPU only while one is missing.

`FOLDER/KEY/ab/abcd....safetensors` is one prompt, named by its SHA-256, which for one with a source image is that of
both (source_images.py). KEY is a digest of all else that decides its
bits: family, encoder and tokenizer with their files and dtype, the libraries' versions, and what computes (a GPU's
name; on CPUs the number of threads, which changes rounding). So a run gives the same bytes with a full cache, an empty
one or none. `FOLDER/KEY/about.json` says what KEY means. A prompt takes tokens x width x bytes of the dtype:
1.3 MB for 250 tokens of Z-Image in bfloat16, 1.8 MB of Qwen-Image. Of those of KEY that were not read for the longest
time, the oldest go when a limit is reached; files are mapped, so that no more than a batch's prompts are in memory.

Any number of processes use a folder at once without waiting for each other: files appear whole (renamed), and whoever
computes one twice writes the same bytes. The cache is an optimisation: what is damaged in it is named and computed
again, and where nothing can be written that is told once and nothing more is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from promptecho.config import ExperimentConfig
from promptecho.errors import DataError
from promptecho.files import atomic_path, digest, write_json
from promptecho.source_images import Prompt
from promptecho.t2i.base import T2iModel

AHEAD = 256  # prompts encoded before they are needed, since the encoder is there
RESERVE = 1 << 30  # bytes that stay free on the cache's disk
SLACK = 0.05  # of the limit: so much is written by all processes between two looks
NAME, FACTS = "embedding", "promptecho"


class PromptCache:
    """`encode` in place of `family.encode_prompts`; it also takes care of the negative prompt, unless that is part of
    what the family makes of each prompt.

    Args:
        folder: where embeddings are kept; None: nothing is kept and the text encoder stays where it is.
        turn: (rank, ranks) of processes that need the same prompts: each begins with another one, and finds those
            that others have meanwhile written.
        limit_gb: about how large KEY may become, in 10^9 bytes; None: no limit.
    """

    def __init__(
        self, family: T2iModel, folder: str | Path | None, *, turn: tuple[int, int] = (0, 1),
        limit_gb: float | None = None,
    ) -> None:  # fmt: skip
        self.family, self.turn = family, turn
        self.limit = None if limit_gb is None else int(limit_gb * 1e9)
        self._written = 0  # bytes, since this process last looked how large KEY is
        self.folder: Path | None = None
        self._negative_is_set, self._cannot_write = family.descriptor.source_image, False
        self._told: set[Path] = set()  # damaged files
        if folder is not None:
            about = _about(family)
            self.folder = Path(folder) / digest(about)
            self._try_to_write(lambda: _describe(self.folder / "about.json", about))

    @classmethod
    def of(cls, config: ExperimentConfig, family: T2iModel, turn: tuple[int, int]) -> PromptCache:
        """The cache that a configuration names."""
        return cls(family, config.models_prompt_cache, turn=turn, limit_gb=config.models_prompt_cache_gb)

    def encode(self, prompts: Sequence[Prompt], upcoming: Iterable[Prompt] = ()) -> list[torch.Tensor]:
        """One conditioning [tokens, dim] per prompt, on the family's device.

        Args:
            upcoming: prompts that will be asked for next. Where one of `prompts` has to be computed, the first `AHEAD`
                of these are too, so that the encoder moves seldom. Nothing of them is kept in memory.

        Raises:
            DataError: a prompt is too long for the family.
        """
        wanted = list(dict.fromkeys(prompts))
        if self.folder is None:
            made = dict(zip(wanted, self.family.encode_prompts(wanted), strict=True))
            return [made[prompt] for prompt in prompts]
        if not self._negative_is_set:
            wanted.append(self.family.negative_prompt)
        read = {prompt: self._load(prompt) for prompt in wanted}
        found = {prompt: embedding for prompt, embedding in read.items() if embedding is not None}
        missing = [prompt for prompt in read if prompt not in found]
        if missing:
            later = islice((prompt for prompt in dict.fromkeys(upcoming) if prompt not in read), AHEAD)
            found |= self._compute(missing, [] if self._cannot_write else list(later))
        if not self._negative_is_set:
            self.family.set_negative(found[self.family.negative_prompt])
            self._negative_is_set = True
        return [found[prompt] for prompt in prompts]

    def _compute(self, missing: list[Prompt], later: list[Prompt]) -> dict[Prompt, torch.Tensor]:
        """The embeddings of `missing`; those of `later` are only written."""
        found: dict[Prompt, torch.Tensor] = {}
        self.family.move_text_encoder(self.family.device)
        try:
            for group in (missing, later):
                start = len(group) * self.turn[0] // self.turn[1]
                for prompt in [*group[start:], *group[:start]]:
                    if group is later and self._path(prompt).exists():
                        continue
                    # Looked for again: another rank may have begun with it.
                    embedding = self._load(prompt) if self.turn[1] > 1 else None
                    if embedding is None:
                        (embedding,) = self.family.encode_prompts([prompt])
                        self._store(prompt, embedding)
                    if group is missing:
                        found[prompt] = embedding
        finally:
            if not self._cannot_write:  # else it is needed each time
                self.family.move_text_encoder("cpu")
        return found

    def _path(self, prompt: Prompt) -> Path:
        assert self.folder is not None, "without a folder nothing is read or written"
        asked = prompt if isinstance(prompt, str) else json.dumps(_told(prompt), sort_keys=True)
        name = hashlib.sha256(asked.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _load(self, prompt: Prompt) -> torch.Tensor | None:
        from safetensors import SafetensorError, safe_open

        path = self._path(prompt)
        try:
            with safe_open(path, framework="pt") as file:
                facts, embedding = json.loads(file.metadata()[FACTS]), file.get_tensor(NAME)
            if facts != _told(prompt) | {"sha256": _sha256(embedding)}:
                self._damaged(path, "its content is not what was written")
                return None
            _mark_as_read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (
            OSError,
            SafetensorError,
            ValueError,
            KeyError,
            TypeError,
        ) as error:  # cut short, or no such file at all
            self._damaged(path, str(error))
            return None
        # Out of the mapping, into memory of torch's own alignment: where numbers lie may decide their last bits.
        return embedding.to(self.family.device) if self.family.device.type != "cpu" else embedding.clone()

    def _damaged(self, path: Path, why: str) -> None:
        if path not in self._told:
            print(f"{path}: damaged ({why}); the prompt is encoded again", file=sys.stderr, flush=True)
        self._told.add(path)

    def _store(self, prompt: Prompt, embedding: torch.Tensor) -> None:
        if not embedding.isfinite().all():  # useless, so it is not passed on
            return
        from safetensors.torch import save_file

        value = embedding.cpu().contiguous()

        def write() -> None:
            path = self._path(prompt)
            if shutil.disk_usage(path.parents[1]).free < RESERVE:
                raise DataError(f"{self.folder}: less than {RESERVE / 1e9:.1f} GB are free there")
            with atomic_path(path) as temporary:
                # One key: several would be written in any order.
                facts = json.dumps(_told(prompt) | {"sha256": _sha256(value)})
                save_file({NAME: value}, temporary, {FACTS: facts})
            self._written += path.stat().st_size

        self._try_to_write(write)
        if (limit := self.limit) is not None and self._written > SLACK * limit / self.turn[1]:
            self._written = 0
            self._try_to_write(lambda: _trim(self._path(prompt).parents[1], limit))

    def _try_to_write(self, write: Any) -> None:
        if self._cannot_write:
            return
        try:
            write()
        except (OSError, DataError) as error:
            self._cannot_write = True
            print(f"prompt cache: {error}; embeddings are computed anew each time", file=sys.stderr, flush=True)


def _told(prompt: Prompt) -> dict[str, str]:
    """What a file says of the prompt whose embedding it holds."""
    return {"prompt": prompt} if isinstance(prompt, str) else {"prompt": prompt.text, "image": prompt.source.sha256}


def _about(family: T2iModel) -> dict[str, str]:
    """What decides an embedding's bits besides the prompt."""
    import transformers

    device = torch.device(family.device)
    if device.type == "cuda":
        computes = torch.cuda.get_device_name(device)
    else:
        computes = f"{device.type} {platform.machine()}, {torch.get_num_threads()} threads"
    return {
        "text_encoder": family.text_identity, "computed_by": computes, "torch": torch.__version__,
        "transformers": transformers.__version__,
    }  # fmt: skip


def _describe(path: Path, about: dict[str, str]) -> None:
    if not path.exists():
        write_json(path, about)


def _mark_as_read(path: Path) -> None:
    """Note in the file's time that it is in use, at most once an hour: for `_trim`."""
    if time.time() - path.stat().st_mtime > 3600:
        with contextlib.suppress(OSError):  # another user's file
            os.utime(path)


def _trim(folder: Path, limit: int) -> None:
    """Delete embeddings until they take a tenth less than `limit` bytes, those first that were longest not read. Other
    processes may do the same, or read them: what is gone is computed again."""
    files = []
    for path in folder.glob("[0-9a-f][0-9a-f]/*.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            files.append((found.st_mtime, found.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return
    for _, size, path in sorted(files):
        if total <= 0.9 * limit:
            break
        path.unlink(missing_ok=True)
        total -= size


def _sha256(value: torch.Tensor) -> str:
    whole = value.detach().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(f"{value.dtype} {list(value.shape)} ".encode() + whole.tobytes()).hexdigest()
