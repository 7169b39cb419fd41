"""Caption prompts: DenseAlignBench's format, one {data_id, caption} a line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from promptecho.errors import DataError, counted
from promptecho.files import write_jsonl


@dataclass(frozen=True)
class CaptionPrompt:
    """One prompt; `data_id` names it in scores and may be any text, a path for example."""

    data_id: str
    caption: str


def read_prompts(path: str | Path) -> list[CaptionPrompt]:
    """Read a prompt set, checked as training prompts are (captions.prompts.read_prompts).

    Raises:
        DataError: the file is missing, empty or faulty (names all faulty lines).
    """
    from promptecho.captions.prompts import read_prompts as read

    return [CaptionPrompt(row.image_id, row.caption) for row in read(path)]


def write_first(captions: str | Path, count: int, out: str | Path) -> None:
    """Write the first `count` prompts of a file, in its order.

    Raises:
        DataError: as read_prompts, or the file holds fewer.
    """
    prompts = read_prompts(captions)
    if len(prompts) < count:
        asked = counted(count, "caption is", "captions are")
        raise DataError(f"{captions}: {asked} asked for, it holds {len(prompts)}; hold out more")
    write_jsonl(out, [asdict(prompt) for prompt in prompts[:count]])
