"""The official prompts, a file of 300 lines for each category, as one file with their noun phrases.

phrases.txt says where the noun phrases of the official prompts of color, shape and texture are: a line a prompt, in the
order of the files, with the category and `start-end` in characters for each phrase. They are what spaCy 3.8.18 with
en_core_web_sm 3.8.0 finds (`doc.noun_chunks`, as the published code asks for them), mistakes included, so that neither
has to be installed. The published code names no version.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptecho.benchmarks.t2icompbench.rules import ATTRIBUTES
from promptecho.errors import DataError
from promptecho.files import write_jsonl

PHRASES = Path(__file__).with_name("phrases.txt")
PACKED = ("color", "shape", "texture", "non_spatial")


def phrase_places(path: Path = PHRASES) -> dict[str, list[list[tuple[int, int]]]]:
    """Where the noun phrases of each category's prompts are: pairs of start and end for each prompt."""
    places: dict[str, list[list[tuple[int, int]]]] = {category: [] for category in ATTRIBUTES}
    for line in path.read_text(encoding="ascii").splitlines():
        category, *spans = line.split()
        pairs = (span.split("-") for span in spans)
        places[category].append([(int(start), int(end)) for start, end in pairs])
    return places


def pack_set(folder: Path) -> None:
    """Make `validation.jsonl` of a fetched set from its official files CATEGORY_val.txt.

    Raises:
        DataError: a file is missing, or has another number of prompts than phrases.txt knows (names it).
    """
    places, rows = phrase_places(), []
    for category in PACKED:
        path = folder / f"{category}_val.txt"
        try:
            prompts = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot read ({error}); fetch the set again") from error
        phrases = places.get(category, [[] for _ in prompts])
        if len(prompts) != len(phrases):
            raise DataError(f"{path}: {len(prompts)} prompts, not {len(phrases)}; fetch the set again")
        for prompt, spans in zip(prompts, phrases, strict=True):
            row: dict[str, Any] = {"prompt": prompt, "category": category}
            rows.append(row | ({"phrases": [prompt[start:end] for start, end in spans]} if spans else {}))
    write_jsonl(folder / "validation.jsonl", rows)
